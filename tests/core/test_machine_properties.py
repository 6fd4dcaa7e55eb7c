"""Whatever is said to the machine in whatever order: the invariants hold, and the state is the fold of the events."""

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from merit.core.codec import decode_event, decode_state, encode_event, encode_state, fold, state_digest
from merit.core.invariants import InvariantBroken, check, check_allocated
from merit.core.state import State
from merit.model.commands import (
    Allocate,
    AttachWorker,
    CancelTasks,
    DetachWorker,
    FollowUp,
    SubmitTasks,
    TakeFrame,
    Tick,
)
from merit.model.effects import SendAssignment, SendCancel
from merit.model.frames import AttemptRef, Hello, Report, ReportStatus
from merit.model.limits import MILLISECOND_NS, SECOND_NS, Limits
from merit.model.record import NO_HASH, seal
from merit.model.tasks import AttemptState, Failure, Priority, Progress, TaskState
from merit.testing.builders import START_NS, TENANT, a_machine, a_spec, allocate, an_id, an_offer, attach, submit

LIMITS = Limits(
    live_tasks_max=40,
    live_bytes_max=2_000,
    finals_max=8,
    finals_bytes_max=400,
    workers_max=3,
    grace_ns=2 * SECOND_NS,
    reconnect_ns=SECOND_NS,
    stale_ns=4 * SECOND_NS,
    backoff_ns_max=2 * SECOND_NS,
)
WORKERS = ["w1", "w2", "w3", "w4"]
CAPABILITIES = ["add", "mul"]

COMPLETED = ReportStatus.COMPLETED
STEPS = 120


