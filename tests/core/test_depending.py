"""Dependencies: what the end of one task means for others, however many they are and wherever a crash comes."""

import pytest

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check
from merit.model.commands import FollowUp
from merit.model.events import TaskDied, TaskReleased
from merit.model.limits import Limits
from merit.model.tasks import TaskState
from merit.testing.builders import (
    PRINCIPAL,
    START_NS,
    TENANT,
    a_machine,
    a_spec,
    allocate,
    an_id,
    attach,
    cancel,
    completed,
    failed,
    say,
    submit,
)


def follow_up(machine, count_max):
    return machine.handle(FollowUp(TENANT, PRINCIPAL, count_max), START_NS).events


def states(machine):
    return [task.state for task in machine.state.tasks.values()]


def test_a_chain_of_fifty_thousand_dies_in_portions_that_survive_a_crash():
    machine = a_machine()
    length = 50_000
    submit(machine, *(a_spec(number, after=[number - 1] if number else []) for number in range(length)))
    cancel(machine, 0)
    portions = 0
    while machine.affected:
        assert 0 < len(follow_up(machine, 8_192)) <= 8_192
        portions += 1
        if portions == 3:
            # kill -9: all that is left is the state, here by way of a snapshot.
            machine = a_machine(decode_state(encode_state(machine.state)), epoch=2)
    assert portions == 7
    assert states(machine) == [TaskState.CANCELED] + [TaskState.DEAD] * (length - 1)
    assert machine.state.dependents == {}
    check(machine, machine.state)


@pytest.mark.parametrize("end", ["completed", "died"])
def test_everybody_who_waits_for_one_task_is_found_again_by_a_new_leader(end):
    machine = a_machine()
    attach(machine)
    submit(machine, a_spec(0), *(a_spec(number, "other", after=[0]) for number in range(1, 301)))
    allocate(machine)
    say(machine, reports=[completed(0) if end == "completed" else failed(0, permanent=True)])
    check(machine, machine.state)
    assert len(follow_up(machine, 100)) == 100
    machine = a_machine(decode_state(encode_state(machine.state)), epoch=2)
    check(machine, machine.state)
    events = follow_up(machine, 10_000)
    assert {type(event) for event in events} == {TaskReleased if end == "completed" else TaskDied}
    assert len(events) == 200
    check(machine, machine.state)


def test_the_reason_is_known_even_when_the_cause_has_been_forgotten():
    machine = a_machine(limits=Limits(finals_max=1))
    submit(machine, a_spec(0), a_spec(1, after=[0]), a_spec(2), a_spec(3, after=[1]))
    cancel(machine, 0, 2)
    machine = a_machine(machine.state, Limits(finals_max=1), epoch=2)
    assert an_id(0) not in machine.state.tasks
    events = follow_up(machine, 10)
    assert [event.failure.message for event in events] == [
        "a task that it needs did not complete",
        f"task {an_id(1)}, which it needs, is DEAD",
    ]
    check(machine, machine.state)


def test_leaving_costs_the_same_however_many_wait_for_the_same_task():
    """A chain of scans here made 50,000 of them a minute's work."""

    class Counting(dict):
        looked = 0

        def values(self):
            Counting.looked += len(self)
            return super().values()

        def items(self):
            Counting.looked += len(self)
            return super().items()

        def __iter__(self):
            Counting.looked += len(self)
            return super().__iter__()

    machine = a_machine()
    count = 500
    submit(machine, a_spec(0), *(a_spec(number, after=[0]) for number in range(1, count)))
    dependents = machine.state.dependents
    dependents[an_id(0)] = Counting(dependents[an_id(0)])
    cancel(machine, *range(count - 1, 1, -1))
    assert Counting.looked == 0
    assert len(dependents[an_id(0)]) == 1


def test_needing_two_waits_for_both_and_goes_when_both_are_there():
    machine = a_machine()
    attach(machine, granted=10)
    submit(machine, a_spec(1), a_spec(2), a_spec(3, after=[1, 2]))
    allocate(machine)
    say(machine, reports=[completed(1)])
    assert allocate(machine) == []
    say(machine, reports=[completed(2)])
    assert [effect.assignment.task for effect in allocate(machine)] == [an_id(3)]


def test_a_dependency_must_be_there_and_able_to_complete():
    machine = a_machine()
    submit(machine, a_spec(1), a_spec(2, after=[1]))
    cancel(machine, 1)
    decision = submit(
        machine,
        a_spec(3, after=[1]),
        a_spec(4, after=[99]),
        a_spec(5, after=[5]),
        a_spec(6, after=[2, 2]),
        a_spec(7, after=[4]),
        # Doomed, but not dealt with yet: it is taken and goes the same way.
        a_spec(8, after=[2]),
    )
    assert [(refusal.task, refusal.code) for refusal in decision.refusals] == [
        (an_id(3), "not_found"),
        (an_id(4), "not_found"),
        (an_id(5), "not_found"),
        (an_id(6), "invalid"),
        (an_id(7), "not_found"),
    ]
    allocate(machine)
    assert machine.state.tasks[an_id(8)].state is TaskState.DEAD
    check(machine, machine.state)


def test_a_diamond_dies_once():
    machine = a_machine()
    submit(machine, a_spec(0), a_spec(1, after=[0]), a_spec(2, after=[0]), a_spec(3, after=[1, 2]))
    cancel(machine, 0)
    events = follow_up(machine, 100)
    assert [event.task for event in events] == [an_id(1), an_id(2), an_id(3)]
    check(machine, machine.state)


def test_a_forgotten_task_that_comes_again_is_not_the_one_that_was_needed():
    machine = a_machine(limits=Limits(finals_max=1))
    attach(machine, granted=10)
    submit(machine, a_spec(1), a_spec(2, "other"), a_spec(3, "other", after=[1, 2]))
    allocate(machine)
    say(machine, reports=[completed(1)])
    submit(machine, a_spec(4))
    allocate(machine)
    say(machine, reports=[completed(4)])
    assert an_id(1) not in machine.state.tasks
    submit(machine, a_spec(1))
    allocate(machine)
    check(machine, machine.state)
    machine = a_machine(decode_state(encode_state(machine.state)), epoch=2)
    check(machine, machine.state)
    assert follow_up(machine, 10) == []
    assert list(machine.state.dependents) == [an_id(2)]
    assert machine.state.tasks[an_id(3)].blocked_by == 1
