"""Records the histories that are not there yet; what is there is history and stays as it is.

python -m tests.histories.record            record new ones
python -m tests.histories.record --digests  after FOLD_VERSION went up: give the old ones their new digests
"""

import json
import sys
from base64 import b64encode
from typing import Any

from msgspec.structs import replace

from merit.core.codec import FOLD_VERSION, encode_event, state_digest
from merit.model.auditing import AuditPolicy, GoldTask
from merit.model.commands import (
    Allocate,
    DrainWorker,
    EndRollout,
    FollowUp,
    JudgeWorker,
    PauseQueue,
    PauseWorker,
    PlanSchedule,
    PurgeDead,
    RegisterWorker,
    RemoveSchedule,
    RemoveWorker,
    ResumeQueue,
    ResumeWorker,
    RetryDead,
    RunSchedule,
    SetAdmission,
    SetAllocation,
    SetAudit,
    SetObjective,
    SetRule,
    SetSchedule,
    SetSupervision,
    SetTenant,
    StartRollout,
    SubmitTasks,
    TellWorker,
)
from merit.model.fleet import Admission, Allocation, Probe, Weight
from merit.model.limits import MILLISECOND_NS, SECOND_NS, Limits
from merit.model.record import Tail, after, encode_record, seal
from merit.model.rules import Rule, RuleKind, TenantTerms
from merit.model.schedules import Schedule
from merit.model.supervision import Objective, Policy, Verdict
from merit.model.tasks import Demand, Priority, Terms
from merit.model.workers import Registration
from merit.testing.builders import (
    PRINCIPAL,
    START_NS,
    TENANT,
    a_machine,
    a_spec,
    amounts,
    an_id,
    an_offer,
    attach,
    cancel,
    completed,
    detach,
    failed,
    ref,
    say,
    submit,
    tick,
)
from tests.histories.replay import HERE, outcome, records_of, replay


class Recorder:
    """A machine each of whose steps is a record."""

    def __init__(self, limits=None):
        self.limits = limits or Limits()
        self.now_ns = START_NS
        self.tail = Tail()
        self.records = []
        self.epoch = 0
        self.machine = a_machine(limits=self.limits)
        self.keep(self.machine.events)

    def keep(self, events):
        if events:
            payloads = list(self.machine.take_payloads().values())
            record = seal(
                "cell",
                self.tail.next,
                self.machine.state.epoch,
                self.machine.state.holder,
                self.now_ns,
                self.tail.last_hash,
                [encode_event(event) for event in events],
                payloads,
            )
            self.tail = after(record)
            self.records.append(record)

    def tell(self, word, *arguments, **named):
        """One of the builders' words, said now."""
        self.keep(word(self.machine, *arguments, now_ns=self.now_ns, **named).events)

    def bind(self, follow_up_max=100):
        """The end of a batch. Its two commands are two records here."""
        for command in (FollowUp(TENANT, PRINCIPAL, follow_up_max), Allocate(TENANT, PRINCIPAL, 100)):
            self.keep(self.machine.handle(command, self.now_ns).events)

    def wait(self, duration_ns):
        self.now_ns += duration_ns
        self.keep(tick(self.machine, self.now_ns).events)
        self.bind()

    def lead_anew(self):
        self.machine = a_machine(
            self.machine.state, self.limits, now_ns=self.now_ns, epoch=self.machine.state.epoch + 1
        )
        self.keep(self.machine.events)


def plain():
    """Two workers, ten tasks, all completed."""
    run = Recorder()
    for worker in ("w1", "w2"):
        run.tell(attach, worker, granted=5)
    run.tell(submit, *(a_spec(number, parameters=b'{"n":%d}' % number) for number in range(10)))
    run.bind()
    for worker in ("w1", "w2"):
        run.now_ns += 30 * MILLISECOND_NS
        held = list(run.machine.state.workers[worker].attempts)
        reports = [completed(int(task[-12:], 16), wall_ns=7_000_000, cpu_ns=5_000_000) for task in held]
        run.tell(say, worker, reports=reports)
    return run


def retries():
    """Failures of every kind, back-off, hand-backs, four attempts and dead, and one that makes it in the end."""
    run = Recorder()
    run.tell(attach, granted=1_000, concurrency=100)
    run.tell(submit, a_spec(1), a_spec(2), a_spec(3, attempts_max=2), a_spec(4, run_timeout_ns=SECOND_NS))
    run.bind()
    run.tell(say, started=[ref(4)], returned=[ref(3)])
    run.bind()
    for attempt in range(1, 5):
        again = [failed(1, attempt, trail=b'[{"log":"no"}]')]
        again.append(completed(2, attempt) if attempt == 3 else failed(2, attempt))
        run.tell(say, reports=[*again, failed(3, attempt)])
        run.wait(2 * SECOND_NS)
    for _ in range(8):
        run.wait(3 * SECOND_NS)
        run.tell(say)
    return run


