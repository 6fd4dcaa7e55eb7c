"""What becomes of an attempt whose result was looked at, and how that is set."""

import pytest
from msgspec.structs import replace

from merit.core.codec import decode_state, encode_state
from merit.model.auditing import AuditPolicy, AuditRule, Finding, OnBroken
from merit.model.commands import SetAudit
from merit.model.events import AttemptFailed, AuditSet, TaskCompleted
from merit.model.tasks import AttemptState, TaskState
from merit.testing.builders import a_machine, a_spec, allocate, an_id, attach, completed, say, submit, tell

POLICY = AuditPolicy("echo", rules=(AuditRule("right", "result == 1"),))
OK = Finding("schema", True)
WRONG = Finding("right", False, "it is 2")
BROKEN = Finding("other", False, "it took too long", broken=True)


@pytest.fixture
def machine():
    made = a_machine()
    attach(made, "w1")
    return made


def reported(machine, *findings):
    """The events of a report of task 1 about which this was found."""
    submit(machine, a_spec(1, attempts_max=1))
    allocate(machine)
    report = replace(completed(1), findings=findings)
    return say(machine, "w1", reports=[report]).events


def test_a_policy_holds_until_it_asks_nothing(machine):
    assert tell(machine, SetAudit, AuditPolicy("echo")).events == []
    (event,) = tell(machine, SetAudit, POLICY).events
    assert isinstance(event, AuditSet)
    assert machine.state.audits == {"echo": POLICY}
    assert decode_state(encode_state(machine.state)).audits == {"echo": POLICY}
    tell(machine, SetAudit, AuditPolicy("echo"))
    assert machine.state.audits == {}


def test_a_result_that_passes_is_accepted(machine):
    tell(machine, SetAudit, POLICY)
    events = reported(machine, OK, Finding("rule", True, "a warning"))
    assert any(isinstance(event, TaskCompleted) for event in events)


def test_one_that_does_not_is_rejected_with_all_that_was_found(machine):
    tell(machine, SetAudit, POLICY)
    (event,) = [event for event in reported(machine, OK, BROKEN, WRONG) if isinstance(event, AttemptFailed)]
    assert event.state is AttemptState.REJECTED
    assert (event.failure.kind, event.failure.message) == ("audit", "right: it is 2")
    assert event.failure.detail == "other: it took too long\nright: it is 2"
    assert machine.state.tasks[an_id(1)].state is TaskState.DEAD
    assert machine.state.profiles["w1"].failed == 1


def test_an_audit_that_broke_is_not_held_against_the_worker(machine):
    tell(machine, SetAudit, POLICY)
    (event,) = [event for event in reported(machine, OK, BROKEN) if isinstance(event, AttemptFailed)]
    assert event.state is AttemptState.CANCELED
    assert (event.failure.kind, event.failure.message) == ("audit_broken", "other: it took too long")
    assert machine.state.profiles["w1"].failed == 0


def test_and_lets_the_result_pass_where_that_is_wanted(machine):
    tell(machine, SetAudit, replace(POLICY, on_broken=OnBroken.ACCEPT))
    assert any(isinstance(event, TaskCompleted) for event in reported(machine, OK, BROKEN))
