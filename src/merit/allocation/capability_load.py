"""Capability and load: the smallest share of its concurrency in use, told apart in thousandths; among equals, the one whose
work at this capability is trusted most, then the one that likes this kind of work most, then the one that waits longest."""

from __future__ import annotations

from merit.allocation.ranked import Key, Ranked
from merit.allocation.strategy import PERMILLE, Candidate


class CapabilityLoad(Ranked):
    """See the module."""

    figure_names = ("load_permille", "distrust_permille", "reluctance_permille", "turn")

    def key(self, candidate: Candidate) -> Key:
        return (
            candidate.live * PERMILLE // candidate.concurrency,
            PERMILLE - candidate.reputation,
            PERMILLE - candidate.preference_permille,
            candidate.turn,
            candidate.worker,
        )
