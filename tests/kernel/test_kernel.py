"""The order of things: what is handled together, what waits for what is durable, what survives."""

import pytest

from merit.allocation.catalogue import BUILT_IN
from merit.core import machine as machine_module
from merit.core.codec import decode_event, fold
from merit.core.invariants import check
from merit.core.state import State
from merit.core.submitting import submit_tasks
from merit.kernel.kernel import Kernel
from merit.kernel.quarantine import Quarantine, Stopped
from merit.kernel.waiting import Lookup
from merit.model.commands import CancelTasks, SubmitTasks, Tick
from merit.model.events import TaskCanceled
from merit.model.frames import ClientFrame, ClientHello, Hello, ServerFrame, Settled, WorkerFrame
from merit.model.limits import SECOND_NS, Limits
from merit.model.record import RECORD_EVENTS_MAX, Tail, after, verify
from merit.model.tasks import Refusal, TaskState
from merit.session.cell_end import CellEnd
from merit.session.client_end import ClientEnd
from merit.session.link import ProtocolViolation
from merit.session.server_end import ServerEnd
from merit.session.worker_end import WorkerEnd
from merit.testing.builders import (
    START_NS,
    TENANT,
    a_spec,
    an_id,
    an_offer,
    completed,
    failed,
    ref,
)


class Cell:
    """A kernel, its journal in a list, and streams that carry frames at once."""

    def __init__(self, limits=None, records=(), quarantine=None):
        self.records = list(records)
        self.limits = limits or Limits()
        self.now_ns = START_NS
        self.pending = []
        self.answers = []
        self.lookups = []
        self.start(quarantine or Quarantine())

    def start(self, quarantine):
        state, tail = State(), Tail()
        for record in self.records:
            tail = verify(record, tail)
            fold(state, record)
        self.tail = tail
        machine = machine_module.Machine(state, BUILT_IN, self.limits)
        tail = Tail(tail.next, tail.last_hash, tail.epoch + 1)
        self.kernel = Kernel("cell", machine, tail, "leader", quarantine)
        self.streams = {}

    @property
    def state(self):
        return self.kernel.machine.state

    def step(self):
        """Handle what is there; the record is on its way."""
        record = self.kernel.step(self.now_ns)
        if record is not None:
            self.pending.append(record)
        if len(self.state.tasks) < 1_000:
            check(self.kernel.machine, self.state)
        return record

    def commit(self, count=None):
        """The oldest records are durable."""
        for _ in range(len(self.pending) if count is None else count):
            record = self.pending.pop(0)
            self.tail = verify(record, self.tail)
            self.records.append(record)
            self.kernel.committed(record.last)

    def flush(self):
        """Frames that may leave, delivered; by whom they were received."""
        out = self.kernel.outgoing()
        received = []
        for end, frame in out:
            peer = self.streams.get(end)
            received.append((peer, frame))
            if peer is not None:
                peer.receive(frame)
            if isinstance(frame, ServerFrame) and frame == ServerFrame(1, welcome=frame.welcome):
                received.pop()  # a greeting says nothing that could be lost
        self.answers += self.kernel.answers()
        self.lookups += self.kernel.lookups()
        return received

    def turn(self, times=1):
        for _ in range(times):
            self.step()
            self.commit()
            self.flush()

    def settle(self):
        for _ in range(200):
            self.turn()
            if sum(peer.pump() for peer in self.streams.values()) == 0 and not self.kernel.busy:
                return
        raise AssertionError("does not come to rest")


class Peer:
    end: CellEnd | ServerEnd

    def __init__(self, cell, own):
        self.cell, self.own = cell, own
        self.frames = []

    def disconnect(self):
        end = self.end
        del self.cell.streams[end]
        (self.cell.kernel.worker_gone if isinstance(end, CellEnd) else self.cell.kernel.client_gone)(end)
        self.own.disconnected()


