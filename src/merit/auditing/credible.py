"""Between which bounds a chance lies that one knows of only by a few trials, in whole numbers.

A chance of which nothing is known beforehand and that has come out well ``good`` times and badly ``bad`` times has a beta
distribution with parameters ``good + 1`` and ``bad + 1``. Its bounds with nine tenths of it between them, a twentieth on
either side, would take an inverse of the incomplete beta function; here they are those of the expansion of Cornish and
Fisher (Moments and cumulants in the specification of distributions, 1938) by the first four cumulants, which needs one
square root. With both parameters at least 1 and together at least 10 it is at most 10 thousandths off, from 20 on 4, from 50
on 2, and for fewer trials at most 45 (``tests/auditing/test_credible.py``).
"""

from __future__ import annotations

from math import isqrt
from typing import Final

from msgspec import Struct

from merit.model.track_record import Rating

ONE: Final = 1_000_000
"""Trials are counted in millionths."""
_PERMILLE: Final = 1_000
_FINE: Final = 10**12
"""Shares are reckoned in this unit."""

# With z, beyond which lies a twentieth of the normal distribution: z, (z² - 1) / 3, (z³ - 3z) / 4 and (2z³ - 5z) / 9.
_DEVIATIONS: Final = 1_644_853_626_951
_SKEW: Final = 568_514_484_698
_PEAK: Final = -121_084_479_378
_TAILS: Final = 75_130_865_770


class Beta(Struct, frozen=True, gc=False):
    """What is known of a chance: both parameters in millionths, ``a`` above 0."""

    a: int
    b: int

    @property
    def permille(self) -> int:
        """The mean."""
        return _PERMILLE * self.a // (self.a + self.b)

    def and_also(self, other: Beta) -> Beta:
        """The chance that both of two things come out well which have nothing to do with each other: not a beta distribution,
        but near the one that has its mean and variance (Fan: The distribution of the product of independent beta
        variables, 1991)."""
        total, others = self.a + self.b, other.a + other.b
        if not self.b or not other.b:
            return other if not self.b else self
        mean = _FINE * self.a * other.a // (total * others)
        # The mean of the square is that of the chance times this.
        again = _FINE * (self.a + ONE) * (other.a + ONE) // ((total + ONE) * (others + ONE))
        trials = ONE * (_FINE - again) // (again - mean)
        a = max(1, trials * mean // _FINE)
        return Beta(a, trials - a)

    def rating(self) -> Rating:
        """The mean and the bounds, in thousandths, rounded outwards."""
        a, b = self.a, self.b
        if not b:
            return Rating(_PERMILLE, _PERMILLE, _PERMILLE)
        total, value = a + b, self.permille
        middle = _FINE * a // total + _SKEW * (b - a) * ONE // (total * (total + 2 * ONE))
        deviation = isqrt(_FINE * _FINE * ONE * a * b // (total * total * (total + ONE)))
        # How much more peak and tails weigh than those of a normal distribution.
        uneven = ONE * (b - a) ** 2 * (total + ONE)
        even = a * b * (total + 2 * ONE)
        peak = _PEAK * (uneven - ONE * even) // (even * (total + 3 * ONE))
        tails = _TAILS * uneven // (even * (total + 2 * ONE))
        reach = deviation * max(0, _DEVIATIONS + peak - tails) // _FINE
        low = _PERMILLE * (middle - reach) // _FINE
        high = -(-_PERMILLE * (middle + reach) // _FINE)
        return Rating(value, min(max(low, 0), value), max(min(high, _PERMILLE), value))