def cancels():
    """Waiting, pending, assigned and running ones are called off; reports come too late."""
    run = Recorder()
    run.tell(attach, granted=2)
    run.tell(submit, a_spec(1), a_spec(2), a_spec(3), a_spec(4, after=[3]), a_spec(5, "other"))
    run.bind()
    run.tell(say, started=[ref(1)])
    run.now_ns += SECOND_NS
    run.tell(cancel, 1, 2, 3, 5)
    run.bind()
    run.tell(say, reports=[completed(1), failed(2)], granted=5)
    run.tell(submit, a_spec(6))
    run.bind()
    return run


def dependencies():
    """A diamond that completes, a chain that dies, and a leader that finds the dying half done."""
    run = Recorder()
    run.tell(attach, granted=100)
    run.tell(submit, a_spec(1), a_spec(2, after=[1]), a_spec(3, after=[1]), a_spec(4, after=[2, 3]), atomic=True)
    run.bind()
    for numbers in ((1,), (2, 3), (4,)):
        run.tell(say, reports=[completed(number) for number in numbers])
        run.bind()
    run.tell(submit, a_spec(10, "other"), *(a_spec(11 + number, after=[10 + number]) for number in range(20)))
    run.tell(cancel, 10)
    run.bind(follow_up_max=7)
    run.lead_anew()
    run.bind()
    return run


def restarts():
    """Three leaders; one worker resumes, one is lost, one comes with a new boot, one drains and leaves."""
    run = Recorder(Limits(finals_max=3))
    for worker in ("w1", "w2", "w3", "w4"):
        run.tell(attach, worker, granted=3)
    run.tell(submit, *(a_spec(number) for number in range(12)))
    run.bind()
    for epoch in (2, 3):
        run.now_ns += SECOND_NS
        run.lead_anew()
        workers = run.machine.state.workers
        run.tell(attach, "w1", granted=3, session=epoch, held=[ref(int(t[-12:], 16)) for t in workers["w1"].attempts])
        run.tell(attach, "w3", boot=f"boot-{epoch}", granted=3)
        if epoch == 2:
            run.tell(attach, "w4", granted=3, session=2)
            run.tell(say, "w4", draining=True)
            run.tell(detach, "w4", bye=True)
        run.wait(11 * SECOND_NS)
    for _ in range(3):
        held = run.machine.state.workers["w1"].attempts.items()
        run.tell(say, "w1", reports=[completed(int(t[-12:], 16), n) for t, n in held], granted=100)
        run.wait(SECOND_NS)
    return run


def priorities():
    """Every priority over two capabilities, bound one at a time."""
    run = Recorder()
    run.tell(attach, capabilities=("echo", "other"), granted=0)
    ranks = list(Priority) * 5
    run.tell(submit, *(a_spec(n, ("echo", "other")[n % 3 == 0], priority=rank) for n, rank in enumerate(ranks)))
    for turn in range(1, 21):
        run.now_ns += MILLISECOND_NS
        run.tell(say, granted=turn)
        run.bind()
        (held,) = run.machine.state.workers["w1"].attempts.items()
        report = failed if turn % 7 == 0 else completed
        run.tell(say, reports=[report(int(held[0][-12:], 16), held[1])], granted=turn)
    return run


