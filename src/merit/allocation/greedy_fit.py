"""Greedy fit: the worker whose free cpu, memory and network are nearest to what the task needs; among equals, the one that
waits longest.

Small tasks fill up what others have left over, and whoever has much free keeps it for tasks that need much. Where
tasks name no resources all fit alike, and it is round robin.
"""

from __future__ import annotations

from merit.allocation.ranked import Key, Ranked
from merit.allocation.strategy import Candidate


class GreedyFit(Ranked):
    """See the module."""

    figure_names = ("misfit_permille", "turn")

    def key(self, candidate: Candidate) -> Key:
        return (candidate.misfit_permille, candidate.turn, candidate.worker)
