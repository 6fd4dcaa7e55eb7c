"""Says anything to a machine at any time, and checks what comes of it: for the tests of its properties."""

from copy import deepcopy
from typing import Any

from msgspec.structs import replace

from merit.core.auditing import AUDIT
from merit.core.codec import decode_event, decode_state, encode_event, encode_state, fold, state_digest
from merit.core.invariants import check, check_allocated
from merit.core.ranking import rank
from merit.core.retrying import SILENT
from merit.core.state import State
from merit.model.auditing import AuditPolicy
from merit.model.commands import (
    Allocate,
    AttachWorker,
    Awake,
    CancelTasks,
    DetachWorker,
    FollowUp,
    RemoveSchedule,
    ResumeWorker,
    SetAdmission,
    SetAudit,
    SetRule,
    SetSupervision,
    SubmitTasks,
    TakeFrame,
    Tick,
)
from merit.model.effects import SendAssignment, SendCancel, TellKnown, WorkOutTimes
from merit.model.events import AttemptAssigned, AttemptFailed, TaskCanceled, WorkerLeft
from merit.model.fleet import Admission
from merit.model.frames import AttemptRef, Hello, Report, ReportStatus
from merit.model.limits import MILLISECOND_NS, SECOND_NS, Limits
from merit.model.record import NO_HASH, seal
from merit.model.rules import Rule, RuleKind
from merit.model.supervision import Policy
from merit.model.tasks import AttemptState, Failure, Priority, Progress, RetryPolicy, TaskState, Terms
from merit.model.tenancy import PROBE_TENANT
from merit.testing.builders import START_NS, TENANT, a_machine, a_spec, an_id, an_offer
from tests.core.fleet_at_random import CAPABILITIES, WORKERS, FleetAtRandom
from tests.core.operator_at_random import TENANTS, OperatorAtRandom

LIMITS = Limits(
    live_tasks_max=40,
    live_bytes_max=9_000,
    tenant_live_max=30,
    capability_pending_max=15,
    tenants_max=3,
    finals_max=8,
    finals_bytes_max=400,
    dead_letters_max=4,
    dead_letters_bytes_max=300,
    keys_max=3,
    keys_ns=8 * SECOND_NS,
    ageing_ns=3 * SECOND_NS,
    awake_ns=SECOND_NS,
    workers_max=3,
    grace_ns=2 * SECOND_NS,
    reconnect_ns=SECOND_NS,
    patience_ns=2 * SECOND_NS,
    profiles_max=3,
    homes_max=2,
    lines_max=12,
    broad_lines_max=6,
    stale_ns=4 * SECOND_NS,
    backoff_ns_max=2 * SECOND_NS,
)
OFFERS: list[dict[str, Any]] = [
    {},
    {"heartbeat_timeout_ns": SECOND_NS},
    {"safe_to_repeat": False},
]

ANSWERS = [b"1", b"1", b"1", b"2", b'{"ok":true}', b'{"ok":false}']
BROKEN = ("audit", "audit_broken")
COMPLETED = ReportStatus.COMPLETED
STEPS = 120


