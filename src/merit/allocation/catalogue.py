"""The strategies that come with Merit. Others are registered by the entry point group ``merit.strategies``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from merit.allocation.best_score import BestScore
from merit.allocation.capability_load import CapabilityLoad
from merit.allocation.direct import Direct
from merit.allocation.greedy_fit import GreedyFit
from merit.allocation.least_expected import LeastExpected
from merit.allocation.least_loaded import LeastLoaded
from merit.allocation.round_robin import RoundRobin
from merit.allocation.shortest_queue import ShortestQueue
from merit.allocation.strategy import MakeStrategy
from merit.allocation.two_choices import TwoChoices
from merit.allocation.weighted import Weighted

DEFAULT = "least-loaded"
"""Where nobody has said anything else."""

BUILT_IN: Mapping[str, MakeStrategy] = MappingProxyType(
    {
        DEFAULT: LeastLoaded,
        "direct": Direct,
        "round-robin": RoundRobin,
        "shortest-queue": ShortestQueue,
        "capability-load": CapabilityLoad,
        "best-score": BestScore,
        "weighted": Weighted,
        "two-choices": TwoChoices,
        "least-expected": LeastExpected,
        "greedy-fit": GreedyFit,
    }
)
"""By the name that tasks and settings give."""
