"""What becomes of workers by their record."""

import pytest

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check
from merit.core.supervising import SUPERVISION, fleet_of
from merit.model.commands import JudgeWorker, PauseWorker, ResumeWorker, SetObjective, SetSupervision
from merit.model.events import CircuitChanged, WorkerJudged, WorkerRated
from merit.model.limits import SECOND_NS, Limits
from merit.model.supervision import FACTOR_ONE, CircuitState, Objective, Policy, Stage, Verdict
from merit.model.tasks import Priority
from merit.model.workers import WorkerState
from merit.testing.builders import (
    a_machine,
    a_spec,
    allocate,
    asking,
    attach,
    bind,
    completed,
    failed,
    number_of,
    say,
    submit,
    tell,
    tick,
)

LIMITS = Limits(stale_ns=10**6 * SECOND_NS)


class Fleet:
    """Workers that do, or fail, whatever they are given, one second each."""

    def __init__(self, *workers, policy=None, concurrency=2):
        self.machine = a_machine(limits=LIMITS)
        if policy is not None:
            tell(self.machine, SetSupervision, policy)
        for worker in workers:
            attach(self.machine, worker, granted=10_000, concurrency=concurrency)
        self.number = 0
        self.events = []

    def submit(self, count=1, **fields):
        specs = [a_spec(self.number + n, attempts_max=1, **fields) for n in range(count)]
        self.number += count
        submit(self.machine, *specs)
        return specs

    def work(self, *failing, turns=1, tasks=4):
        """So many turns of a second, with ``tasks`` tasks each."""
        for _ in range(turns):
            self.submit(tasks)
            bind(self.machine)
            now_ns = self.machine.now_ns + SECOND_NS
            for worker in list(self.machine.state.workers.values()):
                report = failed if worker.id in failing else completed
                reports = [report(number_of(task), number) for task, number in worker.attempts.items()]
                if reports:
                    self.events += say(self.machine, worker.id, reports=reports, now_ns=now_ns).events
            self.wait(0)

    def wait(self, seconds):
        self.events += tick(self.machine, self.machine.now_ns + round(seconds * SECOND_NS)).events
        check(self.machine, self.machine.state)

    def conduct(self, worker="w1"):
        return self.machine.state.profiles[worker].conduct

    def verdicts(self, worker="w1"):
        return [event.verdict for event in self.events if isinstance(event, WorkerJudged) and event.worker == worker]


def test_those_with_news_are_rated_after_a_while_and_nobody_else():
    fleet = Fleet("w1", "w2")
    fleet.submit()
    bind(fleet.machine)
    (busy,) = (worker for worker in fleet.machine.state.workers.values() if worker.attempts)
    (task,) = busy.attempts
    say(fleet.machine, busy.id, reports=[completed(number_of(task))])
    fleet.wait(2)
    assert not fleet.events
    fleet.wait(1.1)
    assert [event.worker for event in fleet.events if isinstance(event, WorkerRated)] == [busy.id]
    fleet.wait(60)
    assert sum(isinstance(event, WorkerRated) for event in fleet.events) == 1, "there is nothing new"


def test_who_does_well_is_rewarded_and_who_does_badly_punished():
    fleet = Fleet("good", "bad", "other", policy=Policy(circuit_failures=1_000, pause_below=0))
    fleet.work("bad", turns=60, tasks=6)
    assert fleet.conduct("good").factor > FACTOR_ONE > fleet.conduct("bad").factor
    assert fleet.conduct("good").score > 85_000 > 50_000 > fleet.conduct("bad").score
    assert set(fleet.verdicts("good")) == {Verdict.REWARD}
    assert set(fleet.verdicts("bad")) == {Verdict.PUNISH}
    judged = [event for event in fleet.events if isinstance(event, WorkerJudged)]
    assert all(event.principal == SUPERVISION and event.reason and event.figures for event in judged)


