"""Best score: of the workers that could begin at once, the one that performs best; scores are told apart by five points, so
that equals share the work: among them, the smallest share of its concurrency in use, then the one that waits longest."""

from __future__ import annotations

from merit.allocation.ranked import Key, Ranked
from merit.allocation.strategy import PERMILLE, Candidate

_STEP = 5_000
_BEST = 100_000 // _STEP


class BestScore(Ranked):
    """See the module."""

    figure_names = ("busy", "steps_below_best", "load_permille", "turn")

    def key(self, candidate: Candidate) -> Key:
        live, concurrency = candidate.live, candidate.concurrency
        return (
            int(live >= concurrency),
            _BEST - candidate.score // _STEP,
            live * PERMILLE // concurrency,
            candidate.turn,
            candidate.worker,
        )