def queue():
    """Tenants, limits, pauses, delays, deadlines, keys, results passed on, dead letters, schedules."""
    run = Recorder(Limits(dead_letters_max=2))
    told = lambda command: run.keep(run.machine.handle(command, run.now_ns).events)  # noqa: E731  (a word of this history)
    run.tell(attach, granted=1_000, concurrency=100)
    told(SetRule(TENANT, PRINCIPAL, Rule(RuleKind.CAPABILITY, "echo", concurrency=2)))
    told(SetTenant(TENANT, PRINCIPAL, TenantTerms("big", weight=3)))
    told(PauseQueue(TENANT, PRINCIPAL, "echo", "for a look"))
    run.tell(
        submit,
        a_spec(1, terms=Terms(idempotency_key="k", labels=(("a", "b"),))),
        a_spec(2, after=[1], terms=Terms(inputs=(("first", an_id(1)),))),
        a_spec(3, terms=Terms(not_before_ns=run.now_ns + 5 * SECOND_NS)),
        a_spec(4, timeout_ns=3 * SECOND_NS),
        a_spec(5, attempts_max=1),
        a_spec(6, after=[5], terms=Terms(despite_dead=True, inputs=(("fifth", an_id(5)),))),
        a_spec(7, "nobody", terms=Terms(queue_timeout_ns=SECOND_NS)),
    )
    told(SubmitTasks("big", PRINCIPAL, [a_spec(20), a_spec(21)], False))
    told(ResumeQueue(TENANT, PRINCIPAL, "echo"))
    run.bind()
    for _ in range(6):
        held = list(run.machine.state.workers["w1"].attempts.items())
        numbers = [(int(task[-12:], 16), attempt) for task, attempt in held]
        run.tell(say, reports=[failed(n, a) if n == 5 else completed(n, a, b"%d" % n) for n, a in numbers])
        run.bind()
        run.wait(2 * SECOND_NS)
    told(RetryDead(TENANT, PRINCIPAL, [(an_id(5), an_id(8))]))
    told(PurgeDead(TENANT, PRINCIPAL, [an_id(7)]))
    nightly = Schedule("nightly", TENANT, "0 3 * * *", "UTC", a_spec(0))
    told(SetSchedule(TENANT, PRINCIPAL, nightly))
    since_ns = run.now_ns
    times_ns = (since_ns + SECOND_NS, since_ns + 2 * SECOND_NS)
    told(PlanSchedule(TENANT, PRINCIPAL, "nightly", nightly.cron, nightly.zone, since_ns, times_ns))
    run.wait(2 * SECOND_NS)
    told(RunSchedule(TENANT, PRINCIPAL, "nightly", an_id(30)))
    told(SetRule(TENANT, PRINCIPAL, Rule(RuleKind.CAPABILITY, "echo")))
    run.bind()
    run.lead_anew()
    told(RemoveSchedule(TENANT, PRINCIPAL, "nightly"))
    return run


def fleet():
    """Operators, demands, strategies, probes, a rollout, homes of keys, resources, a worker that is kept free."""
    run = Recorder(Limits(patience_ns=2 * SECOND_NS, homes_max=2, profiles_max=6, grace_ns=SECOND_NS))
    told = lambda kind, *fields: run.keep(run.machine.handle(kind(TENANT, PRINCIPAL, *fields), run.now_ns).events)  # noqa: E731  (a word of this history)
    long: dict[str, Any] = {"timeout_ns": 3_600 * SECOND_NS, "run_timeout_ns": 600 * SECOND_NS}
    told(SetAdmission, Admission("probed", (Probe(b"{}", b'"done"'),)))
    told(SetAllocation, Allocation("", "round-robin"))
    told(SetAllocation, Allocation("echo", "weighted", (Weight("cost", 900),)))
    unary = Registration("calc", "calc.example:50051", "1.0.0", (an_offer("probed"),), 2)
    told(RegisterWorker, "unary", unary)
    echo = an_offer(resources=amounts(cpu=1), cost_micros=5, stateful=True)
    run.tell(attach, "w1", offers=[echo], granted=100, capacity=amounts(cpu=4), tags=["near"])
    run.tell(
        attach, "w2", offers=[replace(echo, version="2.0.0")], granted=100, capacity=amounts(cpu=2), tenants=["zoe"]
    )
    run.tell(attach, "unary", offers=[an_offer("probed", concurrency_max=1)], granted=100)
    run.tell(attach, "wrong", offers=[an_offer("probed")], granted=100)
    run.bind()
    for worker, report in (("unary", completed), ("wrong", failed)):
        ((task, number),) = run.machine.state.workers[worker].attempts.items()
        run.tell(say, worker, reports=[replace(report(1, number), task=task)])
    told(StartRollout, "echo", "2.0.0", 500)
    demand = Demand(tags=("near",), prefers=("far",), strategy="two-choices")
    run.tell(
        submit, *(a_spec(n, terms=Terms(key=f"k{n % 3}", demand=demand if n % 2 else None), **long) for n in range(6))
    )
    run.tell(submit, *(a_spec(10 + n, **long) for n in range(4)), tenant="zoe")
    run.tell(submit, a_spec(20, "probed"), a_spec(21, "probed", terms=Terms(demand=Demand(worker="w1"))))
    run.bind()
    told(StartRollout, "echo", "2.0.0", 250)
    whole = Demand(worker="w1", resources=amounts(cpu=4))
    run.tell(submit, a_spec(30, terms=Terms(demand=whole), **long), a_spec(31, **long))
    run.wait(3 * SECOND_NS)
    for turn in range(4):
        for worker in ("w1", "w2"):
            held = run.machine.state.workers[worker].attempts.items()
            reports = [replace(completed(1, n, wall_ns=SECOND_NS), task=task) for task, n in held]
            run.tell(say, worker, reports=reports[: 2 + turn])
        run.bind()
    told(EndRollout, "echo", True)
    told(TellWorker, "w1", "RESET")
    told(TellWorker, "w1", "UPDATE_CONFIG")
    run.tell(say, "w1", heard=1)
    told(PauseWorker, "w1", "for a look")
    told(ResumeWorker, "wrong")
    told(SetAllocation, Allocation("echo", ""))
    run.lead_anew()
    run.tell(attach, "w1", boot="boot-2", offers=[echo], granted=100)
    told(ResumeWorker, "w1")
    told(DrainWorker, "w2")
    told(RemoveWorker, "unary", "it is replaced")
    told(EndRollout, "echo", False)
    told(SetAdmission, Admission("probed"))
    run.tell(submit, *(a_spec(40 + n, **long) for n in range(3)))
    run.bind()
    run.wait(5 * SECOND_NS)
    return run