def test_a_small_factor_is_a_smaller_share_of_the_room_and_a_large_one_comes_first():
    fleet = Fleet("w1", concurrency=4)
    machine = fleet.machine
    attach(machine, "w1", boot="again", granted=8, concurrency=4)
    tell(machine, JudgeWorker, "w1", Verdict.PIN, "to see", 250)
    fleet.submit(20)
    bind(machine)
    assert len(machine.state.workers["w1"].attempts) == 2, "a quarter of what it takes"
    attach(machine, "w2", granted=100, concurrency=4)
    tell(machine, JudgeWorker, "w2", Verdict.PIN, "to see", 2_000)
    bind(machine)
    assert len(machine.state.workers["w2"].attempts) == 18
    check(machine, machine.state)


def test_the_factor_says_who_is_loaded():
    fleet = Fleet("small", "large", concurrency=4)
    for worker, factor in (("small", 500), ("large", 2_000)):
        tell(fleet.machine, JudgeWorker, worker, Verdict.PIN, "to see", factor)
    fleet.submit(10)
    bind(fleet.machine)
    loads = {worker.id: len(worker.attempts) for worker in fleet.machine.state.workers.values()}
    assert loads == {"small": 2, "large": 8}


def test_critical_tasks_go_to_the_best():
    fleet = Fleet("good", "bad", "fair", policy=Policy(circuit_failures=1_000, pause_below=0))
    fleet.work("bad", turns=20, tasks=6)
    fleet.submit(priority=Priority.CRITICAL)
    (sent,) = allocate(fleet.machine)
    scores = {worker: fleet.conduct(worker).score for worker in ("good", "bad", "fair")}
    assert sent.worker == max(scores, key=scores.__getitem__)
    assert sent.worker != "bad"


def test_a_breaker_opens_is_tried_again_and_closes():
    fleet = Fleet("bad", "good", policy=Policy(pause_below=0))
    fleet.work("bad", turns=4)
    circuit = fleet.conduct("bad").circuit
    assert circuit.state is CircuitState.OPEN
    assert not any(worker.attempts for worker in fleet.machine.state.workers.values())
    fleet.work(turns=5)
    assert fleet.machine.state.profiles["bad"].completed == 0, "it is given nothing"
    fleet.wait((circuit.until_ns - fleet.machine.now_ns) / SECOND_NS + 1)
    assert fleet.conduct("bad").circuit.state is CircuitState.HALF_OPEN
    fleet.work(turns=1, tasks=30)
    assert fleet.machine.state.profiles["bad"].completed <= 3, "a few, to try it"
    fleet.work(turns=5, tasks=30)
    assert fleet.conduct("bad").circuit.state is CircuitState.CLOSED
    assert fleet.machine.state.profiles["bad"].completed > 3


def test_one_failure_of_what_is_tried_opens_it_for_twice_as_long():
    fleet = Fleet("bad", "good", policy=Policy(pause_below=0))
    fleet.work("bad", turns=4)
    before_ns = fleet.conduct("bad").circuit.until_ns
    fleet.wait((before_ns - fleet.machine.now_ns) / SECOND_NS + 1)
    fleet.work("bad", turns=1, tasks=30)
    circuit = fleet.conduct("bad").circuit
    assert circuit.state is CircuitState.OPEN
    assert circuit.until_ns - fleet.machine.now_ns == 2 * Policy().circuit_open_ns


def test_no_breaker_opens_where_nobody_else_is_left():
    fleet = Fleet("w1")
    fleet.work("w1", turns=10)
    assert fleet.conduct().circuit.state is CircuitState.CLOSED
    assert not any(isinstance(event, CircuitChanged) for event in fleet.events)


def state_of(machine, worker):
    return machine.state.workers[worker].state


def test_a_worker_that_stops_once_has_failed_once_however_much_it_had():
    fleet = Fleet("w1", "w2", concurrency=20)
    fleet.submit(40)
    bind(fleet.machine)
    assert len(fleet.machine.state.workers["w1"].attempts) == 20
    attach(fleet.machine, "w1", boot="again", granted=100)
    assert fleet.machine.state.profiles["w1"].failed == 20
    assert fleet.conduct("w1").circuit.state is CircuitState.CLOSED


def test_a_worker_that_stops_again_and_again_is_left_alone():
    fleet = Fleet("w1", "w2")
    for number in range(Policy().circuit_failures):
        fleet.submit(8)
        bind(fleet.machine)
        attach(fleet.machine, "w1", boot=f"boot-{number}", granted=100)
        fleet.wait(1)
    assert fleet.conduct("w1").circuit.state is CircuitState.OPEN


