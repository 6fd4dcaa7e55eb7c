"""Same key, same task: within one submit, later, under another leader, and beyond what is kept."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from merit.core.codec import decode_state, encode_state
from merit.core.invariants import check
from merit.model.effects import TellKnown
from merit.model.limits import SECOND_NS, Limits
from merit.testing.builders import (
    START_NS,
    a_machine,
    allocate,
    an_id,
    attach,
    completed,
    number_of,
    say,
    submit,
    with_terms,
)


def keyed(number, key="k", **fields):
    return with_terms(number, idempotency_key=key, **fields)


def known(decision):
    pairs = [effect for effect in decision.effects if isinstance(effect, TellKnown)]
    return {number_of(pair.task): number_of(pair.known) for pair in pairs}


def said(decision):
    return {number_of(refusal.task): (refusal.code, refusal.field) for refusal in decision.refusals}


CONFLICT = ("conflict", "terms.idempotency_key")


def test_same_content_is_the_same_task_and_other_content_is_an_error():
    machine = a_machine()
    submit(machine, keyed(1, parameters=b'{"a":1}'))
    decision = submit(machine, keyed(2, parameters=b'{"a":1}', priority=4, description="again"))
    assert (known(decision), decision.events, decision.refusals) == ({2: 1}, [], [])
    others: list[dict[str, Any]] = [
        {"parameters": b'{"a":2}'},
        {"capability": "other"},
        {"after": [1]},
        {"parameters_blob": "b" * 64},
    ]
    for number, other in enumerate(others, 3):
        decision = submit(machine, keyed(number, **other))
        assert said(decision) == {number: CONFLICT}
        assert decision.refusals[0].reason == (
            f"task {an_id(1)} has this key and other content; make a new key, or submit the same again"
        )
    assert list(machine.state.tasks) == [an_id(1)]
    check(machine, machine.state)


def test_a_task_that_is_said_again_with_its_key_is_itself():
    machine = a_machine()
    submit(machine, keyed(1))
    decision = submit(machine, keyed(1))
    assert (decision.events, decision.effects, decision.refusals) == ([], [], [])


def test_each_tenant_has_its_own_keys():
    machine = a_machine()
    submit(machine, keyed(1))
    assert known(submit(machine, keyed(2), tenant="other")) == {}
    assert known(submit(machine, keyed(3), tenant="other")) == {3: 2}
    assert known(submit(machine, keyed(4))) == {4: 1}


def test_two_of_one_frame_that_were_submitted_one_by_one():
    """Which frame a submit goes with is chance, and what is said of it must not depend on that."""
    machine = a_machine()
    decision = submit(machine, keyed(1), keyed(2), keyed(3, parameters=b"[]"))
    assert known(decision) == {2: 1}
    assert said(decision) == {3: CONFLICT}
    assert list(machine.state.tasks) == [an_id(1)]


def test_twice_in_a_submit_that_is_taken_as_a_whole_is_a_mistake():
    machine = a_machine()
    decision = submit(machine, keyed(1), keyed(2), atomic=True)
    assert said(decision) == {1: ("batch", "tasks"), 2: CONFLICT}
    assert known(decision) == {}
    assert machine.state.tasks == {}
    submit(machine, keyed(1))
    decision = submit(machine, keyed(3), keyed(4, "l"), atomic=True)
    assert known(decision) == {3: 1}
    assert list(machine.state.tasks) == [an_id(1), an_id(4)]


def test_it_is_known_also_when_it_is_over_and_forgotten():
    machine = a_machine(limits=Limits(finals_max=0))
    attach(machine)
    submit(machine, keyed(1))
    allocate(machine)
    say(machine, reports=[completed(1)])
    assert machine.state.tasks == {}
    assert known(submit(machine, keyed(2))) == {2: 1}


def test_other_leaders_know_the_keys_too():
    machine = a_machine()
    submit(machine, keyed(1), keyed(2, "l"))
    led = a_machine(decode_state(encode_state(machine.state)), epoch=2)
    assert known(submit(led, keyed(3), keyed(4, "l"))) == {3: 1, 4: 2}
    fewer = a_machine(decode_state(encode_state(machine.state)), Limits(keys_max=1), epoch=3)
    submit(fewer, keyed(5, "m"))
    assert list(fewer.state.keys) == [("default", "m")]
    assert fewer.state.keys_forgotten == 2


def test_none_are_kept_where_none_may_be():
    for limits in (Limits(keys_max=0), Limits(keys_ns=0)):
        machine = a_machine(limits=limits)
        submit(machine, keyed(1), keyed(2, "l"))
        assert (machine.state.keys, machine.state.keys_forgotten) == ({}, 2)
        check(machine, machine.state)


def test_as_long_as_it_is_here_it_counts():
    """Beyond its window it would be found in the journal; that it is not forgotten yet must make no difference."""
    machine = a_machine(limits=Limits(keys_ns=SECOND_NS))
    submit(machine, keyed(1))
    later = START_NS + 5 * SECOND_NS
    assert known(submit(machine, keyed(2), now_ns=later)) == {2: 1}
    submit(machine, keyed(3, "l"), now_ns=later)
    assert list(machine.state.keys) == [("default", "l")]
    assert machine.state.keys_forgotten == 1


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([0, 1, 3])), max_size=40))
def test_kept_are_the_youngest_within_the_window(steps):
    limits = Limits(keys_max=3, keys_ns=4 * SECOND_NS)
    machine, now_ns = a_machine(limits=limits), START_NS
    kept: dict[str, tuple[int, int]] = {}
    for number, (key, wait_s) in enumerate(steps):
        now_ns += wait_s * SECOND_NS
        decision = submit(machine, keyed(number, key), now_ns=now_ns)
        assert known(decision) == ({number: kept[key][0]} if key in kept else {})
        if key not in kept:
            kept[key] = (number, now_ns + limits.keys_ns)
            kept = {name: entry for name, entry in kept.items() if entry[1] > now_ns}
            kept = dict(list(kept.items())[-3:])
        assert [name for _, name in machine.state.keys] == list(kept)
