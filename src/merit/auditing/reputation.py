"""The models of reputation that come with Merit, and how what a worker is worth at several things becomes one rating."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from merit.auditing.credible import ONE, Beta
from merit.auditing.evidence import Outcomes
from merit.model.track_record import UNKNOWN, Rating

_PERMILLE: Final = 1_000

_START: Final = 500
_SUCCESS: Final = 100
_SLOW_SUCCESS: Final = 50
_FAILURE: Final = 200
_COUNTED_MAX: Final = 1_000

_NEW: Final = (_START, 0, 0)
_BLANK: Final = (0, 0, 0, 0, 0, 0)
"""What is remembered at first; also in place of what another model has remembered."""


class SimpleReputation:
    """The simple rule: starts at 0.5; a success adds 0.1, a slow one 0.05; a failure, whatever it is, takes 0.2; never
    outside of 0 and 1. What comes together is added up first, so that its order does not matter.

    No probability stands behind its bounds: they are where it would be if it had done badly, or well, once more than it has,
    as a mean. So they are far apart for one of whom little is known.
    """

    def learn(self, memory: tuple[int, ...], evidence: Outcomes) -> tuple[int, ...]:
        """Remembers the value, and how often the worker has done well and badly, up to a bound."""
        value, well, badly = _own(memory, _NEW)
        bad = evidence.failed + evidence.rejected + evidence.wrong
        gain = _SUCCESS * evidence.completed - (_SUCCESS - _SLOW_SUCCESS) * evidence.slow
        value = min(max(value + gain - _FAILURE * bad, 0), _PERMILLE)
        return (value, min(well + evidence.completed, _COUNTED_MAX), min(badly + bad, _COUNTED_MAX))

    def rating(self, memory: tuple[int, ...]) -> Rating:
        value, well, badly = _own(memory, _NEW)
        if not well and not badly:
            return UNKNOWN
        return Rating(value, value * well // (well + 1), value - (value - _PERMILLE) // (badly + 1))


class BetaReputation:
    """Beta reputation with forgetting (Jøsang, Ismail: The beta reputation system, 2002): the chance that an attempt of the
    worker ends with a right result.

    It is the product of two chances, since they are seen unequally often: whether an attempt comes to a result at all is
    known of each one, whether a result is right only of those that were looked at closely. (In one sum, a worker of whose
    results few are looked at would seem to fail at nearly all that is known of it.)

    * **Results**: right and wrong ones among those looked at closely. A wrong one weighs as much as three right ones. A hundred
      others, accepted by checks that cost nothing, weigh together as much as one right one, and more than that they never do:
      what nobody looks at makes nobody trusted.
    * **Attempts**: accepted ones, and those that failed or were rejected; a rejected one weighs twice: somebody thought that
      it was good.

    Of slow results only half counts in favour of the worker. Only so much is remembered: what is more is scaled down, so
    that old work fades as new work comes. Since one that was good for long would then be trusted for long after it has turned
    bad, its last results are remembered once more by themselves, and it is never trusted further than they allow: not
    beyond their upper bound, and not for sure beyond their mean.

    Who is unknown has 0 as lower bound; no record makes it lower. The bounds would hold the truth in nine cases of ten if wrong
    results weighed no more than right ones; as it is they lean to the safe side. The numbers were chosen by what
    ``merit bench merit`` simulates, with other seeds.
    """

    results_max: Final = 50 * ONE
    lately_max: Final = 10 * ONE
    attempts_max: Final = 100 * ONE
    wrong: Final = 3 * ONE
    rejected: Final = 2 * ONE
    unseen: Final = ONE // 100
    """What a result that only passed checks that cost nothing weighs among those looked at."""

    def learn(self, memory: tuple[int, ...], evidence: Outcomes) -> tuple[int, ...]:
        """Remembers what speaks for and against results, the last results and attempts, in millionths."""
        right, wrong, right_lately, wrong_lately, done, undone = _own(memory, _BLANK)
        completed, slow = evidence.completed, min(evidence.slow, evidence.completed)
        quick = ONE - ONE * slow // (2 * completed) if completed else ONE
        more_right, more_wrong = quick * evidence.passed, self.wrong * evidence.wrong
        more_undone = ONE * evidence.failed + self.rejected * evidence.rejected
        return (
            *_remembered(right + more_right, wrong + more_wrong, self.results_max),
            *_remembered(right_lately + more_right, wrong_lately + more_wrong, self.lately_max),
            *_remembered(done + quick * completed, undone + more_undone, self.attempts_max),
        )

    def rating(self, memory: tuple[int, ...]) -> Rating:
        memory = _own(memory, _BLANK)
        if memory == _BLANK:
            return UNKNOWN
        right, wrong, right_lately, wrong_lately, done, undone = memory
        results = Beta(ONE + right + done * self.unseen // ONE, ONE + wrong)
        attempts = Beta(ONE + done, undone)
        whole, lately = results.and_also(attempts).rating(), Beta(ONE + right_lately, ONE + wrong_lately).rating()
        value = min(whole.value, lately.high)
        return Rating(value, min(whole.low, lately.value, value), max(min(whole.high, lately.high), value))


def overall(rated: Iterable[tuple[Rating, int]]) -> Rating:
    """One rating of a worker from those at several things, each with a weight: how often it does them.

    The mean of each of the three. So the bounds are wider than if the ratings had nothing to do with each other, and never
    too narrow: whoever is well known at what it hardly ever does is not trusted for it elsewhere.
    """
    value = low = high = total = 0
    for rating, weight in rated:
        value += rating.value * weight
        low += rating.low * weight
        high += rating.high * weight
        total += weight
    return Rating(value // total, low // total, -(-high // total)) if total else UNKNOWN


def _own(memory: tuple[int, ...], at_first: tuple[int, ...]) -> tuple[int, ...]:
    return memory if len(memory) == len(at_first) else at_first


def _remembered(good: int, bad: int, most: int) -> tuple[int, int]:
    """Both, scaled down if together they are more than that."""
    total = good + bad
    return (good * most // total, bad * most // total) if total > most else (good, bad)