HARSH = Policy(circuit_failures=1_000, attempts_min=1, cool_down_ns=0, pause_below=900)


def paused():
    fleet = Fleet("bad", "good", "other", policy=HARSH)
    for _ in range(60):
        fleet.work("bad", tasks=6)
        if fleet.conduct("bad").stage is Stage.PAUSED:
            return fleet
    raise AssertionError("it was never paused")


def test_who_is_punished_again_and_again_is_paused_and_proves_itself():
    fleet = paused()
    machine = fleet.machine
    assert state_of(machine, "bad") is WorkerState.PAUSED
    assert machine.state.profiles["bad"].reason
    fleet.wait(HARSH.pause_ns / SECOND_NS + 1)
    assert fleet.conduct("bad").stage is Stage.PROBATION
    assert state_of(machine, "bad") is WorkerState.ACTIVE
    fleet.work(turns=1, tasks=40)
    assert len(machine.state.workers["bad"].attempts) <= 1, "one at a time"
    fleet.work(turns=4, tasks=40)
    assert fleet.conduct("bad").stage is Stage.ACTIVE
    assert fleet.verdicts("bad")[-1] in (Verdict.RESTORE, Verdict.REWARD)


def test_who_fails_on_probation_waits_for_longer():
    fleet = paused()
    fleet.wait(HARSH.pause_ns / SECOND_NS + 1)
    fleet.work("bad", turns=1, tasks=40)
    assert fleet.conduct("bad").stage is Stage.PAUSED
    assert fleet.conduct("bad").relapses == 1
    fleet.wait(HARSH.pause_ns / SECOND_NS + 1)
    assert fleet.conduct("bad").stage is Stage.PAUSED
    fleet.wait(HARSH.pause_ns / SECOND_NS + 1)
    assert fleet.conduct("bad").stage is Stage.PROBATION


def test_it_goes_on_under_another_leader():
    fleet = paused()
    kept = decode_state(encode_state(fleet.machine.state))
    again = a_machine(kept, LIMITS, now_ns=fleet.machine.now_ns, epoch=2)
    check(again, again.state)
    tick(again, again.now_ns + HARSH.pause_ns + SECOND_NS)
    assert again.state.profiles["bad"].conduct.stage is Stage.PROBATION
    check(again, again.state)


def test_a_person_ends_a_pause_and_one_of_a_person_is_left_alone():
    fleet = paused()
    tell(fleet.machine, ResumeWorker, "bad")
    assert fleet.conduct("bad").stage is Stage.ACTIVE
    tell(fleet.machine, PauseWorker, "good", "for a look")
    fleet.wait(10_000)
    assert fleet.machine.state.workers["good"].state is WorkerState.PAUSED


def test_whom_a_person_has_paused_is_left_alone_also_while_it_has_to_prove_itself():
    fleet = paused()
    fleet.wait(HARSH.pause_ns / SECOND_NS + 1)
    fleet.submit(40)
    bind(fleet.machine)
    ((task, number),) = fleet.machine.state.workers["bad"].attempts.items()
    tell(fleet.machine, PauseWorker, "bad", "for a look")
    decision = say(fleet.machine, "bad", reports=[failed(number_of(task), number)])
    assert not any(isinstance(event, WorkerJudged) for event in decision.events)
    fleet.wait(10_000)
    assert (fleet.conduct("bad").stage, state_of(fleet.machine, "bad")) == (Stage.PROBATION, WorkerState.PAUSED)


def test_a_pardon_lets_back_and_forgets_what_led_there():
    fleet = paused()
    tell(fleet.machine, JudgeWorker, "bad", Verdict.PARDON, "it was the network")
    conduct = fleet.conduct("bad")
    assert (conduct.stage, conduct.pauses_ns, conduct.strikes) == (Stage.ACTIVE, (), 0)
    assert fleet.machine.state.workers["bad"].state is WorkerState.ACTIVE
    check(fleet.machine, fleet.machine.state)


