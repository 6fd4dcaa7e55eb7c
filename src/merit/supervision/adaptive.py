"""The engine that goes by the others: what is good and what is bad depends on the fleet, its load and its objectives."""

from __future__ import annotations

from typing import Final

from merit.model.supervision import FACTOR_ONE, SCORE_MAX, Policy, Verdict
from merit.supervision.engine import FleetFigures, Opinion, Subject
from merit.supervision.metrics import PERMILLE
from merit.supervision.thresholds import by_score

FLEET_MIN: Final = 8
"""Percentiles of fewer workers say nothing."""
BEST_PERMILLE: Final = 750
"""Who is among the best quarter is rewarded, …"""
WORST_PERMILLE: Final = 100
"""… and who is among the worst tenth is punished, …"""
BAND: Final = 10_000
"""… but by no more than this above or below what the operator has set: of workers who are all good nobody is punished for
being the last of them, and of workers who are all bad nobody is rewarded for being the first."""
PEAK_FROM_PERMILLE: Final = 800
"""From this load on every worker is needed: the threshold of punishment falls, at full load by ``RELIEF``."""
RELIEF: Final = 10_000
STRICTNESS: Final = 10_000
"""By so much it rises when an objective's error budget is spent twice, in so far as there is no peak to blame."""
GAP_MIN: Final = 25_000
"""There is always so much between the two thresholds: a worker that stays as it is does not go to and fro between them."""
UNUSED_PERMILLE: Final = 200
"""Who uses less of its concurrency than this has no use for more of it."""
BROKEN_PERMILLE: Final = 400
"""Who fails so much of what it tried lately …"""
PROVEN_PERMILLE: Final = 800
"""… although it did so much of its life's work well is broken rather than bad: it is told to start anew, once."""
UNLEARNT_PERMILLE: Final = 700
"""Whose results are right less often than this, though it completes what it tries, …"""
UNLEARNT_CHECKS: Final = 10
"""… if so many were looked at, is told to learn again, once."""


class Adaptive:
    """Thresholds from the percentiles of the fleet, load and objectives; see the constants of this module.

    A worker that would be punished although it was good, or whose work is finished but wrong, is first told to start
    anew or to learn again (RESET, RETRAIN): once, before the punishments begin.
    """

    def judge(self, subject: Subject, fleet: FleetFigures, policy: Policy) -> Opinion | None:
        """See the class."""
        reward_at, punish_at = thresholds(fleet, policy)
        if subject.factor < FACTOR_ONE:
            # Back to where all began it gets by being good, without being among the best.
            reward_at = max(min(reward_at, policy.reward_at), punish_at + GAP_MIN)
        opinion = by_score(subject, policy, reward_at, punish_at)
        if opinion is None:
            return None
        if opinion.verdict is Verdict.REWARD and _has_enough(subject):
            return None
        if opinion.verdict is Verdict.PUNISH:
            opinion = _remedy(subject) or opinion
        context = (("load_permille", fleet.load_permille), ("fleet", len(fleet.scores)))
        return Opinion(opinion.verdict, opinion.reason, opinion.figures + context)


def thresholds(fleet: FleetFigures, policy: Policy) -> tuple[int, int]:
    """From which score on workers of this fleet are rewarded, and up to which they are punished."""
    reward_at, punish_at = policy.reward_at, policy.punish_at
    if len(fleet.scores) >= FLEET_MIN:
        reward_at = _near(_percentile(fleet.scores, BEST_PERMILLE), reward_at)
        punish_at = _near(_percentile(fleet.scores, WORST_PERMILLE), punish_at)
    peak = max(0, min(fleet.load_permille, PERMILLE) - PEAK_FROM_PERMILLE) * PERMILLE // (PERMILLE - PEAK_FROM_PERMILLE)
    punish_at += STRICTNESS * _overspent_permille(fleet) * (PERMILLE - peak) // PERMILLE**2
    punish_at = max(0, min(punish_at - RELIEF * peak // PERMILLE, SCORE_MAX - GAP_MIN))
    return max(reward_at, punish_at + GAP_MIN), punish_at


def _near(score: int, middle: int) -> int:
    return max(middle - BAND, min(score, middle + BAND))


def _percentile(ascending: tuple[int, ...], permille: int) -> int:
    """The nearest rank: the smallest value that so many are not above."""
    return ascending[max(0, (len(ascending) * permille + PERMILLE - 1) // PERMILLE - 1)]


def _overspent_permille(fleet: FleetFigures) -> int:
    """How far the error budget of the worst objective is overspent: 0 if none is, 1,000 if twice its budget is gone."""
    worst = 0
    for objective, reached in fleet.objectives:
        budget = max(1, PERMILLE - objective.share_permille)
        worst = max(worst, (PERMILLE - reached - budget) * PERMILLE // budget)
    return min(worst, PERMILLE)


def _has_enough(subject: Subject) -> bool:
    used = subject.metrics.utilisation_permille
    return subject.factor >= FACTOR_ONE and 0 < used < UNUSED_PERMILLE


def _remedy(subject: Subject) -> Opinion | None:
    """What might help and was not tried last."""
    metrics, score = subject.metrics, ("score", subject.score)
    life = metrics.life_completed + metrics.life_failed
    if subject.last in {Verdict.RESET, Verdict.RETRAIN, Verdict.PUNISH}:
        return None
    if metrics.error_permille >= BROKEN_PERMILLE and metrics.life_completed * PERMILLE >= PROVEN_PERMILLE * life:
        figures = (score, ("error_permille", metrics.error_permille), ("life_attempts", life))
        return Opinion(Verdict.RESET, "it fails a lot, and used to fail little", figures)
    if metrics.checked >= UNLEARNT_CHECKS and metrics.quality_permille < UNLEARNT_PERMILLE:
        figures = (score, ("quality_permille", metrics.quality_permille), ("checked", metrics.checked))
        return Opinion(Verdict.RETRAIN, "it finishes its work, but too much of it is wrong", figures)
    return None
