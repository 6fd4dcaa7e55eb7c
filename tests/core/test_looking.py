"""Whose results are looked at, when those who could be asked are away for a moment."""

import pytest

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check
from merit.model.auditing import AuditPolicy
from merit.model.commands import SetAudit
from merit.model.frames import AttemptRef
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import TaskState
from merit.testing.builders import a_machine, a_spec, an_id, attach, bind, completed, detach, say, submit, tell, tick

COPIES = AuditPolicy("echo", copies=2)
JUDGE = AuditPolicy("echo", judge="review")
LIMITS = Limits()


def with_work(policy):
    """A worker that has a task, and another one that could be asked about it."""
    machine = a_machine(limits=LIMITS)
    attach(machine, "w1", granted=10)
    tell(machine, SetAudit, policy)
    submit(machine, a_spec(1))
    bind(machine)
    attach(machine, "other", [policy.judge or "echo"], granted=10)
    return machine


@pytest.mark.parametrize("policy", [COPIES, JUDGE], ids=["copies", "judge"])
def test_who_comes_back_first_after_a_restart_is_looked_at_all_the_same(policy):
    before = with_work(policy)
    machine = a_machine(decode_state(encode_state(before.state)), LIMITS, now_ns=before.now_ns, epoch=2)
    attach(machine, "w1", granted=10, session=2, held=[AttemptRef(an_id(1), 1)])
    say(machine, "w1", reports=[completed(1)])
    assert machine.state.tasks[an_id(1)].state is TaskState.AUDITING
    check(machine, machine.state)


@pytest.mark.parametrize("policy", [COPIES, JUDGE], ids=["copies", "judge"])
def test_who_is_away_counts_until_he_is_given_up(policy):
    machine = with_work(policy)
    detach(machine, "other")
    say(machine, "w1", reports=[completed(1)])
    assert machine.state.tasks[an_id(1)].state is TaskState.AUDITING
    tick(machine, machine.now_ns + 30 * SECOND_NS)
    submit(machine, a_spec(2))
    bind(machine)
    say(machine, "w1", reports=[completed(2)])
    assert machine.state.tasks[an_id(2)].state is TaskState.COMPLETED, "nobody else is left"
    check(machine, machine.state)