class AnyOrder(FleetAtRandom, OperatorAtRandom):
    """Says anything at any time, with all randomness from `rng`, and keeps the journal of what came of it."""

    limits = LIMITS
    waits_ns: tuple[int, ...] = (MILLISECOND_NS, 100 * MILLISECOND_NS, SECOND_NS, 5 * SECOND_NS)

    def __init__(self, rng):
        self.rng = rng
        self.now_ns = START_NS
        self.records = []
        self.finals = {}
        self.sessions = dict.fromkeys(WORKERS, 0)
        self.boots = 0
        self.epoch = 1
        self.machine = a_machine(State(), self.limits)
        self.journal(self.machine.events)
        self.wanted = []
        self.fresh = 1_000

    def steps(self):
        """What is done, some of it more often."""
        steps = [self.submit] * 3 + [self.frame] * 6 + [self.allocate] * 4 + [self.attach] * 3
        steps += [self.follow_up] * 2 + [self.time_passes] * 3 + [self.cancel, self.detach, self.restart]
        steps += [self.retry_dead, self.purge_dead, self.pause, self.resume, self.tenant, self.asleep]
        steps += [self.rule] * 2 + [self.schedule, self.run_schedule] + [self.plan] * 2 + [self.operate] * 3
        return steps

    def run(self):
        steps = self.steps()
        for _ in range(STEPS):
            self.rng.choice(steps)()
            check(self.machine, self.machine.state)
            self.finals_stay()
        assert state_digest(self.folded()) == state_digest(self.machine.state)
        self.every_choice_was_right()
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
        self.wanted = (self.wanted + [e for e in decision.effects if isinstance(e, WorkOutTimes)])[-5:]
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

    def some_terms(self, after):
        rng = self.rng
        if rng.random() < 0.5:
            return None
        chance = lambda value: value if rng.random() < 0.3 else type(value)()  # noqa: E731  (short is clear here)
        return Terms(
            not_before_ns=chance(self.now_ns + rng.choice([-1, 1, 6]) * SECOND_NS),
            deadline_ns=chance(self.now_ns + rng.choice([1, 8]) * SECOND_NS),
            queue_timeout_ns=chance(rng.choice([1, 5]) * SECOND_NS),
            heartbeat_timeout_ns=chance(rng.choice([MILLISECOND_NS, SECOND_NS])),
            estimate_ns=chance(rng.choice([1, SECOND_NS])),
            retry=self.some_policy() if rng.random() < 0.3 else None,
            safe_to_repeat=rng.random() < 0.9,
            key=chance(rng.choice(["k1", "k2"])),
            idempotency_key=chance(rng.choice("abcdefg")),
            inputs=tuple((f"p{place}", name) for place, name in enumerate(after) if rng.random() < 0.5),
            despite_dead=rng.random() < 0.4,
            demand=self.some_demand(),
        )

    def some_policy(self):
        refused, failed, timed_out, silent, lost = (self.rng.randint(-1, 2) for _ in range(5))
        backoff_ns = SECOND_NS if self.rng.random() < 0.3 else 0
        return RetryPolicy(refused, failed, timed_out, silent, lost, backoff_ns)

    def some_spec(self):
        rng = self.rng
        after = sorted({rng.randrange(40) for _ in range(rng.choice([0, 0, 1, 2]))})
        return a_spec(
            rng.randrange(40),
            rng.choice(CAPABILITIES),
            after=after,
            priority=rng.choice(list(Priority)),
            parameters=rng.choice([b"{}", b'{"a":1}', b'{"pad":"' + b"x" * 90 + b'"}']),
            run_timeout_ns=rng.choice([MILLISECOND_NS, SECOND_NS, 60 * SECOND_NS]),
            attempts_max=rng.randint(1, 4),
            timeout_ns=rng.choice([2 * SECOND_NS, 3_600 * SECOND_NS]),
            terms=self.some_terms([an_id(number) for number in after]),
        )

    def submit(self):
        rng = self.rng
        tasks = [self.some_spec() for _ in range(rng.randint(1, 6))]
        atomic = rng.random() < 0.3
        known = set(self.machine.state.tasks)
        tenant = rng.choice(TENANTS)
        decision = self.tell(SubmitTasks(tenant, "tester", tasks, atomic))
        fresh = {task.id for task in tasks} - known
        taken = fresh & set(self.machine.state.tasks)
        refused = {refusal.task for refusal in decision.refusals}
        alike = {effect.task for effect in decision.effects if isinstance(effect, TellKnown)}
        assert fresh <= taken | refused | alike
        assert all(self.machine.state.tasks[name].tenant == tenant for name in taken)
        if atomic:
            assert not (taken and refused)
            assert not decision.refusals or not decision.events
        self.within_bounds()

    def within_bounds(self):
        state = self.machine.state
        probes = sum(task.tenant == PROBE_TENANT and not task.state.final for task in state.tasks.values())
        assert state.live - probes <= self.limits.live_tasks_max
        assert len(state.keys) <= self.limits.keys_max
        assert (
            sum(tenant.live > 0 for name, tenant in state.tenants.items() if name != PROBE_TENANT)
            <= self.limits.tenants_max
        )

    def asleep(self):
        self.now_ns += self.rng.choice([SECOND_NS, 90 * SECOND_NS])
        self.tell(Awake(TENANT, "cell"))

    def cancel(self):
        tenant = self.rng.choice(TENANTS)
        ids = [an_id(self.rng.randrange(40)) for _ in range(3)]
        decision = self.tell(CancelTasks(tenant, "tester", ids))
        assert all(
            self.machine.state.tasks[event.task].tenant == tenant
            for event in decision.events
            if isinstance(event, TaskCanceled) and event.task in self.machine.state.tasks
        )

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
        how = rng.choice(OFFERS[:1] * 4 + OFFERS)
        offers = self.some_offers(rng.choice([CAPABILITIES] * 3 + [CAPABILITIES[:1]]), **how)
        about = self.some_body()
        if known is not None and rng.random() < 0.7:
            offers, about = known.offers, (known.tags, known.capacity, known.tenants)
        hello = Hello(worker, boot, self.sessions[worker], offers, 2, tuple(held), *about)
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
            reports.append(Report(ref.task, ref.number, status, rng.choice(ANSWERS), failure=failure, trail=b"[]"))
        progress = [Progress(ref.task, ref.number, rng.choice([-1, 0.5])) for ref in self.some_refs(worker)]
        stale = rng.random() < 0.1
        mine = self.may_concern(known)
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
                rng.choice([0, 0, 1, 2]),
            )
        )
        assert not (stale and decision.events)
        for event in decision.events:
            task, number = getattr(event, "task", None), getattr(event, "number", None)
            assert not number or (task, number) in mine.items()
            assert task is None or task in mine or self.machine.state.tasks[task].principal in ("admission", AUDIT)

    def may_concern(self, worker):
        """What a worker says may concern the tasks that it has, and those whose results it looks at by them: for each the
        number of the attempt."""
        state = self.machine.state
        reviews = [task.terms.review for name in worker.attempts if (task := state.tasks[name]).terms is not None]
        cases = [state.cases[review.of] for review in reviews if review is not None and review.of in state.cases]
        return {case.task: case.number for case in cases} | worker.attempts

    def follow_up(self):
        count_max = self.rng.choice([1, 3, 1_000])
        assert len(self.tell(FollowUp(TENANT, "cell", count_max)).events) <= count_max

    def allocate(self):
        machine, count_max = self.machine, self.rng.choice([1, 3, 1_000])
        rooms = {name: seat.granted - seat.used for name, seat in machine.seats.items()}
        decision = self.tell(Allocate(TENANT, "cell", count_max))
        sent = [effect for effect in decision.effects if isinstance(effect, SendAssignment)]
        assigned = [event for event in decision.events if isinstance(event, AttemptAssigned)]
        assert len(sent) == len(assigned) <= count_max
        for effect in sent:
            rooms[effect.worker] -= 1
            assert rooms[effect.worker] >= 0, "a credit is used once"
            assert machine.state.workers[effect.worker].offer(effect.assignment.capability) is not None
        if len(sent) < count_max and not machine.ready:
            check_allocated(machine)
            self.nobody_waits_for_nothing()
        for effect in sent:
            assert effect.assignment.capability not in machine.state.paused
        self.within_limits([effect.assignment.task for effect in sent])
        for capability in CAPABILITIES:
            for tenant in TENANTS:
                bound = [machine.state.tasks[effect.assignment.task] for effect in sent]
                bound = [task for task in bound if (task.capability, task.tenant) == (capability, tenant)]
                first = all(task.counted == len(task.attempts) == 1 for task in bound)
                if first and not machine.gates.keys and self.stand_in_one_line(capability, bound):
                    ranks = [rank(replace(task, attempts=()), self.limits.ageing_ns) for task in bound]
                    assert ranks == sorted(ranks)

    def within_limits(self, sent):
        """No more than a limit says live at once, but for those that lived before it was set."""
        state = self.machine.state
        live = [task for task in state.tasks.values() if task.attempts and task.attempts[-1].live]
        for rule in state.rules.values():
            for task in (state.tasks[name] for name in sent):
                key = task.terms.key if task.terms is not None else ""
                if rule.kind is RuleKind.KEY and (task.capability != rule.name or not key):
                    continue
                if rule.kind is RuleKind.CAPABILITY and task.capability != rule.name:
                    continue
                if rule.kind is RuleKind.TENANT and task.tenant != rule.name:
                    continue
                alike = [
                    other
                    for other in live
                    if (rule.kind is RuleKind.TENANT and other.tenant == rule.name)
                    or (rule.kind is RuleKind.CAPABILITY and other.capability == rule.name)
                    or (
                        rule.kind is RuleKind.KEY
                        and other.capability == rule.name
                        and other.terms
                        and other.terms.key == key
                    )
                ]
                assert not rule.concurrency or len(alike) <= rule.concurrency

    def time_passes(self):
        self.now_ns += self.rng.choice(self.waits_ns)
        machine, state = self.machine, self.machine.state
        graceful = state.grace_until_ns > self.now_ns
        while True:
            events = self.tell(Tick(TENANT, "cell", 5)).events
            failed = [
                event for event in events if isinstance(event, AttemptFailed) and event.failure.kind not in BROKEN
            ]
            assert not (graceful and (failed or any(isinstance(event, WorkerLeft) for event in events)))
            check(machine, state)
            due_ns = machine.next_due_ns()
            if due_ns is None or due_ns > self.now_ns:
                break
        for task in state.tasks.values():
            for attempt in task.attempts:
                late = attempt.failure is None or attempt.failure.kind == SILENT or attempt.ended_ns >= attempt.due_ns
                assert attempt.state is not AttemptState.TIMED_OUT or late

    def restart(self):
        """Another leader begins where the journal ends, with a snapshot or without."""
        state = self.folded()
        assert state_digest(state) == state_digest(self.machine.state)
        if self.rng.random() < 0.5:
            data = encode_state(state)
            state = decode_state(data)
            assert encode_state(state) == data
        self.epoch += 1
        self.wanted = []
        self.machine = a_machine(state, self.limits, now_ns=self.now_ns, epoch=self.epoch)
        self.journal(self.machine.events)
        self.wanted = [e for e in self.machine.effects if isinstance(e, WorkOutTimes)]

    def settles(self):
        """With workers that do what they should, everything comes to its end."""
        machine = self.machine
        machine.limits = replace(self.limits, workers_max=10)
        self.now_ns += 10 * SECOND_NS
        self.resume()
        for name in list(machine.state.schedules):
            self.tell(RemoveSchedule(machine.state.schedules[name].schedule.tenant, "tester", name))
        for name in CAPABILITIES:
            self.tell(SetAdmission(TENANT, "tester", Admission(name)))
            self.tell(SetAudit(TENANT, "tester", AuditPolicy(name)))
        self.tell(SetSupervision(TENANT, "tester", Policy()))
        for turn in range(1_000):
            if turn == 200:
                self.now_ns += 3_700 * SECOND_NS  # what nobody will ever be able to do has run out of time by now
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


