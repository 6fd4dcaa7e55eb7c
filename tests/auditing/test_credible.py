"""The bounds are held against exact ones, which are reckoned here slowly."""

from collections import defaultdict
from fractions import Fraction
from functools import cache
from itertools import product
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merit.auditing.credible import ONE, Beta

WHOLE = (1, 2, 3, 5, 9, 20, 45, 60)


@cache
def quantile(good, bad, twentieths):
    """Below which so many twentieths of the beta distribution with these whole parameters lie: its integral is the chance of
    ``good`` or more out of one trial less than there are. To half a thousandth."""
    trials = good + bad - 1

    def integral(x):
        return sum(comb(trials, count) * x**count * (1 - x) ** (trials - count) for count in range(good, trials + 1))

    low, high = Fraction(0), Fraction(1)
    while high - low > Fraction(1, 1_024):
        middle = (low + high) / 2
        low, high = (middle, high) if integral(middle) < Fraction(twentieths, 20) else (low, middle)
    return float((low + high) / 2 * 1_000)


def test_bounds_are_as_near_to_the_exact_ones_as_is_said():
    worst: dict[int, float] = defaultdict(float)
    for good, bad in product(WHOLE, WHOLE):
        rating = Beta(good * ONE, bad * ONE).rating()
        off = max(abs(rating.low - quantile(good, bad, 1)), abs(rating.high - quantile(good, bad, 19)))
        for trials in (2, 10, 20, 50):
            if good + bad >= trials:
                worst[trials] = max(worst[trials], off)
    assert worst[2] <= 45
    assert worst[10] <= 10
    # Half a thousandth of the reference, and up to one of rounding outwards.
    assert worst[20] <= 4 + 0.5
    assert worst[50] <= 2 + 0.5


@pytest.mark.parametrize(("one", "other"), [((9, 2), (15, 1)), ((2, 2), (2, 2)), ((46, 3), (60, 9)), ((30, 1), (5, 5))])
def test_bounds_of_two_chances_together_are_near_the_exact_ones(one, other):
    """Their distribution by adding up over a fine grid of both."""
    steps = 800
    shares = [
        [((at + 0.5) / steps) ** (a - 1) * (1 - (at + 0.5) / steps) ** (b - 1) for at in range(steps)]
        for a, b in (one, other)
    ]
    below = [0.0] * (steps + 1)
    for first, weight in enumerate(shares[0]):
        for second, other_weight in enumerate(shares[1]):
            below[int((first + 0.5) * (second + 0.5) / steps)] += weight * other_weight
    total, so_far, bounds = sum(below), 0.0, []
    for at, weight in enumerate(below):
        if any(so_far < total * share <= so_far + weight for share in (0.05, 0.95)):
            bounds.append(1_000 * at / steps)
        so_far += weight
    rating = Beta(one[0] * ONE, one[1] * ONE).and_also(Beta(other[0] * ONE, other[1] * ONE)).rating()
    assert [rating.low, rating.high] == pytest.approx(bounds, abs=25)
    assert rating.value == pytest.approx(1_000 * one[0] * other[0] / (sum(one) * sum(other)), abs=1)


PARAMETER = st.integers(ONE // 2, 200 * ONE)


@given(PARAMETER, PARAMETER)
def test_bounds_stand_round_the_mean(a, b):
    rating = Beta(a, b).rating()
    assert 0 <= rating.low <= rating.value <= rating.high <= 1_000
    mirrored = Beta(b, a).rating()
    assert abs(rating.low + mirrored.high - 1_000) <= 1
    assert abs(rating.high + mirrored.low - 1_000) <= 1


@given(PARAMETER, PARAMETER, PARAMETER, PARAMETER)
@settings(max_examples=300)
def test_two_chances_together_are_less_than_either(a, b, c, d):
    one, other = Beta(a, b), Beta(c, d)
    together = one.and_also(other)
    assert together.permille <= min(one.permille, other.permille)
    assert together.a > 0
    assert together.b > 0
    assert one.and_also(Beta(c, 0)) == one
