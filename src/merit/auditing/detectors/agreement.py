"""How often two workers give the same answer, and how often they should."""

from __future__ import annotations

from typing import Final

from merit.auditing.detecting import at_most
from merit.auditing.detectors.lately import PAIRS_MAX, WORKERS_MAX, HitShare, Lately, RecentCases

_TOLERANCE: Final = 2.0
"""Two may agree with odds so many times as large as what their agreement with others tells."""
_USUAL_MIN: Final = 0.02
_USUAL_MAX: Final = 0.98
_PRIOR: Final = 5
_CAPABILITIES_MAX: Final = 256
_GOOD: Final = 0.8
"""Of the usual rate: who agrees with others less often is nobody to be measured by."""


class _Partners:
    """A worker and those with which it was compared."""

    __slots__ = ("recent", "share")

    def __init__(self) -> None:
        self.share = HitShare()
        self.recent = RecentCases()

    def note(self, partner: str, same: bool) -> None:
        self.share.note(same)
        self.recent.note(partner, same)


class Agreement:
    """Of all pairs of workers that were asked the same.

    If each gives the right answer with a chance of its own, whatever the others do, then the chance that two agree is the
    product of both chances; so it follows from how often each of them agrees with third ones, and all with all: rate × rate ÷
    rate of all. That holds as well where some questions are harder than others, which is what makes honest workers seem to
    err together (a model of rank one, as the agreement between coders is corrected for chance in Cohen: A coefficient of
    agreement for nominal scales, 1960, but by what each is known for).
    """

    def __init__(self, *, by_the_good: bool) -> None:
        """``by_the_good``: all are measured by those who agree with most others, so that those who conspire do not count for each
        other. That needs work in which most agree."""
        self._by_the_good = by_the_good
        self._all: Lately[str, HitShare] = Lately(_CAPABILITIES_MAX, HitShare)
        self._each: Lately[tuple[str, str], _Partners] = Lately(WORKERS_MAX, _Partners)
        self._pairs: Lately[tuple[str, str, str], HitShare] = Lately(PAIRS_MAX, HitShare)

    def usual(self, capability: str, one: str, other: str) -> float:
        """With which chance two that have nothing to do with each other agree at most."""
        everybody = self._all.of(capability)
        rate = (everybody.hits + 1) / (everybody.cases + 2)
        pair = self._pairs.of(_pair(capability, one, other))
        rates = []
        for worker, partner in ((one, other), (other, one)):
            partners = self._each.of((capability, worker))
            # Ever, or of late if that is more: it may have become better.
            rates.append(max(partners.share.rate(_PRIOR, rate, pair), partners.recent.rate_without(partner)))
        product = rates[0] * rates[1]
        return min(max(at_most(min(product / rate, 1.0), _TOLERANCE), _USUAL_MIN), _USUAL_MAX)

    def note(self, capability: str, one: str, other: str, same: bool) -> None:
        """They were asked the same."""
        one_good, other_good = self.is_good(capability, one), self.is_good(capability, other)
        if one_good and other_good:
            self._all.of(capability).note(same)
        if other_good:
            self._each.of((capability, one)).note(other, same)
        if one_good:
            self._each.of((capability, other)).note(one, same)
        if one_good or other_good:
            self._pairs.of(_pair(capability, one, other)).note(same)

    def is_good(self, capability: str, worker: str) -> bool:
        """Whether others are measured by it."""
        everybody = self._all.of(capability)
        rate = (everybody.hits + 1) / (everybody.cases + 2)
        return not self._by_the_good or self._each.of((capability, worker)).share.rate(_PRIOR, rate) >= _GOOD * rate


def suspected(usual: float) -> float:
    """With which chance two agree of which one copies, or both lie, most of the time."""
    return 1 - (1 - usual) / 5


def _pair(capability: str, one: str, other: str) -> tuple[str, str, str]:
    return (capability, one, other) if one < other else (capability, other, one)
