"""Results of tasks as parameters of others, and tasks that run despite the death of what they need."""

from itertools import permutations

import pytest

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check
from merit.model.limits import Limits
from merit.model.tasks import Input, TaskState
from merit.testing.builders import (
    a_machine,
    a_spec,
    allocate,
    an_id,
    attach,
    cancel,
    completed,
    failed,
    number_of,
    say,
    submit,
    with_terms,
)

NAMES = {1: "a", 2: "b", 3: "c"}
INPUTS = tuple((name, an_id(number)) for number, name in NAMES.items())


def collector(**fields):
    return with_terms(9, after=[1, 2, 3], inputs=INPUTS, **fields)


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])))
@pytest.mark.parametrize("restart_after", [0, 1, 2, 3, None])
def test_results_come_as_parameters_in_whatever_order_they_are_there(order, restart_after):
    machine = a_machine()
    attach(machine, granted=100)
    submit(machine, a_spec(1), a_spec(2), a_spec(3), collector())
    allocate(machine)
    for done, number in enumerate(order):
        if restart_after == done:
            machine = a_machine(decode_state(encode_state(machine.state)), epoch=2)
            attach(machine, session=2, granted=100)
        assert allocate(machine) == []
        say(machine, reports=[completed(number, result=b"%d" % number, result_blob="blob" if number == 2 else "")])
        check(machine, machine.state)
    if restart_after == 3:
        machine = a_machine(decode_state(encode_state(machine.state)), epoch=2)
        attach(machine, session=2, granted=100)
    (sent,) = allocate(machine)
    inputs = sorted(sent.assignment.inputs, key=lambda item: item.name)
    assert inputs == [Input("a", b"1"), Input("b", b"2", "blob"), Input("c", b"3")]
    check(machine, machine.state)


ENDS = ["completed", "died", "canceled"]


@pytest.mark.parametrize("order", list(permutations([1, 2, 3])))
@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
def test_despite_dead_it_runs_with_null_for_what_failed(order, first, second):
    machine = a_machine()
    attach(machine, granted=100)
    submit(machine, a_spec(1), a_spec(2), a_spec(3), collector(despite_dead=True), a_spec(10, after=[1, 2, 3]))
    allocate(machine)
    how = {1: first, 2: second, 3: "completed"}
    for number in order:
        assert allocate(machine) == []
        if how[number] == "completed":
            say(machine, reports=[completed(number, result=b"%d" % number)])
        elif how[number] == "died":
            say(machine, reports=[failed(number, permanent=True)])
        else:
            cancel(machine, number)
        check(machine, machine.state)
    sent = [effect.assignment for effect in allocate(machine)]
    assert {number_of(assignment.task) for assignment in sent} == ({9, 10} if {first, second} == {"completed"} else {9})
    given = {item.name: item.result for item in sent[0].inputs}
    assert given == {NAMES[number]: b"%d" % number if how[number] == "completed" else b"null" for number in (1, 2, 3)}
    if {first, second} != {"completed"}:
        dead = machine.state.tasks[an_id(10)]
        assert dead.state is TaskState.DEAD
        assert dead.failure is not None
        assert dead.failure.kind == "dependency"


@pytest.mark.parametrize("despite", [False, True])
def test_what_ended_before_is_given_at_once(despite):
    machine = a_machine()
    attach(machine, granted=100)
    submit(machine, a_spec(1), a_spec(2), a_spec(3))
    allocate(machine)
    say(machine, reports=[completed(1, result=b"1"), failed(2, permanent=True), completed(3, result=b"3")])
    decision = submit(machine, collector(despite_dead=despite))
    if not despite:
        assert [(refusal.code, refusal.field) for refusal in decision.refusals] == [("not_found", "after")]
        return
    (sent,) = allocate(machine)
    assert sent.assignment.inputs == (Input("a", b"1"), Input("b", b"null"), Input("c", b"3"))


def test_a_chain_of_the_brave_goes_on_in_spite_of_a_cascade():
    machine = a_machine()
    attach(machine, granted=100)
    submit(
        machine,
        a_spec(1),
        a_spec(2, after=[1]),
        with_terms(3, after=[2], despite_dead=True, inputs=(("x", an_id(2)),)),
        with_terms(4, after=[1, 2], despite_dead=True),
    )
    cancel(machine, 1)
    assert [number_of(effect.assignment.task) for effect in allocate(machine)] == [3, 4]
    check(machine, machine.state)


def test_one_result_under_two_names_and_the_bound_on_bytes_counts_it():
    machine = a_machine(limits=Limits(finals_max=0))
    attach(machine, granted=100)
    submit(machine, a_spec(1), with_terms(2, after=[1], inputs=(("a", an_id(1)), ("b", an_id(1)))))
    allocate(machine)
    say(machine, reports=[completed(1, result=b'"' + b"x" * 1_000 + b'"')])
    check(machine, machine.state)
    assert machine.state.live_bytes > 2_000
    (sent,) = allocate(machine)
    assert [item.name for item in sent.assignment.inputs] == ["a", "b"]
    cancel(machine, 2)
    assert machine.state.live_bytes == 0


def test_tasks_of_other_tenants_cannot_be_needed():
    machine = a_machine()
    submit(machine, a_spec(1))
    decision = submit(machine, a_spec(2, after=[1]), tenant="other")
    assert [(refusal.code, refusal.field) for refusal in decision.refusals] == [("not_found", "after")]
    assert "is unknown" in decision.refusals[0].reason
    assert [refusal.code for refusal in cancel(machine, 1, tenant="other").refusals] == ["not_found"]
    assert [refusal.code for refusal in submit(machine, a_spec(1), tenant="other").refusals] == ["conflict"]
