"""Probation: what a worker has to do right before it gets anything."""

import pytest

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check
from merit.model.commands import PauseQueue, PauseWorker, ResumeQueue, ResumeWorker, SetAdmission, SetRule
from merit.model.fleet import Admission, Probe
from merit.model.frames import AttemptRef, Report, ReportStatus
from merit.model.limits import SECOND_NS, Limits
from merit.model.rules import Rule, RuleKind
from merit.model.tasks import Failure, TaskState
from merit.model.tenancy import PROBE_TENANT
from merit.model.workers import WorkerState
from merit.testing.builders import (
    START_NS,
    a_machine,
    a_spec,
    allocate,
    an_id,
    an_offer,
    attach,
    detach,
    say,
    submit,
    tell,
    tick,
)

PROBES = (Probe(b'{"n":1}', b'{"sum": 1, "of": [1]}'), Probe(b'{"n":2}', b"2", 5 * SECOND_NS))
RIGHT = {b'{"n":1}': b'{"of":[1.0],"sum":1}', b'{"n":2}': b"2"}


def asks(machine, *probes, capability="echo"):
    return tell(machine, SetAdmission, Admission(capability, probes))


@pytest.fixture
def machine():
    made = a_machine(limits=Limits(grace_ns=0, stale_ns=10**6 * SECOND_NS))
    asks(made, *PROBES)
    return made


def answer(machine, answers, worker="w1"):
    """The worker does what it is given; `answers` by parameters, None: it fails. What it was given."""
    sent = [effect.assignment for effect in allocate(machine) if effect.worker == worker]
    reports = []
    for assignment in sent:
        result = answers.get(assignment.parameters, b"0")
        if result is None:
            failure = Failure("error", "cannot")
            reports.append(Report(assignment.task, assignment.number, ReportStatus.FAILED, failure=failure))
        else:
            reports.append(Report(assignment.task, assignment.number, ReportStatus.COMPLETED, result))
    say(machine, worker, reports=reports, granted=100)
    check(machine, machine.state)
    return [assignment.task for assignment in sent]


def state_of(machine, worker="w1"):
    return machine.state.workers[worker].state


def probes(machine):
    return [task for task in machine.state.tasks.values() if task.tenant == PROBE_TENANT]


def test_who_does_all_of_them_right_is_admitted_and_gets_nothing_else_before(machine):
    submit(machine, a_spec(1))
    attach(machine, granted=1)
    assert state_of(machine) is WorkerState.PROBATION
    assert an_id(1) not in answer(machine, RIGHT)
    assert state_of(machine) is WorkerState.PROBATION
    assert an_id(1) not in answer(machine, RIGHT)
    assert state_of(machine) is WorkerState.ACTIVE
    assert machine.state.profiles["w1"].admitted == ("echo@1.0.0",)
    assert answer(machine, {}) == [an_id(1)]
    (first, second) = probes(machine)
    assert (first.run_timeout_ns, second.run_timeout_ns) == (PROBES[0].run_timeout_ns, 5 * SECOND_NS)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({**RIGHT, b'{"n":2}': b"3"}, "another result than expected"),
        ({**RIGHT, b'{"n":1}': b'{"of":[true],"sum":1}'}, "another result than expected"),
        ({**RIGHT, b'{"n":1}': b'{"of":[1],"sum":1,"more":0}'}, "another result than expected"),
        ({**RIGHT, b'{"n":2}': b"no JSON"}, "another result than expected"),
        ({**RIGHT, b'{"n":2}': None}, "cannot"),
    ],
    ids=["another", "true is no number", "more", "nonsense", "failed"],
)
def test_who_does_one_wrong_is_paused_with_the_reason(machine, answers, reason):
    attach(machine, granted=10)
    answer(machine, answers)
    assert state_of(machine) is WorkerState.PAUSED
    profile = machine.state.profiles["w1"]
    assert profile.paused
    assert reason in profile.reason
    assert "probe" in profile.reason
    assert all(task.state.final for task in probes(machine))
    submit(machine, a_spec(1))
    assert answer(machine, {}) == []


def test_who_never_answers_is_paused_too(machine):
    attach(machine, granted=10)
    allocate(machine)
    tick(machine, START_NS + 60 * SECOND_NS)
    assert state_of(machine) is WorkerState.PAUSED
    assert "run time-out" in machine.state.profiles["w1"].reason
    check(machine, machine.state)


def test_it_may_try_again_when_it_is_resumed(machine):
    attach(machine, granted=10)
    answer(machine, {})
    tell(machine, ResumeWorker, "w1")
    assert state_of(machine) is WorkerState.PROBATION
    say(machine, granted=100)
    assert len(answer(machine, RIGHT)) == 2
    assert state_of(machine) is WorkerState.ACTIVE


def test_who_has_passed_need_not_again_but_with_another_version(machine):
    attach(machine, granted=10)
    answer(machine, RIGHT)
    attach(machine, granted=10, boot="boot-2")
    assert state_of(machine) is WorkerState.ACTIVE
    detach(machine, bye=True)
    attach(machine, granted=10, boot="boot-3")
    assert state_of(machine) is WorkerState.ACTIVE
    attach(machine, granted=10, boot="boot-4", offers=[an_offer(version="1.0.1")])
    assert state_of(machine) is WorkerState.PROBATION


