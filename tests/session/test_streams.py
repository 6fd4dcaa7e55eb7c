"""Both ends of a stream against each other, over connections that break at any moment."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.model.frames import (
    Assignment,
    AttemptRef,
    CellFrame,
    ClientFrame,
    Report,
    ReportStatus,
    ServerFrame,
    Settled,
    Update,
    Welcome,
    WorkerFrame,
)
from merit.model.limits import (
    DEPENDENCIES_MAX,
    FAILURE_DETAIL_LENGTH_MAX,
    FRAME_BYTES_MAX,
    FRAME_ITEMS_MAX,
    MESSAGE_BYTES_MAX,
    UNACKED_FRAMES_MAX,
)
from merit.model.tasks import Failure, Refusal, TaskSpec, TaskState
from merit.sdk.specs import atomic_parts
from merit.session.cell_end import CellEnd
from merit.session.client_end import ClientEnd
from merit.session.link import Link, Outbox, ProtocolViolation
from merit.session.server_end import ServerEnd
from merit.session.worker_end import WorkerEnd
from merit.testing.builders import a_spec, an_id, an_offer, completed, ref
from merit.wire.frames import encode_client_frame, encode_server_frame, encode_worker_frame


def said(end: Any) -> Any:
    """The frame that this end has to send now."""
    frame = end.frame()
    assert frame is not None
    return frame


def an_assignment(number, attempt=1):
    return Assignment(an_id(number), attempt, "echo", b"{}", "", 1)


class Wire:
    """Carries frames both ways in order, and loses what is on the way when it breaks."""

    def __init__(self, rng):
        self.rng = rng
        self.up: list[WorkerFrame] = []
        self.down: list[CellFrame] = []

    def lose(self):
        self.up.clear()
        self.down.clear()


class CellSide:
    """What the control plane does with a worker, without a machine: it keeps what it was told, and a few credits."""

    def __init__(self, rng):
        self.rng = rng
        self.next = 0
        self.live: dict[tuple[str, int], Assignment] = {}
        self.reports: dict[tuple[str, int], Report] = {}
        self.gone = False

    def attach(self):
        self.end = CellEnd()
        self.granted = self.used = self.repeated = 0
        self.undurable: list[WorkerFrame] = []
        self.gone = False  # one whose goodbye was not acknowledged comes to say it again

    def take(self, frame):
        if not self.end.take(frame):
            return
        assert not self.gone, "a goodbye is the last word"
        if frame.hello is not None:
            held = {(held.task, held.number) for held in frame.hello.held}
            self.end.welcome(Welcome("cell", 1, 1))
            for key, assignment in self.live.items():
                if key not in held:
                    self.used += 1
                    self.repeated += 1
                    self.end.assign(assignment)
            for key in held - self.live.keys():
                self.end.cancel(AttemptRef(*key))
        self.granted = max(self.granted, frame.credits)
        self.undurable.append(frame)
        if frame.draining:
            self.draining = True

    draining = False

    def commit(self):
        while self.undurable and self.rng.random() < 0.8:
            frame = self.undurable.pop(0)
            for report in frame.reports:
                key = (report.task, report.number)
                if key in self.live:
                    assert key not in self.reports, "no attempt is reported twice"
                    self.reports[key] = report
                    del self.live[key]
            for back in frame.returned:
                self.live.pop((back.task, back.number), None)
            self.end.durable(frame.sequence)
            if frame.bye:
                assert not self.live, "nothing is lost by a goodbye"
                self.gone = True

    def assign(self):
        while self.used < self.granted and not self.draining and self.rng.random() < 0.7:
            self.used += 1
            self.next += 1
            assignment = an_assignment(self.next)
            self.live[assignment.task, 1] = assignment
            self.end.assign(assignment)


@given(st.randoms(use_true_random=True))
@settings(max_examples=150)
def test_a_worker_loses_nothing_and_says_nothing_twice_however_often_the_stream_breaks(rng):
    wire, cell = Wire(rng), CellSide(rng)
    worker = WorkerEnd("w1", "b1", (an_offer(),), rng.randint(1, 5))
    running: dict[tuple[str, int], Assignment] = {}
    executed: list[tuple[str, int]] = []

    def connect():
        wire.lose()
        worker.connect()
        cell.attach()

    def send_up():
        while (frame := worker.frame(beat=rng.random() < 0.1)) is not None:
            assert frame.sequence == 0 or worker._link._sent - worker._link.acked <= UNACKED_FRAMES_MAX
            wire.up.append(frame)

    def send_down():
        while (frame := cell.end.frame()) is not None:
            wire.down.append(frame)

    def deliver_up():
        for _ in range(rng.randint(0, len(wire.up))):
            frame = wire.up.pop(0)
            cell.take(frame)
            if rng.random() < 0.1:
                assert not cell.end.take(WorkerFrame(frame.sequence)), "what comes twice is dropped"

    def deliver_down():
        for _ in range(rng.randint(0, len(wire.down))):
            new, canceled = worker.take(wire.down.pop(0))
            for assignment in new:
                key = (assignment.task, assignment.number)
                assert key not in executed, "no attempt is begun twice"
                executed.append(key)
                running[key] = assignment
            for gone in canceled:
                assert (gone.task, gone.number) not in running

    def work():
        for key in list(running):
            if rng.random() < 0.5:
                del running[key]
                number = int(key[0][-12:], 16)
                worker.ended(completed(number, key[1], wall_ns=rng.randint(1, 10**9)))
                worker.ended(completed(number, key[1]))
            elif rng.random() < 0.3:
                worker.started(*key)
        assert worker.held == len(running)

    connect()
    actions = [send_up, send_down, deliver_up, deliver_down, work, cell.commit, cell.assign]
    for _ in range(200):
        if worker.left:
            break
        rng.choice(actions)()
        assert worker._taken <= worker._granted_told + cell.repeated, "credits are never exceeded"
        if rng.random() < 0.03 and not worker.left:
            worker.disconnected()
            connect()
        if rng.random() < 0.005:
            worker.drain()
    worker.drain()
    for _ in range(3_000):
        if worker.left:
            break
        rng.choice(actions)()
    assert worker.left
    assert cell.gone
    assert not running
    assert not cell.live
    assert worker.unacknowledged == 0
    assert set(executed) == set(cell.reports)


def test_credits_are_never_exceeded_within_one_stream():
    worker, cell = WorkerEnd("w1", "b1", (an_offer(),), 2), CellEnd()
    worker.connect()
    frame = said(worker)
    assert frame is not None
    assert frame.credits == worker.target == 4
    cell.take(frame)
    for number in range(4):
        cell.assign(an_assignment(number))
    new, _ = worker.take(said(cell))
    assert len(new) == 4
    cell.durable(1)
    worker.take(said(cell))
    assert worker.frame() is None, "nothing new while everything is held, and the acknowledgement is in no hurry"
    worker.ended(completed(0))
    assert said(worker).credits == 5


def test_an_acknowledgement_comes_at_once_when_the_other_side_cannot_go_on_without_it():
    worker, cell = WorkerEnd("w1", "b1", (an_offer(),), 2), CellEnd()
    worker.connect()
    cell.take(said(worker))
    for number in range(2):
        cell.assign(an_assignment(number))
        worker.take(said(cell))
    assert said(worker) == WorkerFrame(ack=2)
    assert worker.frame() is None


def test_a_beat_says_nothing_that_has_to_be_answered():
    worker, cell = WorkerEnd("w1", "b1", (an_offer(),), 2), CellEnd()
    worker.connect()
    cell.take(said(worker))
    beats = [worker.frame(beat=True) for _ in range(5)]
    assert beats == [WorkerFrame()] * 5
    assert not any(cell.take(beat) for beat in beats if beat is not None)
    assert cell.frame() is None


def test_what_is_in_flight_when_a_worker_drains_is_not_lost():
    worker, cell = WorkerEnd("w1", "b1", (an_offer(),), 2), CellEnd()
    worker.connect()
    cell.take(said(worker))
    cell.welcome(Welcome("cell", 1, 1))
    cell.durable(1)
    worker.take(said(cell))
    worker.drain()
    frame = said(worker)
    assert frame.draining
    assert not frame.bye, "an assignment may be on its way"
    cell.assign(an_assignment(1))
    new, _ = worker.take(said(cell))
    assert len(new) == 1


def test_started_is_said_again_on_a_new_stream():
    worker, cell = WorkerEnd("w1", "b1", (an_offer(),), 2), CellEnd()
    worker.connect()
    cell.take(said(worker))
    cell.assign(an_assignment(1))
    cell.assign(an_assignment(2))
    worker.take(said(cell))
    worker.started(an_id(1), 1)
    assert said(worker).started == [ref(1)]
    worker.disconnected()
    worker.connect()
    frame = said(worker)
    assert frame.started == [ref(1)]
    assert set(frame.hello.held) == {ref(1), ref(2)}


# Clients


@given(st.randoms(use_true_random=True))
@settings(max_examples=150)
def test_a_client_hears_of_every_task_however_often_the_stream_breaks(rng):
    client = ClientEnd("c")
    submitted: list[str] = []
    accepted: list[str] = []
    refused: dict[str, Refusal] = {}
    outcomes: dict[str, Settled] = {}
    tasks: dict[str, TaskSpec] = {}
    finals: dict[str, Settled] = {}
    doomed: set[str] = set()
    same: dict[str, str] = {}
    followed: set[str] = set()
    seen: set[str] = set()
    watchers: set[str] = set()
    up: list[ClientFrame] = []
    down: list[ServerFrame] = []
    state: dict[str, Any] = {"end": ServerEnd(), "undurable": []}

    def connect():
        up.clear()
        down.clear()
        watchers.clear()
        state.update(end=ServerEnd(), undurable=[])
        client.connect()

    # Tasks of before, which some submits are by their idempotency keys.
    for number in range(3):
        tasks[an_id(900_000 + number)] = a_spec(900_000 + number)

    def submit():
        number = len(submitted)
        size = rng.choice([1, 1, 1, 3])
        group = [a_spec(number + offset) for offset in range(size)]
        if rng.random() < 0.2:
            doomed.update(task.id for task in group)
        elif size == 1 and rng.random() < 0.2:
            same[group[0].id] = an_id(900_000 + rng.randint(0, 2))
        submitted.extend(task.id for task in group)
        client.submit(group)
        if rng.random() < 0.2:
            client.cancel(group[0].id)
        if rng.random() < 0.2:
            client.follow(group[0].id)

    def send_up():
        while (frame := client.frame()) is not None:
            up.append(frame)

    def deliver_up():
        end = state["end"]
        for _ in range(rng.randint(0, len(up))):
            frame = up.pop(0)
            if end.take(frame):
                state["undurable"].append(frame)

    def handle(frame):
        end = state["end"]
        for group in [*([task] for task in frame.tasks), *frame.groups]:
            for task in group:
                if task.id in doomed:
                    end.refusal(Refusal(task.id, "invalid", "x", "y"))
                elif task.id in same:
                    end.known(task.id, same[task.id])
                else:
                    tasks.setdefault(task.id, task)
                    watchers.add(task.id)
        for task_id in frame.cancels:
            assert task_id in tasks.keys() | doomed | same.keys(), "a cancel never overtakes its submit"
        for task_id in frame.follow:
            assert task_id in tasks.keys() | doomed | same.keys(), "nor does the wish to follow"
            if task_id in tasks:
                followed.add(task_id)
        for task_id in frame.watch:
            assert task_id in tasks
            watchers.add(task_id)
        for task_id in sorted(watchers & finals.keys()):
            watchers.discard(task_id)
            end.outcome(finals[task_id])
        end.durable(frame.sequence)

    def commit():
        while state["undurable"] and rng.random() < 0.8:
            handle(state["undurable"].pop(0))

    def finish():
        for task_id in sorted(tasks.keys() - finals.keys()):
            if rng.random() < 0.3:
                if task_id in followed:
                    state["end"].update(Update(task_id, TaskState.RUNNING))
                finals[task_id] = Settled(task_id, TaskState.COMPLETED)
                if task_id in watchers:
                    watchers.discard(task_id)
                    state["end"].outcome(finals[task_id])

    def send_down():
        while (frame := state["end"].frame()) is not None:
            down.append(frame)

    def deliver_down():
        for _ in range(rng.randint(0, len(down))):
            news = client.take(down.pop(0))
            accepted.extend(news.accepted)
            seen.update(update.task for update in news.updates)
            assert all(same[task_id] == existing for task_id, existing in news.known)
            for refusal in news.refusals:
                refused[refusal.task] = refusal
                assert refusal.task not in accepted
            for outcome in news.outcomes:
                assert outcome.task in accepted or outcome.task in same.values()
                outcomes[outcome.task] = outcome

    connect()
    actions = [send_up, deliver_up, commit, finish, send_down, deliver_down]
    for _ in range(150):
        rng.choice([submit, *actions])()
        if rng.random() < 0.03:
            client.disconnected()
            connect()
    for _ in range(3_000):
        rng.choice(actions)()
        expected = {same.get(task_id, task_id) for task_id in submitted} - doomed
        # Whoever submits what is over already hears its outcome once more.
        owed = client.unacknowledged or client._waiting or client._following
        if set(refused) == doomed and set(outcomes) == expected and not owed:
            break
    assert set(refused) == doomed
    assert set(outcomes) == {same.get(task_id, task_id) for task_id in submitted} - doomed
    assert seen <= followed
    assert not client._following, "what has ended or was refused is followed no more"
    assert not client._aliases
    assert sorted(accepted) == sorted(set(submitted) - doomed), "each is accepted once"


def test_a_cancel_waits_until_its_submit_is_on_the_way():
    client = ClientEnd("c")
    client.connect()
    for number in range(FRAME_ITEMS_MAX + 10):
        client.submit([a_spec(number)])
    client.cancel(an_id(FRAME_ITEMS_MAX + 5))
    for number in range(2 * FRAME_ITEMS_MAX):
        client.submit([a_spec(10_000 + number)])
    assert said(client).cancels == []
    assert said(client).cancels == [an_id(FRAME_ITEMS_MAX + 5)], "later submits do not keep it back"
    client.disconnected()
    client.connect()
    cancels = []
    for sequence in range(1, 5):
        cancels.append(said(client).cancels)
        client.take(ServerFrame(ack=sequence))
    # On a new stream it waits for all, since nobody remembers for which.
    assert cancels == [[], [], [], [an_id(FRAME_ITEMS_MAX + 5)]]


def test_an_acknowledgement_never_overtakes_a_refusal():
    server, client = ServerEnd(), ClientEnd("c")
    client.connect()
    client.submit([a_spec(1)])
    server.take(said(client))
    server.outcome(Settled(an_id(7), TaskState.DEAD))
    said(server)
    server.outcome(Settled(an_id(8), TaskState.DEAD))
    said(server)
    server.refusal(Refusal(an_id(1), "invalid", "x", "y"))
    server.durable(1)
    assert server.frame() is None, "the window is closed, and the refusal has to come first"
    server.take(ClientFrame(ack=1))
    frame = said(server)
    assert (frame.ack, len(frame.refusals)) == (1, 1)
    assert client.take(ServerFrame(1)).refusals == []


@pytest.mark.parametrize("end", [CellEnd(), ServerEnd()])
def test_after_a_refusal_comes_nothing(end):
    end.refuse("go away")
    assert said(end).refused == "go away"
    assert end.closing
    assert end.frame() is None


# The link


@given(st.lists(st.tuples(st.integers(-1, 6), st.integers(-1, 6)), max_size=12), st.integers(0, 4))
def test_a_link_takes_each_frame_once_in_order_and_within_the_window(frames, sent):
    link = Link()
    for _ in range(sent):
        link.stamp(content=True)
    expected = acked = 0
    for sequence, ack in frames:
        wrong = ack > sent or sequence > expected + 1 or (sequence == expected + 1 > UNACKED_FRAMES_MAX)
        if wrong:
            with pytest.raises(ProtocolViolation):
                link.admit(sequence, ack)
            return
        assert link.admit(sequence, ack) == (sequence == expected + 1)
        expected = max(expected, sequence)
        acked = max(acked, ack)
        assert (link.received, link.acked) == (expected, acked)
        assert link.open == (sent - acked < UNACKED_FRAMES_MAX)
        assert link.idle == (sent == acked)


def test_a_link_acknowledges_what_is_dealt_with_once():
    link = Link()
    due = []
    link.admit(1, 0)
    due.append(link.ack_due)
    link.deal(1)
    due.append(link.ack_due)
    assert link.stamp(content=False) == (0, 1)
    due.append(link.ack_due)
    assert due == [False, True, False]
    link.deal(0)
    assert link.stamp(content=True) == (1, 1)


@given(st.lists(st.integers(1, 2 * FRAME_BYTES_MAX), max_size=30))
def test_an_outbox_gives_all_in_order_in_frames_that_fit(sizes):
    outbox: Outbox[int] = Outbox()
    for number, size in enumerate(sizes):
        outbox.push(number, size)
    given_out = []
    while outbox:
        left = len(outbox)
        items = outbox.take()
        total = sum(sizes[number] for number in items)
        assert total <= FRAME_BYTES_MAX or len(items) == 1
        if len(outbox):
            assert total + sizes[items[-1] + 1] > FRAME_BYTES_MAX, "a frame is as full as it can be"
        assert len(outbox) == left - len(items)
        given_out += items
    assert given_out == list(range(len(sizes)))
    assert outbox.take() == []


def test_an_outbox_bounds_the_number_of_items():
    outbox: Outbox[int] = Outbox()
    for number in range(2 * FRAME_ITEMS_MAX + 1):
        outbox.push(number, 1)
    assert [len(outbox.take()) for _ in range(3)] == [FRAME_ITEMS_MAX, FRAME_ITEMS_MAX, 1]


def test_a_cell_frame_that_comes_twice_is_taken_once():
    worker = WorkerEnd("w1", "b1", (an_offer(),), 2)
    worker.connect()
    said(worker)
    frame = CellFrame(1, 1, assignments=[an_assignment(1)])
    assert len(worker.take(frame)[0]) == 1
    assert worker.take(frame) == ([], [])


TRACEBACK = Failure("exception", "went wrong", "x" * FAILURE_DETAIL_LENGTH_MAX)


def test_what_failed_with_long_tracebacks_goes_out_in_frames_that_are_received():
    worker, server = WorkerEnd("w", "b", (an_offer(),), 1_000), ServerEnd()
    worker.connect()
    for number in range(2_000):
        worker._held[an_id(number), 1] = True
        worker.ended(Report(an_id(number), 1, ReportStatus.FAILED, failure=TRACEBACK))
        server.outcome(Settled(an_id(number), TaskState.DEAD, b"", "", TRACEBACK, 1, "w"))
    assert encode_worker_frame(said(worker)).ByteSize() < MESSAGE_BYTES_MAX
    assert encode_server_frame(said(server)).ByteSize() < MESSAGE_BYTES_MAX


def test_tasks_that_need_many_others_go_out_in_frames_that_are_received():
    needed = range(10_000, 10_000 + DEPENDENCIES_MAX)
    specs = [a_spec(number, after=needed) for number in range(1_000)]
    client = ClientEnd("c")
    client.connect()
    for part in atomic_parts(specs):
        client.submit(part)
    for spec in specs:
        client.submit([spec])
    frame = said(client)
    assert frame.groups
    assert encode_client_frame(frame).ByteSize() < MESSAGE_BYTES_MAX


def test_content_without_a_sequence_does_not_pass_by_the_window():
    worker, cell = WorkerEnd("w", "b", (an_offer(),), 2), CellEnd()
    worker.connect()
    assert cell.take(said(worker))
    assert not cell.take(WorkerFrame(ack=0)), "a beat has no content"
    with pytest.raises(ProtocolViolation, match="must have one"):
        cell.take(WorkerFrame(reports=[completed(1)]))