class ClientPeer(Peer):
    def __init__(self, cell):
        super().__init__(cell, ClientEnd("client"))
        self.outcomes, self.refusals, self.accepted = [], [], []
        self.connect()

    def connect(self):
        self.own.connect()
        self.end = ServerEnd()
        self.cell.streams[self.end] = self

    def receive(self, frame):
        self.frames.append(frame)
        news = self.own.take(frame)
        self.outcomes += news.outcomes
        self.refusals += news.refusals
        self.accepted += news.accepted

    def pump(self):
        sent = 0
        while (frame := self.own.frame()) is not None:
            sent += 1
            self.cell.kernel.client_frame(self.end, frame, [])
        return sent

    def submit(self, *specs):
        for spec in specs:
            self.own.submit([spec])
        self.pump()


class WorkerPeer(Peer):
    def __init__(self, cell, name="w1", boot="boot-1", concurrency=4):
        super().__init__(cell, WorkerEnd(name, boot, (an_offer(),), concurrency))
        self.got, self.canceled = [], []
        self.connect()

    def connect(self):
        self.own.connect()
        self.end = CellEnd()
        self.cell.streams[self.end] = self
        self.refused = ""
        self.pump()

    def receive(self, frame):
        self.frames.append(frame)
        if frame.refused:
            self.refused = frame.refused
            return
        new, canceled = self.own.take(frame)
        self.got += new
        self.canceled += canceled

    def pump(self):
        sent = 0
        while (frame := self.own.frame()) is not None:
            sent += 1
            self.cell.kernel.worker_frame(self.end, frame)
        return sent

    def finish(self, *numbers):
        for assignment in list(self.got):
            if not numbers or assignment.task in {an_id(number) for number in numbers}:
                self.got.remove(assignment)
                self.own.ended(completed(int(assignment.task[-12:], 16), assignment.number, wall_ns=1_000))
        self.pump()


def test_nothing_leaves_before_it_is_durable():
    cell = Cell()
    cell.turn()
    cell.answers.clear()
    worker, client = WorkerPeer(cell), ClientPeer(cell)
    client.submit(a_spec(1))
    ticket = cell.kernel.offer(CancelTasks(TENANT, "x", [an_id(9)]))
    for _ in range(3):
        cell.step()
        assert cell.flush() == []
    assert cell.answers == []
    cell.commit()
    cell.flush()
    assert client.accepted == [an_id(1)]
    assert worker.own.welcome is not None
    assert [assignment.task for assignment in worker.got] == [an_id(1)]
    assert [(answer.ticket, answer.refusals[0].code) for answer in cell.answers] == [(ticket, "not_found")]
    worker.finish()
    cell.step()
    assert cell.flush() == []
    assert worker.own.unacknowledged == 1
    assert client.outcomes == []
    cell.commit()
    cell.flush()
    assert worker.own.unacknowledged == 0
    assert [outcome.state for outcome in client.outcomes] == [TaskState.COMPLETED]


def test_the_refusal_of_a_stream_waits_too():
    cell = Cell(Limits(workers_max=1))
    first = WorkerPeer(cell)
    second = WorkerPeer(cell, "w2")
    cell.step()
    assert cell.flush() == []
    cell.commit()
    cell.flush()
    assert "1 workers" in second.refused
    newer = WorkerPeer(cell, boot="boot-2")
    cell.step()
    assert cell.flush() == []
    cell.commit()
    cell.flush()
    assert "superseded" in first.refused
    assert "give each its own" in first.refused
    assert not first.frames[-1].permanent
    assert newer.own.welcome is not None


def test_what_a_later_batch_says_does_not_overtake_an_earlier_record():
    cell = Cell()
    cell.turn()
    client = ClientPeer(cell)
    client.submit(a_spec(1))
    cell.step()
    # The second submit of the same task changes nothing, and yet its answer depends on the first one's record.
    again = ClientPeer(cell)
    again.submit(a_spec(1))
    assert cell.step() is None
    assert cell.flush() == []
    cell.commit()
    cell.flush()
    assert client.accepted == again.accepted == [an_id(1)]


