"""Round robin: the worker that has waited longest since it was given something."""

from __future__ import annotations

from merit.allocation.ranked import Key, Ranked
from merit.allocation.strategy import Candidate


class RoundRobin(Ranked):
    """See the module."""

    figure_names = ("given",)

    def key(self, candidate: Candidate) -> Key:
        return (candidate.given, candidate.worker)
