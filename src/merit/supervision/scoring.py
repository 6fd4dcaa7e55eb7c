"""Scores: how well a worker performs, in thousandths of a point between 0 and ``SCORE_MAX``.

A scoring takes points off for what is not as it should be. How many are its weights: thousandths of a point, by name,
each of which an operator can set. Everything is reckoned in whole numbers, so that it is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from merit.model.limits import SECOND_NS
from merit.model.supervision import SCORE_MAX
from merit.supervision.metrics import PERMILLE, Metrics

NO_WEIGHTS: Final[Mapping[str, int]] = MappingProxyType({})
"""An operator has set none."""

USUAL_NS: Final = 5 * SECOND_NS
"""``Reference``: up to this mean time nothing is taken off."""
BUSY_PERMILLE: Final = 600
"""How much of its concurrency a worker should use."""

PRIOR: Final = 70_000
"""``Relative``: the score of whom nobody has seen at work. It is neither rewarded nor punished."""
PRIOR_ATTEMPTS: Final = 10
"""The prior counts as much as so many attempts."""
PRIOR_CHECKS: Final = 10
"""So many right results are taken for granted beside those that were looked at, so that a single wrong one does not decide."""
LATE_PERMILLE_MAX: Final = 2 * PERMILLE
"""More lateness than this takes nothing more off: being slow is not as bad as failing."""


class Scoring(Protocol):
    """Turns metrics into a score. The same metrics and weights give the same score."""

    weights: Mapping[str, int]
    """The weights that it knows, with what they are where an operator has set nothing else."""

    def score(self, metrics: Metrics, weights: Mapping[str, int] = NO_WEIGHTS) -> int:
        """The score, 0 to ``SCORE_MAX``.

        Args:
            metrics: of the worker.
            weights: those that are to be others; names that it does not know are ignored.
        """
        ...


class Reference:
    """The formula of the field: 100 − 80·errors − 2·max(0, time − 5 s) − 30·abs(utilisation − 0.6) + 2·(completed − failed).

    Errors (a share), mean time (in seconds) and utilisation (a share) are those of the last attempts, the last two count
    where they are above 0; completed and failed attempts are those of the whole life. Without history: 100. It is here for
    comparison: it puts newcomers at the top, calls whatever takes long slow, and forgives anything for mere volume (after
    50 completed attempts all errors that the window can hold).

    ============ ================================================================ ======
    weight       points, thousandths                                              usually
    ============ ================================================================ ======
    errors       if all attempts fail                                             80,000
    time         for each second of the mean time above 5                          2,000
    utilisation  for all of the concurrency, as distance from 0.6                 30,000
    volume       given for each completed attempt, taken for each that failed      2,000
    ============ ================================================================ ======
    """

    weights: Mapping[str, int] = MappingProxyType(
        {"errors": 80_000, "time": 2_000, "utilisation": 30_000, "volume": 2_000}
    )

    def score(self, metrics: Metrics, weights: Mapping[str, int] = NO_WEIGHTS) -> int:
        """See the class; rounded down once, at the end."""
        weight = {**self.weights, **weights}
        attempts = metrics.attempts or 1
        # All over one denominator, so that nothing is rounded on the way.
        sum_ = (SCORE_MAX + weight["volume"] * (metrics.life_completed - metrics.life_failed)) * attempts * SECOND_NS
        sum_ -= weight["errors"] * metrics.failed * SECOND_NS
        sum_ -= weight["time"] * max(0, metrics.mean_ns - USUAL_NS) * attempts
        if metrics.utilisation_permille:
            off = abs(metrics.utilisation_permille - BUSY_PERMILLE)
            sum_ -= weight["utilisation"] * off * attempts * (SECOND_NS // PERMILLE)
        return clamped(sum_ // (attempts * SECOND_NS))


class Relative:
    """The default. It corrects what is wrong in ``Reference``:

    * Time counts in relation to what the task should take: who does what takes an hour in an hour is not slow.
    * Volume gives nothing: who has done a lot can turn bad, and who is new can be good.
    * Few attempts say little: the score is the mean of what they say and of ``PRIOR``, which weighs as much as
      ``PRIOR_ATTEMPTS`` of them. So a newcomer starts in the middle, and is at 85 after ten faultless attempts.
    * Quality counts more than anything: what fails is tried again, but what is wrong goes out to whoever asked for it. Few
      checks say little as well (``PRIOR_CHECKS``). Of the right results too many to remember, that a worker has turned bad
      is a matter of reputation, which forgets.
    * What it is given is not its doing, so utilisation counts nothing unless an operator wants it to.

    ============ ================================================================ =======
    weight       points, thousandths, are taken off                               usually
    ============ ================================================================ =======
    errors       if all of the last attempts failed                               120,000
    lateness     for each time as long as it should take beyond the first, up to   30,000
                 two: three times as long is 60 points
    quality      if all results that were looked at closely were wrong            300,000
    lost         if all of the last attempts were lost, beside the errors that     40,000
                 they are: what is lost is noticed late
    utilisation  for all of the concurrency, as distance from 0.6                       0
    ============ ================================================================ =======

    Over a full window and by itself: 10 % of errors give 85 points, 20 % 75, 46 % 49; twice the time 70, three times 45; of
    200 results that were looked at 5 % wrong ones 83, 20 % 47.
    """

    weights: Mapping[str, int] = MappingProxyType(
        {"errors": 120_000, "lateness": 30_000, "quality": 300_000, "lost": 40_000, "utilisation": 0}
    )

    def score(self, metrics: Metrics, weights: Mapping[str, int] = NO_WEIGHTS) -> int:
        """See the class; each part is rounded down."""
        weight = {**self.weights, **weights}
        attempts, checks = metrics.attempts, metrics.checked + PRIOR_CHECKS
        late = min(max(0, metrics.lateness_permille - PERMILLE), LATE_PERMILLE_MAX)
        off = abs(metrics.utilisation_permille - BUSY_PERMILLE) if metrics.utilisation_permille else 0
        seen = SCORE_MAX
        seen -= weight["errors"] * metrics.failed // (attempts or 1)
        seen -= weight["lateness"] * late // PERMILLE
        seen -= weight["quality"] * metrics.checked * (PERMILLE - metrics.quality_permille) // (PERMILLE * checks)
        seen -= weight["lost"] * (PERMILLE - metrics.availability_permille) // PERMILLE
        seen -= weight["utilisation"] * off // PERMILLE
        return clamped((clamped(seen) * attempts + PRIOR * PRIOR_ATTEMPTS) // (attempts + PRIOR_ATTEMPTS))


def clamped(score: int) -> int:
    """Within the bounds of scores."""
    return max(0, min(score, SCORE_MAX))
