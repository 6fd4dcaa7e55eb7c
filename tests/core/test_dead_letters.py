"""Tasks that failed for good: kept, tried again as new ones, or put away."""

from typing import Any

import pytest

from merit.core.codec import decode_state, encode_state, state_digest
from merit.core.invariants import check
from merit.core.recollect import Recollection
from merit.model.commands import Allocate, PurgeDead, RetryDead
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import Input, Priority, RetryPolicy, TaskState
from merit.testing.builders import (
    START_NS,
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
    tell,
    tick,
    with_terms,
)


def task_of(machine, number=1):
    return machine.state.tasks[an_id(number)]


def with_dead(*specs, limits=None, **fields):
    """A machine on which these tasks have died, one after the other."""
    machine = a_machine(limits=limits or Limits())
    attach(machine, granted=1_000)
    for spec in specs or [a_spec(1, **fields)]:
        submit(machine, spec)
        allocate(machine)
        say(machine, reports=[failed(int(spec.id[-12:], 16), permanent=True)])
    return machine


def retry(machine, *pairs, tenant="default"):
    decision = tell(machine, RetryDead, [(an_id(old), an_id(new)) for old, new in pairs], tenant=tenant)
    check(machine, machine.state)
    return [(int(refusal.task[-12:], 16), refusal.code, refusal.field) for refusal in decision.refusals]


def purge(machine, *numbers, tenant="default"):
    decision = tell(machine, PurgeDead, [an_id(number) for number in numbers], tenant=tenant)
    check(machine, machine.state)
    return [(refusal.code, refusal.field) for refusal in decision.refusals]


def test_it_is_tried_again_as_a_new_task_that_names_it():
    terms: dict[str, Any] = {
        "key": "k", "labels": (("a", "b"),), "retry": RetryPolicy(1), "not_before_ns": START_NS,
        "deadline_ns": START_NS + 50 * SECOND_NS, "idempotency_key": "once", "estimate_ns": 7,
    }  # fmt: skip
    own: dict[str, Any] = {
        "priority": Priority.CRITICAL,
        "parameters": b'{"a":1}',
        "attempts_max": 7,
        "description": "d",
        "run_timeout_ns": 9,
    }
    machine = with_dead(with_terms(1, **own, **terms))
    later = START_NS + 40 * SECOND_NS
    assert tick(machine, later).events
    attach(machine)
    assert retry(machine, (1, 2)) == []
    old, new = task_of(machine, 1), task_of(machine, 2)
    assert (old.state, old.successor, list(machine.state.dead_letters)) == (TaskState.DEAD, an_id(2), [])
    for field in ("tenant", "capability", "parameters", "priority", "attempts_max", "description", "run_timeout_ns"):
        assert getattr(new, field) == getattr(old, field)
    assert new.deadline_ns == later + 50 * SECOND_NS, "as much time as the first had, from now"
    kept = {field: getattr(new.terms, field) for field in terms}
    assert kept == terms | {"not_before_ns": 0, "deadline_ns": 0, "idempotency_key": ""}
    assert new.terms.origin == an_id(1)
    allocate(machine)
    say(machine, reports=[completed(2)])
    assert task_of(machine, 2).state is TaskState.COMPLETED
    assert machine.state.keys["default", "once"].task == an_id(1)
    restored = decode_state(encode_state(machine.state))
    assert state_digest(restored) == state_digest(machine.state)


def test_what_is_no_dead_letter_is_refused_by_name():
    machine = with_dead(a_spec(1), a_spec(2))
    submit(machine, a_spec(3), a_spec(4))
    cancel(machine, 4)
    assert retry(machine, (3, 13), (4, 14), (9, 19)) == [(number, "not_found", "id") for number in (3, 4, 9)]
    assert retry(machine, (1, 11), (1, 12)) == [(1, "not_found", "id")]
    assert retry(machine, (2, 3)) == [(2, "conflict", "id")]
    assert list(machine.state.dead_letters) == [an_id(2)]
    assert purge(machine, 2) == []
    assert purge(machine, 2, 1) == [("not_found", "id")] * 2
    assert retry(machine, (2, 20)) == [(2, "not_found", "id")]
    assert task_of(machine, 2).successor == ""


def test_those_of_another_tenant_are_not_there():
    machine = with_dead()
    assert retry(machine, (1, 2), tenant="other") == [(1, "not_found", "id")]
    assert purge(machine, 1, tenant="other") == [("not_found", "id")]
    assert retry(machine, (1, 2), tenant="") == [], "an operator speaks for all"
    assert task_of(machine, 2).tenant == "default"


def test_without_room_it_stays_where_it_is():
    machine = with_dead(limits=Limits(live_tasks_max=1))
    submit(machine, a_spec(2, "other"))
    assert retry(machine, (1, 3)) == [(1, "exhausted", "tasks")]
    assert list(machine.state.dead_letters) == [an_id(1)]


