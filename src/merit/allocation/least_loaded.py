"""Least loaded: the worker with the smallest share of its concurrency in use; among equals, the one that has been so
for longest."""

from __future__ import annotations

from merit.allocation.ranked import Key, Ranked
from merit.allocation.strategy import Candidate

_STEPS = 8
"""Loads are told apart in eighths of a worker's concurrency …"""
_LEVEL_MAX = 63
"""… up to this level; above it (deep prefetching of very short tasks) all count as equal."""


class LeastLoaded(Ranked):
    """See the module."""

    figure_names = ("load_eighths", "turn")

    def key(self, candidate: Candidate) -> Key:
        level = candidate.live * _STEPS // candidate.concurrency
        if level > _LEVEL_MAX:  # noqa: PLR1730 - `min` takes three times as long, and this runs twice per task
            level = _LEVEL_MAX
        return (level, candidate.turn, candidate.worker)
