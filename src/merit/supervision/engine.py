"""What the machine asks of a decision engine: whether a worker is to be rewarded or punished.

An engine has an opinion; what follows from it (by how much the factor changes, when a worker is paused, what is never
done to the last one of a capability) is the same for all engines and stands in ``merit.supervision.sanctions``.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from merit.model.supervision import Objective, Policy, Verdict
from merit.model.track_record import UNKNOWN, Rating
from merit.supervision.metrics import Metrics


class Subject(Struct, frozen=True, kw_only=True):
    """A worker as an engine sees it."""

    worker: str
    score: int
    """Thousandths of a point."""
    factor: int
    """Thousandths."""
    metrics: Metrics
    """Over all its capabilities."""
    rating: Rating = UNKNOWN
    """Over all its capabilities."""
    last: Verdict | None = None
    """What was decided about it last."""
    since_ns: int = 0
    """Time since then."""
    attempts_since: int = 0
    """Attempts that have ended since then."""


class FleetFigures(Struct, frozen=True, kw_only=True):
    """What an engine may know of the others."""

    scores: tuple[int, ...] = ()
    """The scores of all workers that are here and have one, in ascending order."""
    load_permille: int = 0
    """Share of all workers' concurrency that is in use."""
    backlog: int = 0
    """Pending tasks."""
    objectives: tuple[tuple[Objective, int], ...] = ()
    """Each with the share that was reached, in thousandths."""


class Opinion(Struct, frozen=True):
    """What an engine thinks. ``verdict``: REWARD, PUNISH, RESET or RETRAIN. ``figures``: what it went by, by name."""

    verdict: Verdict
    reason: str
    figures: tuple[tuple[str, int], ...] = ()


class DecisionEngine(Protocol):
    """Looks at one worker at a time. The same view gives the same opinion: an engine keeps nothing between two calls."""

    def judge(self, subject: Subject, fleet: FleetFigures, policy: Policy) -> Opinion | None:
        """What is to be done, or None: nothing.

        Args:
            subject: the worker.
            fleet: all of them.
            policy: the numbers that the operator has set.
        """
        ...
