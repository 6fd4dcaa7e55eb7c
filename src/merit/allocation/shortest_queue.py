"""Shortest queue: the worker with the fewest attempts, whatever its concurrency; among equals, the one that has been
as it is for longest.

For workers that are alike, or whose concurrency says little. Where it differs, least loaded spreads better.
"""

from __future__ import annotations

from merit.allocation.ranked import Key, Ranked
from merit.allocation.strategy import Candidate


class ShortestQueue(Ranked):
    """See the module."""

    figure_names = ("live", "turn")

    def key(self, candidate: Candidate) -> Key:
        return (candidate.live, candidate.turn, candidate.worker)