class AnyOrder:
    """Says anything at any time, with all randomness from `rng`, and keeps the journal of what came of it."""

    def __init__(self, rng):
        self.rng = rng
        self.now_ns = START_NS
        self.records = []
        self.finals = {}
        self.sessions = dict.fromkeys(WORKERS, 0)
        self.boots = 0
        self.epoch = 1
        self.machine = a_machine(State(), LIMITS)
        self.journal(self.machine.events)

    def run(self):
        steps = [self.submit] * 3 + [self.frame] * 6 + [self.allocate] * 4 + [self.attach] * 3
        steps += [self.follow_up] * 2 + [self.time_passes] * 2 + [self.cancel, self.detach, self.restart]
        for _ in range(STEPS):
            self.rng.choice(steps)()
            check(self.machine, self.machine.state)
            self.finals_stay()
        assert state_digest(self.folded()) == state_digest(self.machine.state)
        self.settles()

    def journal(self, events):
        if not events:
            return
        first = self.machine.state.sequence - len(events) + 1
        payloads = list(self.machine.take_payloads().values())
        data = [encode_event(event) for event in events]
        assert [decode_event(item) for item in data] == events
        self.records.append(seal("cell", first, self.epoch, "leader", self.now_ns, NO_HASH, data, payloads))

    def folded(self):
        state = State()
        for record in self.records:
            fold(state, record)
        return state

    def tell(self, command):
        before = self.machine.state.sequence
        decision = self.machine.handle(command, self.now_ns)
        assert self.machine.state.sequence == before + len(decision.events)
        self.journal(decision.events)
        return decision

    def finals_stay(self):
        kept = {}
        for task in self.machine.state.finals:
            before = self.finals.get(task.id)
            # A task that was forgotten may come again under the same id: it is another one then.
            if before is not None and before.order == task.order:
                assert before == task
                kept[task.id] = before
            else:
                kept[task.id] = deepcopy(task)
        self.finals = kept

    def some_refs(self, worker):
        rng = self.rng
        own = [AttemptRef(task, number) for task, number in self.machine.state.workers[worker].attempts.items()]
        refs = rng.sample(own, rng.randint(0, min(3, len(own))))
        if rng.random() < 0.2:
            refs.append(AttemptRef(an_id(rng.randrange(40)), rng.randrange(5)))
        rng.shuffle(refs)
        return refs

    # What may be said

    def submit(self):
        rng = self.rng
        tasks = [
            a_spec(
                rng.randrange(40),
                rng.choice(CAPABILITIES),
                after={rng.randrange(40) for _ in range(rng.choice([0, 0, 1, 2]))},
                priority=rng.choice(list(Priority)),
                parameters=rng.choice([b"{}", b'{"a":1}', b'{"pad":"' + b"x" * 90 + b'"}']),
                run_timeout_ns=rng.choice([MILLISECOND_NS, SECOND_NS, 60 * SECOND_NS]),
                attempts_max=rng.randint(1, 4),
            )
            for _ in range(rng.randint(1, 6))
        ]
        atomic = rng.random() < 0.3
        known = set(self.machine.state.tasks)
        decision = self.tell(SubmitTasks(TENANT, "tester", tasks, atomic))
        fresh = {task.id for task in tasks} - known
        taken = fresh & set(self.machine.state.tasks)
        refused = {refusal.task for refusal in decision.refusals}
        assert fresh <= taken | refused
        if atomic:
            assert not (taken and refused)
            assert not decision.refusals or not decision.events

    def cancel(self):
        tenant = self.rng.choice([TENANT, TENANT, "other"])
        ids = [an_id(self.rng.randrange(40)) for _ in range(3)]
        decision = self.tell(CancelTasks(tenant, "tester", ids))
        assert tenant == TENANT or not decision.events

    def attach(self):
        rng, state = self.rng, self.machine.state
        worker = rng.choice(WORKERS)
        known = state.workers.get(worker)
        old = known is not None and rng.random() < 0.1
        self.sessions[worker] += not old
        boot, held = f"boot-{self.boots}", []
        if known is None or rng.random() < 0.2:
            self.boots += 1
        else:
            boot = known.boot
            held = self.some_refs(worker)
        seat = self.machine.seats.get(worker)
        older = seat is not None and known is not None and boot == known.boot
        older = older and self.sessions[worker] <= seat.session  # type: ignore[union-attr]  # there is a seat then
        before = dict(known.attempts) if known is not None else {}
        offers = tuple(an_offer(name) for name in rng.choice([CAPABILITIES] * 3 + [CAPABILITIES[:1]]))
        hello = Hello(worker, boot, self.sessions[worker], offers, 2, tuple(held))
        decision = self.tell(AttachWorker(TENANT, worker, hello, rng.randint(0, 6)))
        if older or worker not in state.workers:
            assert not decision.events
            return
        # Resuming: what it does not hold is sent again, what is not current is called off, nothing else.
        now = state.workers[worker].attempts
        assert not now or now == before
        sent = [(e.assignment.task, e.assignment.number) for e in decision.effects if isinstance(e, SendAssignment)]
        assert set(sent) == set(now.items()) - {(ref.task, ref.number) for ref in held}
        gone = [e.attempt for e in decision.effects if isinstance(e, SendCancel)]
        assert gone == [ref for ref in held if now.get(ref.task) != ref.number]
        assert self.machine.seats[worker].used == len(sent)

    def detach(self):
        workers = list(self.machine.seats)
        if not workers:
            return
        worker = self.rng.choice(workers)
        stale = self.rng.random() < 0.2
        boot, session = self.machine.state.workers[worker].boot, self.machine.seats[worker].session
        decision = self.tell(DetachWorker(TENANT, worker, worker, boot, session - stale, self.rng.random() < 0.3))
        assert not (stale and decision.events)

    def frame(self):
        rng, workers = self.rng, list(self.machine.seats)
        if not workers:
            return
        worker = rng.choice(workers)
        seat, known = self.machine.seats[worker], self.machine.state.workers[worker]
        reports = []
        for ref in self.some_refs(worker):
            status = rng.choice([COMPLETED, *ReportStatus])
            failure = None if status is COMPLETED else Failure("error", "bad", permanent=rng.random() < 0.2)
            reports.append(Report(ref.task, ref.number, status, b"1", failure=failure, trail=b"[]"))
        progress = [Progress(ref.task, ref.number, 0.5) for ref in self.some_refs(worker)]
        stale = rng.random() < 0.1
        mine = dict(known.attempts)
        decision = self.tell(
            TakeFrame(
                TENANT,
                worker,
                worker,
                known.boot,
                seat.session - stale,
                reports,
                self.some_refs(worker),
                self.some_refs(worker),
                progress,
                seat.granted + rng.randint(0, 3),
                rng.random() < 0.05,
            )
        )
        assert not (stale and decision.events)
        for event in decision.events:
            task, number = getattr(event, "task", None), getattr(event, "number", None)
            assert number is None or (task, number) in mine.items()
            assert task is None or task in mine

    def follow_up(self):
        count_max = self.rng.choice([1, 3, 1_000])
        assert len(self.tell(FollowUp(TENANT, "cell", count_max)).events) <= count_max

    def allocate(self):
        machine, count_max = self.machine, self.rng.choice([1, 3, 1_000])
        rooms = {name: seat.granted - seat.used for name, seat in machine.seats.items()}
        decision = self.tell(Allocate(TENANT, "cell", count_max))
        sent = [effect for effect in decision.effects if isinstance(effect, SendAssignment)]
        assert len(sent) == len(decision.events) <= count_max
        for effect in sent:
            rooms[effect.worker] -= 1
            assert rooms[effect.worker] >= 0, "a credit is used once"
            assert effect.assignment.capability in machine.seats[effect.worker].capabilities
        if len(sent) < count_max:
            check_allocated(machine)
        for capability in CAPABILITIES:
            bound = [machine.state.tasks[effect.assignment.task] for effect in sent]
            ranks = [task.priority for task in bound if task.capability == capability]
            assert ranks == sorted(ranks, reverse=True)
            for priority in Priority:
                tried = [
                    bool(task.counted - 1)
                    for task in bound
                    if (task.capability, task.priority) == (capability, priority) and task.counted == len(task.attempts)
                ]
                assert tried == sorted(tried, reverse=True), "what was tried before goes first"

    def time_passes(self):
        self.now_ns += self.rng.choice([MILLISECOND_NS, 100 * MILLISECOND_NS, SECOND_NS, 5 * SECOND_NS])
        machine, state = self.machine, self.machine.state
        graceful = state.grace_until_ns > self.now_ns
        running = {name: dict(worker.attempts) for name, worker in state.workers.items()}
        while True:
            self.tell(Tick(TENANT, "cell", 5))
            check(machine, state)
            due_ns = machine.next_due_ns()
            if due_ns is None or due_ns > self.now_ns:
                break
        if graceful:
            assert running == {name: worker.attempts for name, worker in state.workers.items()}
        for task in state.tasks.values():
            for attempt in task.attempts:
                assert attempt.state is not AttemptState.TIMED_OUT or attempt.ended_ns >= attempt.due_ns

    def restart(self):
        """Another leader begins where the journal ends, with a snapshot or without."""
        state = self.folded()
        assert state_digest(state) == state_digest(self.machine.state)
        if self.rng.random() < 0.5:
            data = encode_state(state)
            state = decode_state(data)
            assert encode_state(state) == data
        self.epoch += 1
        self.machine = a_machine(state, LIMITS, now_ns=self.now_ns, epoch=self.epoch)
        self.journal(self.machine.events)

    def settles(self):
        """With workers that do what they should, everything comes to its end."""
        machine = self.machine
        machine.limits = replace(LIMITS, workers_max=10)
        self.now_ns += 10 * SECOND_NS
        for _ in range(1_000):
            self.tell(Tick(TENANT, "cell"))
            self.tell(FollowUp(TENANT, "cell", 1_000))
            if not machine.state.live:
                break
            hello = Hello("w9", "boot-9", self.now_ns, tuple(map(an_offer, CAPABILITIES)), 100)
            self.tell(AttachWorker(TENANT, "w9", hello, 100))
            self.tell(Allocate(TENANT, "cell", 1_000))
            held = machine.state.workers["w9"].attempts
            reports = [Report(task, number, ReportStatus.COMPLETED, b"1") for task, number in held.items()]
            self.tell(TakeFrame(TENANT, "w9", "w9", "boot-9", self.now_ns, reports, [], [], [], 100, False))
            check(machine, machine.state)
            self.now_ns += SECOND_NS
        assert not machine.state.live, "everything comes to an end"
        assert all(task.state >= TaskState.COMPLETED for task in machine.state.tasks.values())


@given(st.randoms(use_true_random=True))
@settings(max_examples=120)
def test_whatever_is_said_in_whatever_order(rng):
    AnyOrder(rng).run()


def test_an_invariant_names_what_broke_with_its_story():
    machine = a_machine()
    attach(machine)
    submit(machine, a_spec(1))
    allocate(machine)
    machine.state.workers["w1"].attempts.clear()
    with pytest.raises(InvariantBroken, match="attempt 1 lives, but w1 has None") as broken:
        check(machine, machine.state)
    assert an_id(1) in broken.value.about
    assert any("on w1 assigned" in line for line in broken.value.story)