@pytest.mark.parametrize("bound", [{"dead_letters_max": 3}, {"dead_letters_bytes_max": 3 * 22}])
def test_beyond_their_bound_the_oldest_are_final_tasks_like_others(bound):
    machine = with_dead(*(a_spec(number) for number in range(10)), limits=Limits(**bound, finals_max=4))
    check(machine, machine.state)
    letters = [int(name[-12:], 16) for name in machine.state.dead_letters]
    assert letters == list(range(10 - len(letters), 10))
    assert 0 < len(letters) <= 3
    assert len(machine.state.finals) == 4
    assert machine.state.forgotten == 10 - 4 - len(letters)


def test_a_leader_with_a_smaller_bound_keeps_fewer():
    machine = with_dead(*(a_spec(number) for number in range(10)))
    led = a_machine(decode_state(encode_state(machine.state)), Limits(dead_letters_max=2), epoch=2)
    assert [int(name[-12:], 16) for name in led.state.dead_letters] == [8, 9]
    check(led, led.state)


def test_results_that_it_was_given_are_given_again():
    machine = a_machine()
    attach(machine, granted=100)
    submit(machine, a_spec(1), with_terms(2, after=[1], inputs=(("p", an_id(1)),)))
    allocate(machine)
    say(machine, reports=[completed(1, result=b"41")])
    allocate(machine)
    say(machine, reports=[failed(2, permanent=True)])
    machine.state.finals_max = 0  # what gave the result may be forgotten since
    retry(machine, (2, 3))
    assert task_of(machine, 3).inputs == (Input("p", b"41"),)
    (sent,) = allocate(machine)
    assert sent.assignment.inputs == (Input("p", b"41"),)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("forgotten", [False, True])
def test_those_that_needed_it_are_tried_again_after_it(late, forgotten):
    """Tasks 1 and 2 are needed by 3; task 1 dies, and 2 is done before or after that."""
    limits = Limits(finals_max=1 if forgotten else 100)
    machine = a_machine(limits=limits)
    attach(machine, granted=100)
    inputs = (("a", an_id(1)), ("b", an_id(2)))
    submit(machine, a_spec(1), a_spec(2), with_terms(3, after=[1, 2], inputs=inputs), a_spec(4, after=[3]))
    allocate(machine)
    if not late:
        say(machine, reports=[completed(2, result=b"2")])
    tick(machine, START_NS + 1)
    say(machine, reports=[failed(1, permanent=True)])
    allocate(machine)
    assert list(machine.state.dead_letters) == [an_id(number) for number in (1, 3, 4)]
    tick(machine, START_NS + 2)
    if late:
        say(machine, reports=[completed(2, result=b"2")])
    assert retry(machine, (3, 13)) == [(3, "not_found", "after")], "what it needs has to be tried again first"
    if late and forgotten:
        assert retry(machine, (1, 11), (3, 13)) == [(3, "not_found", "after")]
        return
    assert retry(machine, (1, 11), (3, 13), (4, 14)) == []
    assert task_of(machine, 13).after == ((an_id(11), an_id(2)) if late else (an_id(11),))
    assert task_of(machine, 14).after == (an_id(13),)
    allocate(machine)
    say(machine, reports=[completed(11, result=b"1")])
    (sent,) = allocate(machine)
    assert sorted(sent.assignment.inputs, key=lambda item: item.name) == [Input("a", b"1"), Input("b", b"2")]
    say(machine, reports=[completed(13)])
    assert [effect.assignment.task for effect in allocate(machine)] == [an_id(14)]


def test_the_last_in_a_line_of_tries_is_needed():
    machine = a_machine()
    attach(machine, granted=100)
    submit(machine, a_spec(1), a_spec(2, after=[1]))
    allocate(machine)
    for old, new in ((1, 11), (11, 111)):
        say(machine, reports=[failed(old, permanent=True)])
        allocate(machine)
        retry(machine, (old, new))
        allocate(machine)
    assert retry(machine, (2, 12)) == []
    assert task_of(machine, 12).after == (an_id(111),)


def test_the_journal_tells_the_whole_of_it():
    machine, recollection = a_machine(), Recollection()
    attach(machine, granted=10)
    for decision in (
        submit(machine, with_terms(1, idempotency_key="k")),
        tell(machine, Allocate, 10),
        say(machine, reports=[failed(1, permanent=True)]),
        tell(machine, RetryDead, [(an_id(1), an_id(2))]),
    ):
        for event in decision.events:
            if getattr(event, "task", None) == an_id(1):
                recollection.take(event, machine.payloads, START_NS)
    (task,) = recollection.tasks()
    assert task == task_of(machine, 1)
    assert task.successor == an_id(2)