def test_records_in_flight_are_let_out_one_by_one():
    cell = Cell()
    cell.turn()
    clients = []
    for number in range(4):
        client = ClientPeer(cell)
        client.submit(a_spec(number))
        clients.append(client)
        cell.step()
    for number in range(4):
        cell.commit(1)
        cell.flush()
        assert [bool(client.accepted) for client in clients] == [True] * (number + 1) + [False] * (3 - number)


def test_a_newer_stream_gets_nothing_that_was_meant_for_the_older_one():
    """Otherwise an assignment is on the new stream twice, and a credit with it."""
    cell = Cell()
    cell.turn()
    worker, client = WorkerPeer(cell), ClientPeer(cell)
    cell.settle()
    client.submit(a_spec(1))
    cell.step()
    assert len(cell.pending) == 1
    worker.disconnect()
    worker.connect()
    worker.frames.clear()
    client.submit(a_spec(2, "other"))
    cell.step()
    assert len(cell.pending) == 2
    cell.commit(1)
    cell.flush()
    assert worker.frames == []
    cell.commit()
    cell.flush()
    assert [len(frame.assignments) for frame in worker.frames] == [1]
    assert worker.frames[0].welcome is not None
    seat = cell.kernel.machine.seats["w1"]
    assert seat.used == worker.own._taken == 1


def test_two_streams_of_a_worker_in_one_batch():
    cell = Cell()
    cell.turn()
    client = ClientPeer(cell)
    worker = WorkerPeer(cell)
    client.submit(a_spec(1), a_spec(2))
    cell.settle()
    assert len(worker.got) == 2
    other = WorkerPeer(cell)
    other.own.session = 7
    other.connect()
    last = WorkerPeer(cell)
    last.own.session = 8
    last.connect()
    cell.turn()
    assert [len(frame.assignments) for frame in last.frames if frame.welcome] == [2]
    assert "newer stream" in other.refused
    assert cell.kernel.machine.seats["w1"].used == 2


def test_a_stream_with_the_session_of_another_is_refused_and_the_other_lives():
    cell = Cell()
    cell.turn()
    worker = WorkerPeer(cell)
    cell.settle()
    double = WorkerPeer(cell)
    cell.turn()
    assert "session 1 is over" in double.refused
    assert not worker.end.closing
    client = ClientPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    assert [assignment.task for assignment in worker.got] == [an_id(1)]


def test_frames_of_a_superseded_stream_are_not_taken():
    cell = Cell()
    cell.turn()
    worker, client = WorkerPeer(cell), ClientPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    successor = WorkerPeer(cell, boot="boot-2")
    worker.finish()
    cell.turn()
    assert cell.state.tasks[an_id(1)].state is not TaskState.COMPLETED
    assert worker.own.unacknowledged == 1
    assert successor.own.welcome is not None


def test_a_worker_comes_back_after_the_cell_was_killed_and_loses_nothing():
    cell = Cell()
    worker, client = WorkerPeer(cell), ClientPeer(cell)
    client.submit(*(a_spec(number) for number in range(4)))
    cell.settle()
    worker.finish(0)
    cell.step()
    # kill -9: the record with the report never became durable, nor was it acknowledged.
    reborn = Cell(records=cell.records)
    reborn.step()
    for peer in (worker, client):
        peer.cell = reborn
        peer.own.disconnected()
        peer.connect()
        peer.pump()
    reborn.settle()
    worker.finish()
    reborn.settle()
    assert [outcome.state for outcome in client.outcomes] == [TaskState.COMPLETED] * 4
    assert [task.attempts[0].number for task in reborn.state.tasks.values()] == [1] * 4
    assert all(len(task.attempts) == 1 for task in reborn.state.tasks.values())


