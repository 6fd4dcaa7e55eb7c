"""Submits that are taken as a whole or not at all."""

from merit.model.limits import SECOND_NS, Limits
from merit.testing.builders import a_machine, a_spec, an_id, submit

LIMITS = Limits(live_tasks_max=3)


def said(decision):
    return {refusal.task: refusal.code for refusal in decision.refusals}


def test_a_group_for_which_there_is_no_room_may_come_again_as_a_whole():
    machine = a_machine(limits=LIMITS)
    submit(machine, a_spec(1))
    group = [a_spec(2), a_spec(3), a_spec(4), a_spec(5, after=[4])]
    decision = submit(machine, *group, atomic=True)
    assert said(decision) == {an_id(number): "exhausted" for number in (2, 3, 4, 5)}
    assert all(refusal.retry_after_ns == SECOND_NS for refusal in decision.refusals)
    assert machine.state.live == 1


def test_of_a_group_that_can_never_be_taken_no_task_is_asked_for_again():
    machine = a_machine(limits=LIMITS)
    submit(machine, a_spec(1))
    group = [a_spec(2), a_spec(3, after=[99]), a_spec(4), a_spec(5)]
    decision = submit(machine, *group, atomic=True)
    assert said(decision) == {
        an_id(2): "batch",
        an_id(3): "not_found",
        an_id(4): "batch",
        an_id(5): "batch",
    }
    assert len(decision.refusals) == 4
    assert machine.state.live == 1
