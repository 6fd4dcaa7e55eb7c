"""Whatever is said to the machine in whatever order: the invariants hold, and the state is the fold of the events."""

from copy import deepcopy

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from merit.core.codec import decode_event, decode_state, encode_event, encode_state, fold, state_digest
from merit.core.invariants import check, check_allocated
from merit.core.state import State
from merit.model.commands import (
    Allocate,
    AttachWorker,
    CancelTasks,
    DetachWorker,
    FollowUp,
    StartLeadership,
    SubmitTasks,
    TakeFrame,
    Tick,
)
from merit.model.effects import SendAssignment
from merit.model.frames import AttemptRef, Hello, Report, ReportStatus
from merit.model.limits import MILLISECOND_NS, SECOND_NS, Limits
from merit.model.record import NO_HASH, seal
from merit.model.tasks import Failure, Priority, Progress, TaskState
from merit.testing.builders import START_NS, TENANT, a_machine, a_spec, an_id, an_offer

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

numbers = st.integers(0, 30)
workers = st.sampled_from(WORKERS)
attempts = st.integers(0, 5)
refs = st.builds(AttemptRef, numbers.map(an_id), attempts)
specs = st.builds(
    a_spec,
    numbers,
    st.sampled_from(CAPABILITIES),
    after=st.sets(numbers, max_size=3),
    priority=st.sampled_from(Priority),
    parameters=st.sampled_from([b"{}", b'{"a":1}', b'{"pad":"' + b"x" * 90 + b'"}']),
    run_timeout_ns=st.sampled_from([MILLISECOND_NS, SECOND_NS, 60 * SECOND_NS]),
    attempts_max=st.integers(1, 4),
)
failures = st.builds(Failure, st.just("error"), st.text(max_size=5), permanent=st.booleans())