def supervision():
    """Ratings, rewards and punishments, a breaker, a pause and probation, and what people decide."""
    run = Recorder(Limits(stale_ns=10**6 * SECOND_NS))
    told = lambda kind, *fields, **named: run.keep(  # noqa: E731  (a word of this history)
        run.machine.handle(kind(TENANT, PRINCIPAL, *fields, **named), run.now_ns).events
    )
    told(
        SetSupervision,
        Policy(scoring="reference", attempts_min=1, pause_below=1_000, pause_after=2, circuit_failures=4),
    )
    told(SetObjective, Objective("echo", 950, 10 * SECOND_NS))
    told(SetAudit, AuditPolicy("echo", declared=True))
    for worker in ("good", "bad"):
        run.tell(attach, worker, granted=1_000, concurrency=2)
    for turn in range(40):
        run.tell(submit, *(a_spec(10 * turn + n, attempts_max=1, priority=Priority(1 + n)) for n in range(4)))
        run.bind()
        run.wait(2 * SECOND_NS)
        for worker, report in (("good", completed), ("bad", failed if turn < 15 else completed)):
            if worker in run.machine.state.workers:
                held = list(run.machine.state.workers[worker].attempts.items())
                reports = [replace(report(1, number), wall_ns=2 * SECOND_NS, task=task) for task, number in held]
                run.tell(say, worker, reports=reports)
        run.bind()
        run.wait(2 * SECOND_NS)
    told(SetAudit, AuditPolicy("echo", copies=2, gold=(GoldTask(b"{}", b'"done"'),), gold_permille=300))
    for turn in range(40, 50):
        run.tell(submit, *(a_spec(10 * turn + n) for n in range(2)))
        for _ in range(3):
            run.bind()
            for worker in ("good", "bad"):
                held = list(run.machine.state.workers[worker].attempts.items())
                answer = b'"done"' if worker == "good" or turn < 45 else b'"else"'
                run.tell(say, worker, reports=[replace(completed(1, n, answer), task=task) for task, n in held])
        run.wait(SECOND_NS)
    told(JudgeWorker, "good", Verdict.PIN, "it is needed", 1_500)
    told(JudgeWorker, "good", Verdict.UNPIN, "not any more")
    told(JudgeWorker, "bad", Verdict.PARDON, "it was the network")
    run.lead_anew()
    told(SetObjective, Objective("echo", 0))
    return run


def main():
    for scenario in (plain, retries, cancels, dependencies, restarts, priorities, queue, fleet, supervision):
        path = HERE / f"{scenario.__name__}.json"
        if path.exists():
            history = json.loads(path.read_text())
            if "--digests" not in sys.argv:
                continue
        else:
            history = {"about": scenario.__doc__}
            history["records"] = [
                [b64encode(part).decode() for part in encode_record(record)] for record in scenario().records
            ]
        state = replay(records_of(history))
        history |= {"fold_version": FOLD_VERSION, "digest": state_digest(state), "outcome": outcome(state)}
        path.write_text(json.dumps(history, indent=1) + "\n")
        sys.stdout.write(f"{path.name}: {len(history['records'])} records, {history['digest'][:16]}\n")


if __name__ == "__main__":
    main()