def test_a_decision_is_undone():
    fleet = Fleet("w1", "w2", policy=Policy(circuit_failures=1_000, pause_below=0))
    while len(fleet.conduct("w1").judgements) < 2:
        fleet.work("w1")
    first, second = fleet.conduct("w1").judgements[:2]
    assert (first.factor, second.factor) == (900, 810)
    assert not tell(fleet.machine, JudgeWorker, "w1", Verdict.PARDON, "wrong", undoes=first.sequence).refusals
    assert fleet.conduct("w1").factor == 900
    assert [one.undone for one in fleet.conduct("w1").judgements] == [True, False, False]
    (refusal,) = tell(fleet.machine, JudgeWorker, "w1", Verdict.PARDON, "", undoes=first.sequence).refusals
    assert (refusal.code, refusal.field) == ("not_found", "undoes")
    assert str(second.sequence) in refusal.reason


def test_nothing_is_decided_about_one_that_is_pinned():
    fleet = Fleet("w1", "w2", policy=HARSH)
    tell(fleet.machine, JudgeWorker, "w1", Verdict.PIN, "it is needed", 1_000)
    fleet.work("w1", turns=30)
    assert fleet.conduct("w1").factor == FACTOR_ONE
    assert fleet.verdicts("w1") == []


def test_a_pardon_gives_back_what_was_taken_and_old_failures_do_not_count_any_more():
    fleet = Fleet("bad", "good", policy=Policy(pause_below=0))
    fleet.work("bad", turns=4)
    tell(fleet.machine, JudgeWorker, "bad", Verdict.PARDON, "it was the network")
    conduct = fleet.conduct("bad")
    assert conduct.circuit.state is CircuitState.CLOSED
    assert conduct.factor == FACTOR_ONE
    fleet.work("bad", turns=1, tasks=2)
    assert fleet.conduct("bad").circuit.state is CircuitState.CLOSED


def test_what_a_person_has_fixed_is_not_changed_by_undoing_what_was_before():
    fleet = Fleet("w1", "w2", policy=Policy(circuit_failures=1_000, pause_below=0))
    while not fleet.conduct("w1").judgements:
        fleet.work("w1")
    (punished,) = fleet.conduct("w1").judgements
    tell(fleet.machine, JudgeWorker, "w1", Verdict.PIN, "it is needed", 1_500)
    tell(fleet.machine, JudgeWorker, "w1", Verdict.PARDON, "wrong", undoes=punished.sequence)
    assert fleet.conduct("w1").factor == 1_500


def test_an_engine_hears_how_far_objectives_are_reached():
    fleet = Fleet("w1", "w2")
    tell(fleet.machine, SetObjective, Objective("echo", 990, 500_000_000, 60 * SECOND_NS))
    fleet.work(turns=2, tasks=4)
    assert fleet_of(fleet.machine).objectives == ((Objective("echo", 990, 500_000_000, 60 * SECOND_NS), 0),), "all late"
    tell(fleet.machine, SetObjective, Objective("echo", 990, 0, 60 * SECOND_NS))
    fleet.machine.others = None
    fleet.work("w1", "w2", turns=1, tasks=4)
    fleet.machine.others = None
    ((_, reached),) = fleet_of(fleet.machine).objectives
    assert reached == 0
    fleet.wait(200)
    fleet.machine.others = None
    assert fleet_of(fleet.machine).objectives == (), "that is long ago"


@pytest.mark.parametrize(("field", "value"), [("engine", "dice"), ("scoring", "dice"), ("reputation", "dice")])
def test_who_decides_has_to_be_known(field, value):
    machine = a_machine()
    (refusal,) = tell(machine, SetSupervision, Policy(**{field: value})).refusals
    assert (refusal.code, refusal.field) == ("invalid", field)
    assert value in refusal.reason


def test_a_privilege_is_earned_and_kept_while_it_comes_and_goes():
    fleet = Fleet("w1", "w2")
    machine = fleet.machine
    submit(machine, asking(900, tags=("merit.trusted",)))
    assert allocate(machine) == []
    machine.state.profiles["w1"].conduct.trusted = True  # as after an authorisation
    attach(machine, "w1", boot="again", granted=10)
    assert [(sent.worker, number_of(sent.assignment.task)) for sent in allocate(machine)] == [("w1", 900)]