def test_what_nobody_asked_probes_for_is_not_passed_by_the_way(machine):
    attach(machine, granted=10, capabilities=["echo", "other"])
    answer(machine, RIGHT)
    assert machine.state.profiles["w1"].admitted == ("echo@1.0.0",)
    asks(machine, *PROBES, capability="other")
    attach(machine, granted=10, capabilities=["echo", "other"], boot="boot-2")
    assert {task.capability for task in probes(machine) if not task.state.final} == {"other"}
    answer(machine, RIGHT)
    assert machine.state.profiles["w1"].admitted == ("echo@1.0.0", "other@1.0.0")


def test_those_who_are_here_and_other_capabilities_are_not_asked():
    machine = a_machine()
    attach(machine, "before")
    asks(machine, *PROBES)
    attach(machine, "other", capabilities=["other"])
    assert state_of(machine, "before") is WorkerState.ACTIVE
    assert state_of(machine, "other") is WorkerState.ACTIVE


def test_without_an_expected_result_any_will_do(machine):
    asks(machine, Probe(b'{"n":3}'))
    attach(machine, granted=10)
    answer(machine, {b'{"n":3}': b"whatever" and b'"whatever"'})
    assert state_of(machine) is WorkerState.ACTIVE


def test_when_there_are_no_probes_any_more_nobody_is_asked(machine):
    asks(machine)
    assert machine.state.admissions == {}
    attach(machine)
    assert state_of(machine) is WorkerState.ACTIVE


def test_probes_that_are_set_anew_do_not_judge_those_that_were_given_before(machine):
    attach(machine, granted=10)
    asks(machine, Probe(b'{"n":9}', b"9"))
    answer(machine, RIGHT)
    assert state_of(machine) is WorkerState.ACTIVE


@pytest.mark.parametrize("done", [0, 1])
def test_another_leader_in_the_middle(machine, done):
    attach(machine, granted=done)
    answer(machine, RIGHT) if done else None
    state = decode_state(encode_state(machine.state))
    again = a_machine(state, Limits(grace_ns=0, stale_ns=10**6 * SECOND_NS), epoch=2)
    held = [AttemptRef(task, number) for task, number in state.workers["w1"].attempts.items()]
    attach(again, granted=10, session=2, held=held)
    assert state_of(again) is WorkerState.PROBATION
    assert len(answer(again, RIGHT)) == 2 - done
    assert state_of(again) is WorkerState.ACTIVE


def test_coming_anew_in_the_middle_begins_from_the_start(machine):
    attach(machine, granted=1)
    answer(machine, RIGHT)
    allocate(machine)
    attach(machine, granted=10, boot="boot-2")
    assert state_of(machine) is WorkerState.PROBATION, "what was lost with the old process is not held against it"
    assert len(answer(machine, RIGHT)) == 2
    assert state_of(machine) is WorkerState.ACTIVE


def test_pausing_or_leaving_ends_the_probes(machine):
    attach(machine, granted=0)
    tell(machine, PauseWorker, "w1", "not now")
    assert {task.state for task in probes(machine)} == {TaskState.CANCELED}
    assert machine.state.profiles["w1"].reason == "not now"
    tell(machine, ResumeWorker, "w1")
    assert sum(not task.state.final for task in probes(machine)) == 2
    detach(machine, bye=True)
    assert all(task.state.final for task in probes(machine))
    assert machine.probing == {}
    check(machine, machine.state)


def test_a_full_queue_does_not_keep_new_workers_out(machine):
    machine.limits = Limits(capability_pending_max=3, tenants_max=1, live_tasks_max=3)
    submit(machine, *(a_spec(number) for number in range(3)))
    assert submit(machine, a_spec(9)).refusals
    attach(machine, granted=10)
    answer(machine, RIGHT)
    assert state_of(machine) is WorkerState.ACTIVE
    assert len(answer(machine, {})) == 3


def test_probes_keep_to_the_limits_of_the_capability(machine):
    tell(machine, SetRule, Rule(RuleKind.CAPABILITY, "echo", concurrency=1))
    attach(machine, granted=10)
    assert len(answer(machine, RIGHT)) == 1
    assert len(answer(machine, RIGHT)) == 1
    assert state_of(machine) is WorkerState.ACTIVE


def test_a_probe_that_nobody_let_it_try_says_nothing_of_it(machine):
    """Its queue is paused for longer than a task may take."""
    tell(machine, PauseQueue, "echo", "")
    attach(machine, granted=10)
    first = {task.id for task in probes(machine)}
    tick(machine, START_NS + 4_000 * SECOND_NS)
    check(machine, machine.state)
    assert state_of(machine) is WorkerState.PROBATION
    assert len(machine.probing["w1"]) == len(PROBES)
    assert not first & machine.probing["w1"].keys()
    tell(machine, ResumeQueue, "echo")
    answer(machine, RIGHT)
    assert state_of(machine) is WorkerState.ACTIVE


def test_probes_of_one_that_comes_back_with_nothing_to_prove_are_called_off(machine):
    attach(machine, granted=10)
    asks(machine)
    attach(machine, granted=10, boot="boot-2")
    assert state_of(machine) is WorkerState.ACTIVE
    assert not machine.probing
    assert {task.state for task in probes(machine)} == {TaskState.CANCELED}