class BusyFleet(AnyOrder):
    """Quieter times: workers stay, tasks are new and have time, so that most is about who gets them."""

    limits = replace(
        LIMITS, stale_ns=60 * SECOND_NS, grace_ns=SECOND_NS, capability_pending_max=40, finals_bytes_max=4_000
    )
    waits_ns = (MILLISECOND_NS, 10 * MILLISECOND_NS, 300 * MILLISECOND_NS)

    def steps(self):
        steps = [self.submit] * 4 + [self.frame] * 8 + [self.allocate] * 8 + [self.attach] * 4 + [self.operate] * 3
        return [*steps, self.follow_up, self.time_passes, self.restart, self.cancel, self.rule, self.rule]

    def some_spec(self):
        self.fresh += 1
        spec = super().some_spec()
        terms = spec.terms and replace(spec.terms, not_before_ns=0, deadline_ns=0, inputs=(), idempotency_key="")
        long = {"run_timeout_ns": 60 * SECOND_NS, "timeout_ns": 3_600 * SECOND_NS}
        return replace(spec, id=an_id(self.fresh), after=(), terms=terms, parameters=b"{}", **long)

    def operate(self):
        super().operate()
        gone = self.rng.choice(WORKERS)
        if self.rng.random() < 0.5:
            self.tell(ResumeWorker(TENANT, "tester", gone))

    def rule(self):
        self.resume()
        for rule in list(self.machine.state.rules.values()):
            self.tell(SetRule(TENANT, "tester", Rule(rule.kind, rule.name)))
        if self.rng.random() < 0.3:
            super().rule()