def test_a_group_with_one_bad_task_is_refused_as_a_whole():
    cell = Cell()
    client = ClientPeer(cell)
    client.own.submit([a_spec(1), a_spec(2, after=[77]), a_spec(3)])
    client.pump()
    cell.settle()
    assert cell.state.tasks == {}
    assert {(refusal.task, refusal.code) for refusal in client.refusals} == {
        (an_id(1), "batch"),
        (an_id(2), "not_found"),
        (an_id(3), "batch"),
    }
    assert client.accepted == []
    assert not cell.kernel.watchers.tasks()


def test_a_task_of_a_refused_group_that_is_known_and_final_is_told():
    cell = Cell()
    worker, client = WorkerPeer(cell), ClientPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    worker.finish()
    cell.settle()
    again = ClientPeer(cell)
    again.own.submit([a_spec(1), a_spec(2, after=[77])])
    again.pump()
    cell.settle()
    assert again.accepted == [an_id(1)]
    assert [outcome.task for outcome in again.outcomes] == [an_id(1)]
    assert not cell.kernel.watchers.tasks()


def test_final_tasks_are_told_and_forgotten_ones_looked_up():
    cell = Cell(Limits(finals_max=1))
    worker, client = WorkerPeer(cell), ClientPeer(cell)
    client.submit(a_spec(1), a_spec(2))
    cell.settle()
    worker.finish()
    cell.settle()
    late = ClientPeer(cell)
    for number in (1, 2, 9):
        late.own.watch(an_id(number))
    late.pump()
    client.submit(a_spec(3))
    cell.step()
    assert cell.kernel.lookups() == [], "what is asked after may be in a record that is on its way"
    cell.settle()
    forgotten = [number for number in (1, 2) if an_id(number) not in cell.state.tasks]
    assert len(late.outcomes) == 1
    (lookup,) = [lookup for lookup in cell.lookups if lookup.end is late.end]
    assert lookup.tasks == [an_id(forgotten[0]), an_id(9)]
    cell.kernel.found(lookup, [Settled(an_id(forgotten[0]), TaskState.COMPLETED)])
    cell.settle()
    assert len(late.outcomes) == 2
    reason = "there is no such task in this cell, or it is not remembered any more"
    assert late.refusals == [Refusal(an_id(9), "not_found", "watch", reason)]
    assert isinstance(lookup, Lookup)


def test_everybody_who_watches_is_told_once():
    cell = Cell()
    worker = WorkerPeer(cell)
    clients = [ClientPeer(cell) for _ in range(4)]
    for client in clients:
        client.submit(a_spec(1))
    cell.settle()
    clients[1].disconnect()
    worker.finish()
    cell.settle()
    assert [len(client.outcomes) for client in clients] == [1, 0, 1, 1]
    assert not cell.kernel.watchers.tasks()


