"""Whatever is said to the machine in whatever order: the invariants hold, and the state is the fold of the events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.core.invariants import InvariantBroken, check
from merit.testing.builders import a_machine, a_spec, allocate, an_id, attach, submit
from tests.core.any_order import AnyOrder, BusyFleet


@given(st.randoms(use_true_random=True))
@settings(max_examples=120)
def test_whatever_is_said_in_whatever_order(rng):
    AnyOrder(rng).run()


@given(st.randoms(use_true_random=True))
@settings(max_examples=100)
def test_whoever_stays_gets_the_tasks_that_it_can_do(rng):
    BusyFleet(rng).run()


def test_an_invariant_names_what_broke_with_its_story():
    machine = a_machine()
    attach(machine)
    submit(machine, a_spec(1))
    allocate(machine)
    machine.state.workers["w1"].attempts.clear()
    with pytest.raises(InvariantBroken, match="attempt 1 lives, but w1 has None") as broken:
        check(machine, machine.state)
    assert an_id(1) in broken.value.about
    assert any("on w1 assigned" in line for line in broken.value.story)