class AnyOrder(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.now_ns = START_NS
        self.records = []
        self.finals = {}
        self.sessions = dict.fromkeys(WORKERS, 0)
        self.epoch = 0
        self.ids = 100

    @initialize()
    def lead(self):
        self.machine = a_machine(State(), LIMITS)
        # The builder led already; what it did belongs to the journal too.
        self.epoch = 1
        self.journal(self.machine.events)

    def journal(self, events):
        if not events:
            return
        first = self.machine.state.sequence - len(events) + 1
        payloads = list(self.machine.take_payloads().values())
        data = [encode_event(event) for event in events]
        assert [decode_event(item) for item in data] == events
        self.records.append(seal("cell", first, self.epoch, "leader", self.now_ns, NO_HASH, data, payloads))

    def tell(self, command):
        before = self.machine.state.sequence
        decision = self.machine.handle(command, self.now_ns)
        assert self.machine.state.sequence == before + len(decision.events)
        self.journal(decision.events)
        return decision

    # What may be said

    @rule(tasks=st.lists(specs, min_size=1, max_size=5), atomic=st.booleans())
    def submit(self, tasks, atomic):
        known = set(self.machine.state.tasks)
        decision = self.tell(SubmitTasks(TENANT, "tester", tasks, atomic))
        fresh = {task.id for task in tasks} - known
        taken = fresh & set(self.machine.state.tasks)
        refused = {refusal.task for refusal in decision.refusals}
        assert fresh <= taken | refused
        if atomic:
            assert not (taken and refused)
            assert not decision.refusals or not decision.events

    @rule(tenant=st.sampled_from([TENANT, "other"]), ids=st.lists(numbers, min_size=1, max_size=3))
    def cancel(self, tenant, ids):
        decision = self.tell(CancelTasks(tenant, "tester", [an_id(number) for number in ids]))
        assert tenant == TENANT or not decision.events

    @rule(
        worker=workers,
        anew=st.booleans(),
        capabilities=st.sampled_from([CAPABILITIES, CAPABILITIES[:1]]),
        held=st.lists(refs, max_size=3),
        keeps=st.booleans(),
        granted=st.integers(0, 6),
        stale=st.booleans(),
    )
    def attach(self, worker, anew, capabilities, held, keeps, granted, stale):
        known = self.machine.state.workers.get(worker)
        if not stale:
            self.sessions[worker] += 1
        if anew or known is None:
            self.ids += 1
            boot = f"boot-{self.ids}"
        else:
            boot = known.boot
            if keeps:
                held = held + [AttemptRef(task, number) for task, number in known.attempts.items()]
        offers = tuple(an_offer(name) for name in capabilities)
        hello = Hello(worker, boot, self.sessions[worker], offers, 2, tuple(held))
        self.tell(AttachWorker(TENANT, worker, hello, granted))

    @rule(worker=workers, bye=st.booleans(), stale=st.booleans())
    def detach(self, worker, bye, stale):
        seat, known = self.machine.seats.get(worker), self.machine.state.workers.get(worker)
        if seat is None or known is None:
            return
        decision = self.tell(DetachWorker(TENANT, worker, worker, known.boot, seat.session - stale, bye))
        assert not (stale and decision.events)

    @rule(worker=workers, data=st.data(), more=st.integers(0, 3), draining=st.sampled_from([False, False, True]))
    def frame(self, worker, data, more, draining):
        seat, known = self.machine.seats.get(worker), self.machine.state.workers.get(worker)
        if seat is None or known is None:
            return
        own = [AttemptRef(task, number) for task, number in known.attempts.items()]
        some = st.lists(st.one_of(refs, st.sampled_from(own)) if own else refs, max_size=3)
        status = data.draw(st.sampled_from(ReportStatus))
        failure = None if status is ReportStatus.COMPLETED else data.draw(failures)
        reports = [
            Report(ref.task, ref.number, status, b"1", failure=failure, trail=b"[]") for ref in data.draw(some)
        ]
        progress = [Progress(ref.task, ref.number, 0.5) for ref in data.draw(some)]
        session = seat.session - data.draw(st.sampled_from([0, 0, 0, 1]))
        decision = self.tell(
            TakeFrame(
                TENANT,
                worker,
                worker,
                known.boot,
                session,
                reports,
                data.draw(some),
                data.draw(some),
                progress,
                seat.granted + more,
                draining,
            )
        )
        mine = {ref.task for ref in own}
        for event in decision.events:
            assert getattr(event, "worker", worker) == worker
            assert getattr(event, "task", None) in mine or not hasattr(event, "task")
        assert session == seat.session or not decision.events

    @rule(count_max=st.sampled_from([1, 3, 1_000]))
    def follow_up(self, count_max):
        assert len(self.tell(FollowUp(TENANT, "cell", count_max)).events) <= count_max

    @rule(count_max=st.sampled_from([1, 3, 1_000]))
    def allocate(self, count_max):
        machine = self.machine
        rooms = {name: seat.granted - seat.used for name, seat in machine.seats.items()}
        decision = self.tell(Allocate(TENANT, "cell", count_max))
        sent = [effect for effect in decision.effects if isinstance(effect, SendAssignment)]
        assert len(sent) == len(decision.events) <= count_max
        for effect in sent:
            rooms[effect.worker] -= 1
            assert rooms[effect.worker] >= 0, "no credit is used twice"
            assert effect.assignment.capability in machine.seats[effect.worker].capabilities
        if len(sent) < count_max:
            check_allocated(machine)
        for capability in CAPABILITIES:
            ranks = [
                machine.state.tasks[effect.assignment.task].priority
                for effect in sent
                if effect.assignment.capability == capability
            ]
            assert ranks == sorted(ranks, reverse=True)

    @rule(wait_ns=st.sampled_from([MILLISECOND_NS, 100 * MILLISECOND_NS, SECOND_NS, 5 * SECOND_NS]))
    def time_passes(self, wait_ns):
        self.now_ns += wait_ns
        machine = self.machine
        graceful = machine.state.grace_until_ns > self.now_ns
        running = {task for worker in machine.state.workers.values() for task in worker.attempts}
        present = set(machine.state.workers)
        self.tell(Tick(TENANT, "cell", 5))
        while (due_ns := machine.next_due_ns()) is not None and due_ns <= self.now_ns:
            self.tell(Tick(TENANT, "cell", 5))
        if graceful:
            assert running == {task for worker in machine.state.workers.values() for task in worker.attempts}
            assert present == set(machine.state.workers)

    @rule(snapshot=st.booleans())
    @precondition(lambda self: self.machine.state.sequence > 1)
    def restart(self, snapshot):
        """Another leader begins where the journal ends, with a snapshot or without."""
        state = self.folded()
        assert state_digest(state) == state_digest(self.machine.state)
        if snapshot:
            data = encode_state(state)
            state = decode_state(data)
            assert encode_state(state) == data
        self.epoch += 1
        self.machine = a_machine(state, LIMITS, now_ns=self.now_ns, epoch=self.epoch)
        self.journal(self.machine.events)

    def folded(self):
        state = State()
        for record in self.records:
            fold(state, record)
        return state

    # What holds

    @invariant()
    def all_is_well(self):
        if not hasattr(self, "machine"):
            return
        check(self.machine, self.machine.state)
        kept = {}
        for task in self.machine.state.finals:
            # A task that was forgotten may come again under the same id; one that is kept never changes.
            before = self.finals.get(task.id)
            if before is not None and before.order == task.order:
                assert before == task
                kept[task.id] = before
            else:
                kept[task.id] = deepcopy(task)
        self.finals = kept

    def teardown(self):
        if not hasattr(self, "machine"):
            return
        assert state_digest(self.folded()) == state_digest(self.machine.state)
        self.settles()

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


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=120, stateful_step_count=40)
