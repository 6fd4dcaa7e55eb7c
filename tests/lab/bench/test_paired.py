"""What is measured in turns."""

import pytest

from merit.lab.bench.paired import cost_pct, loss_pct, measure_pairs


def test_a_cost_is_the_median_of_the_pairs():
    assert cost_pct([(103.0, 100.0), (210.0, 200.0), (1.0, 50.0)]) == pytest.approx(3)
    assert cost_pct([(100.0, 100.0), (110.0, 100.0)]) == pytest.approx(5)


def test_a_loss_is_told_in_what_goes_through():
    assert loss_pct([(2.0, 1.0)]) == pytest.approx(50), "twice as long for each: half as many"
    assert loss_pct([(1.0, 1.0), (5.0, 4.0), (9.0, 1.0)]) == pytest.approx(20)
    assert loss_pct([(1.0, 2.0)]) == pytest.approx(-100), "twice as many"


async def test_slices_come_in_turns_and_it_ends_as_it_began():
    on, said, clock = False, [], 0.0

    async def switch(to: bool) -> None:
        nonlocal on
        assert to is not on or not to
        on = to

    async def measure() -> float:
        nonlocal clock
        said.append(on)
        clock += 1
        return clock

    pairs = await measure_pairs(2, 2, switch, measure)
    assert said == [False, True, True, False] * 2
    assert pairs == [(2 + 3, 1 + 4), (6 + 7, 5 + 8)], "what drifts evenly falls on both alike"
    assert not on
