"""Least loaded: the worker with the smallest share in use of the concurrency that it has earned; among equals, the one that
has been so for longest. A critical task goes to whoever performs best of those that could begin at once (``best_score``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from merit.allocation.best_score import BestScore
from merit.allocation.ranked import Key, Ranked
from merit.allocation.strategy import PLAIN, Candidate, Wish
from merit.allocation.weights import NO_WEIGHTS

_STEPS = 8
"""Loads are told apart in eighths of a worker's concurrency …"""
_LEVEL_MAX = 63
"""… up to this level; above it (deep prefetching of very short tasks) all count as equal."""


class LeastLoaded(Ranked):
    """See the module."""

    figure_names = ("load_eighths", "turn")

    def __init__(self, weights: Mapping[str, int] = NO_WEIGHTS) -> None:
        super().__init__(weights)
        self._best: BestScore | None = None
        """Made with the first critical task: most lines never see one."""

    def key(self, candidate: Candidate) -> Key:
        level = candidate.live * _STEPS // candidate.concurrency
        if level > _LEVEL_MAX:  # noqa: PLR1730 - `min` takes three times as long, and this runs twice per task
            level = _LEVEL_MAX
        return (level, candidate.turn, candidate.worker)

    def place(self, candidate: Candidate) -> None:
        # As `Ranked` has it: a call less, twice per task.
        worker = candidate.worker
        self._placed[worker] = candidate
        self._changed[worker] = None
        if self._best is not None:
            self._best.place(candidate)

    def remove(self, worker: str) -> None:
        super().remove(worker)
        if self._best is not None:
            self._best.remove(worker)

    def choose(self, wish: Wish = PLAIN, avoid: Collection[str] = ()) -> str | None:
        return super().choose(wish, avoid) if wish is PLAIN or not wish.critical else self._order().choose(PLAIN, avoid)

    def figures(self, candidate: Candidate, wish: Wish) -> Mapping[str, int]:
        return self._order().figures(candidate, PLAIN) if wish.critical else super().figures(candidate, wish)

    def _order(self) -> BestScore:
        if self._best is None:
            self._best = BestScore()
            for candidate in self._placed.values():
                self._best.place(candidate)
        return self._best