@pytest.mark.parametrize("where", ["submit", "report", "allocate"])
def test_what_stopped_the_cell_is_set_aside_and_the_rest_of_the_world_goes_on(where, monkeypatch):
    def poisoned(desk, command):
        if where == "submit" and any(spec.description == "poison" for spec in command.tasks):
            desk.cursor = next(spec for spec in command.tasks if spec.description == "poison")
            raise ZeroDivisionError("poison")
        submit_tasks(desk, command)

    monkeypatch.setitem(machine_module._HANDLERS, SubmitTasks, poisoned)
    cell = Cell()
    client = ClientPeer(cell)
    client.submit(a_spec(1), a_spec(2, description="poison"), a_spec(3))
    worker = None
    if where == "submit":
        with pytest.raises(Stopped, match="ZeroDivisionError: poison") as stopped:
            cell.step()
    elif where == "report":
        worker = WorkerPeer(cell)
        cell.settle()
        worker.finish(1)
        worker.got = [assignment for assignment in worker.got if assignment.task != an_id(2)]
        worker.own.ended(completed(2, wall_ns=2**70))  # more than an event can hold
        worker.pump()
        with pytest.raises(Stopped, match="OverflowError") as stopped:
            cell.step()
    else:
        monkeypatch.setattr("merit.core.allocating._assign", lambda desk, line, task, worker: 1 // 0)
        cell.turn()
        worker = WorkerPeer(cell)
        with pytest.raises(Stopped, match="ZeroDivisionError") as stopped:
            cell.step()
        monkeypatch.undo()
    digests = frozenset({stopped.value.digest} - {""})
    tasks = (stopped.value.task,) if stopped.value.task else ()
    assert digests or tasks
    reborn = Cell(records=cell.records, quarantine=Quarantine(digests, tasks))
    client.cell = reborn
    client.own.disconnected()
    client.connect()
    if worker is None:
        worker = WorkerPeer(reborn)
    else:
        worker.cell = reborn
        worker.own.disconnected()
        worker.connect()
    client.pump()
    reborn.settle()
    worker.finish()
    reborn.settle()
    done = {outcome.task: outcome.state for outcome in client.outcomes}
    if where == "submit":
        assert [refusal.code for refusal in client.refusals] == ["poisoned"]
        assert done == {an_id(1): TaskState.COMPLETED, an_id(3): TaskState.COMPLETED}
    elif where == "report":
        assert done[an_id(2)] is TaskState.DEAD
        assert "set aside" in next(o for o in client.outcomes if o.task == an_id(2)).failure.message
        assert done[an_id(1)] is done[an_id(3)] is TaskState.COMPLETED
    else:
        canceled = next(
            task
            for record in reborn.records
            for task in map(decode_event, record.events)
            if isinstance(task, TaskCanceled)
        )
        assert (canceled.task,) == tasks == (an_id(1),)
        assert done[an_id(2)] is done[an_id(3)] is TaskState.COMPLETED


def test_what_is_set_aside_may_be_anybodys():
    cell = Cell()
    cell.kernel.offer(SubmitTasks("acme", "somebody", [a_spec(1), a_spec(2)], False))
    cell.settle()
    reborn = Cell(records=cell.records, quarantine=Quarantine(frozenset(), (an_id(1), an_id(7))))
    reborn.settle()
    states = {task.id: task.state for task in reborn.kernel.machine.state.tasks.values()}
    assert states == {an_id(1): TaskState.CANCELED, an_id(2): TaskState.PENDING}


def test_a_poisonous_hand_back_is_set_aside_too(monkeypatch):
    cell = Cell()
    worker, client = WorkerPeer(cell), ClientPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    monkeypatch.setattr("merit.core.staffing.take_returned", lambda desk, worker, what: 1 // 0)
    worker.own.handed_back(an_id(1), 1)
    worker.pump()
    with pytest.raises(Stopped) as stopped:
        cell.step()
    assert stopped.value.item == ref(1)
    reborn = Cell(records=cell.records, quarantine=Quarantine(frozenset({stopped.value.digest})))
    worker.cell = reborn
    worker.own.disconnected()
    worker.own._returned = [ref(1)]
    worker.connect()
    reborn.settle()
    assert worker.own.welcome is not None


def test_a_batch_is_never_more_than_a_record_holds():
    cell = Cell(Limits(grace_ns=0))
    cell.turn()
    client = ClientPeer(cell)
    client.submit(a_spec(0))
    for start in range(0, 70_000, 4_000):
        client.submit(*(a_spec(number, after=[0]) for number in range(start + 1, start + 4_001)))
        cell.settle()
    assert len(cell.state.tasks) > RECORD_EVENTS_MAX
    client.own.cancel(an_id(0))
    client.pump()
    cell.settle()
    assert all(task.state.final for task in cell.state.tasks.values())
    assert max(record.count for record in cell.records) < RECORD_EVENTS_MAX // 2
    assert max(record.count for record in cell.records[-60:]) <= cell.limits.batch_follow_ups_max
    assert len(client.outcomes) == len(cell.state.tasks)


def test_payloads_and_events_close_a_batch_as_well_as_their_number():
    cell = Cell(Limits(batch_bytes_max=100_000, batch_events_max=10))
    cell.turn()
    client = ClientPeer(cell)
    cell.settle()
    before = len(cell.records)
    clients = []
    for number in range(20):
        peer = ClientPeer(cell)
        peer.submit(a_spec(number, parameters=b'{"pad":"%d%s"}' % (number, b"x" * 40_000)))
        clients.append(peer)
    cell.settle()
    sizes = [sum(map(len, record.payloads)) for record in cell.records[before:]]
    assert len(sizes) >= 7
    assert max(sizes) < 150_000
    worker = WorkerPeer(cell, concurrency=20)
    cell.settle()
    assert len(worker.got) == 20
    for assignment in worker.got:
        number = int(assignment.task[-12:], 16)
        worker.own.ended(failed(number, wall_ns=1))
    worker.got.clear()
    worker.pump()
    cell.settle()
    assert client.outcomes == []
    assert {task.state for task in cell.state.tasks.values()} == {TaskState.WAITING}


def test_time_that_runs_backwards_stands_still():
    cell = Cell()
    cell.turn()
    cell.now_ns -= 5 * SECOND_NS
    client = ClientPeer(cell)
    client.submit(a_spec(1))
    cell.turn()
    assert cell.state.tasks[an_id(1)].submitted_ns == START_NS
    assert [record.time_ns for record in cell.records] == [START_NS] * len(cell.records)


def test_what_is_due_is_done_without_anybody_asking():
    cell = Cell(Limits(grace_ns=0, reconnect_ns=SECOND_NS))
    worker = WorkerPeer(cell)
    cell.settle()
    worker.disconnect()
    cell.settle()
    assert cell.kernel.machine.next_due_ns() is not None
    cell.now_ns += 2 * SECOND_NS
    cell.turn()
    assert cell.state.workers == {}
    assert Tick(TENANT, "cell").events_max


def test_a_goodbye_is_acknowledged_and_the_worker_is_gone():
    cell = Cell()
    worker, client = WorkerPeer(cell), ClientPeer(cell)
    client.submit(a_spec(1))
    cell.settle()
    worker.own.drain()
    cell.settle()
    assert not worker.own.left
    worker.finish()
    cell.settle()
    assert worker.own.left
    assert cell.state.workers == {}
    assert client.outcomes[0].state is TaskState.COMPLETED


def test_garbage_ends_the_stream_of_who_said_it():
    cell = Cell()
    cell.turn()
    hello = Hello("w1", "b", 1, (an_offer(),), 1)
    for frames in (
        [WorkerFrame(sequence=1)],
        [WorkerFrame(sequence=2, hello=hello)],
        [WorkerFrame(sequence=1, hello=hello), WorkerFrame(sequence=2, hello=hello)],
        [WorkerFrame(sequence=1, ack=1, hello=hello)],
        [WorkerFrame(sequence=number, hello=hello if number == 1 else None) for number in (1, 2, 3)],
    ):
        end = CellEnd()
        with pytest.raises(ProtocolViolation):
            for frame in frames:
                cell.kernel.worker_frame(end, frame)
        cell.kernel.worker_gone(end)
    server_end = ServerEnd()
    with pytest.raises(ProtocolViolation, match="hello"):
        cell.kernel.client_frame(server_end, ClientFrame(sequence=1), [])
    with pytest.raises(ProtocolViolation):
        cell.kernel.client_frame(ServerEnd(), ClientFrame(sequence=1, hello=ClientHello("c"), ack=-1 + 2), [])
    cell.settle()
    assert cell.state.workers == {}


def test_the_state_and_the_journal_must_agree():
    cell = Cell()
    cell.turn()
    with pytest.raises(ValueError, match="they must agree"):
        Kernel("cell", cell.kernel.machine, Tail(), "leader", Quarantine())
    assert after(cell.records[-1]).next == cell.state.sequence + 1
