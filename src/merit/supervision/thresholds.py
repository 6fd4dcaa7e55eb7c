"""The engine that is there when nobody has said anything else: rewards from one score on, punishes up to another."""

from __future__ import annotations

from merit.model.supervision import Policy, Verdict
from merit.supervision.engine import FleetFigures, Opinion, Subject


class Thresholds:
    """Reward from ``reward_at`` on, punish up to ``punish_at``; what lies between them keeps it from going to and fro."""

    def judge(self, subject: Subject, fleet: FleetFigures, policy: Policy) -> Opinion | None:
        """See the class."""
        return by_score(subject, policy, policy.reward_at, policy.punish_at)


def by_score(subject: Subject, policy: Policy, reward_at: int, punish_at: int) -> Opinion | None:
    """What the score says by these thresholds, if there is enough to say it by (``grounded``)."""
    score = subject.score
    figures = (("score", score), ("reward_at", reward_at), ("punish_at", punish_at))
    if score <= punish_at and grounded(subject, policy, Verdict.PUNISH):
        return Opinion(Verdict.PUNISH, f"its score {points(score)} is not above {points(punish_at)}", figures)
    if score >= reward_at and grounded(subject, policy, Verdict.REWARD):
        return Opinion(Verdict.REWARD, f"its score {points(score)} has reached {points(reward_at)}", figures)
    return None


def grounded(subject: Subject, policy: Policy, verdict: Verdict) -> bool:
    """Whether enough has happened since the last decision for this one.

    Time: ``cool_down_ns``. Attempts: ``attempts_min``; for a reward after a punishment also half of those by which the worker
    is judged, so that it is not rewarded by what it was punished for. The other way round it has to be quick, and cannot be
    hasty: between the two scores there are many attempts.
    """
    if subject.last is None:
        return subject.attempts_since >= policy.attempts_min
    turned = verdict is Verdict.REWARD and subject.last is Verdict.PUNISH
    others = (subject.metrics.attempts + 1) // 2 if turned else 0
    return subject.since_ns >= policy.cool_down_ns and subject.attempts_since >= max(policy.attempts_min, others)


def points(score: int) -> str:
    """A score as people read it."""
    return f"{score // 1_000}.{score % 1_000 // 100}"
