"""How far the default strategy is from one queue for all workers, on the real world's work, in virtual time.

Small and large fleets, of equal and of mixed speeds, with much and with very much to do; each the ratio of the mean times
from when a task comes until it is done. Where workers differ, it is chance who of them gets the few large tasks that a
trace has, and which decide its mean; so such a fleet is taken several times, its speeds shuffled among the workers, for
both sides alike, and the means are taken together.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from itertools import product
from typing import Final

from msgspec import Struct

from merit.allocation.catalogue import BUILT_IN, DEFAULT
from merit.lab.bench.central_queue import central_mean_ns, fastest_first
from merit.lab.bench.figures import Figure
from merit.lab.bench.plan import Plan
from merit.lab.bench.strategy_costs import as_name
from merit.lab.bench.traces import Trace, read_traces, synthetic
from merit.lab.bench.virtual_fleet import VirtualFleet

RATIO_MAX: Final = 1.05
_MIXED: Final = (0.5, 1.0, 2.0)
_LOADS: Final = (0.7, 0.9)
_SHUFFLES: Final = 4
_SEED: Final = 4
_OTHERS_TASKS: Final = 4_000
"""Of each trace, for the strategies that have no bar."""

MeanNs = Callable[[Sequence[int], Sequence[int], Sequence[float]], float]
"""From arrivals, work and speeds: the mean time until a task is done."""


class Case(Struct, frozen=True):
    """One comparison."""

    trace: Trace
    workers: int
    mixed: bool
    load: float

    def fleets(self, shuffles: int) -> list[list[float]]:
        """The speeds of the workers, in so many orders as far as that matters."""
        if not self.mixed:
            return [[1.0] * self.workers]
        speeds = [_MIXED[number % len(_MIXED)] for number in range(self.workers)]
        rng = random.Random(_SEED)
        return [rng.sample(speeds, len(speeds)) for _ in range(shuffles)]

    def ratio(self, mean_ns: MeanNs, shuffles: int = _SHUFFLES) -> float:
        """The mean times of this, by those of the central queue."""
        own = central = 0.0
        for speeds in self.fleets(shuffles):
            arrivals_ns, work_ns = self.trace.scaled(self.load, sum(speeds))
            own += mean_ns(arrivals_ns, work_ns, speeds)
            central += central_mean_ns(arrivals_ns, work_ns, speeds)
        return own / central


async def run(plan: Plan) -> list[Figure]:
    """``default_vs_central`` is the worst case of all.

    Raises:
        BadTrace: see ``read_traces``.
    """
    if plan.traces is not None:
        traces, unit = read_traces(plan.traces, plan.trace_tasks), "×"
    else:
        traces, unit = [synthetic(plan.trace_tasks)], "×, synthetic trace"
    worst: dict[str, float] = {}
    fastest = 0.0
    for trace in traces:
        for workers, mixed, load in product(plan.virtual_workers, (False, True), _LOADS):
            case = Case(trace, workers, mixed, load)
            await asyncio.sleep(0)  # whoever wants to end this is heard
            worst[trace.name] = max(worst.get(trace.name, 0.0), case.ratio(_by(DEFAULT)))
            if mixed:  # of equals none is faster
                fastest = max(fastest, case.ratio(_central_fastest_first))
    return [
        Figure("default_vs_central", max(worst.values()), unit, ceiling=RATIO_MAX),
        *(Figure(f"default_vs_central_{name}", ratio, "×") for name, ratio in worst.items()),
        Figure("central_fastest_first_vs_central", fastest, unit),
        *[
            Figure(f"{as_name(strategy)}_vs_central", await _other(plan, traces, strategy), unit)
            for strategy in BUILT_IN
            if strategy != DEFAULT
        ],
    ]


async def _other(plan: Plan, traces: Sequence[Trace], strategy: str) -> float:
    """The worst of the fleets of mixed speeds with very much to do, without shuffling: to show what it is about."""
    worst = 0.0
    for trace, workers in product(traces, plan.virtual_workers):
        await asyncio.sleep(0)
        case = Case(trace.first(_OTHERS_TASKS), workers, True, max(_LOADS))
        worst = max(worst, case.ratio(_by(strategy), 1))
    return worst


def _by(strategy: str) -> MeanNs:
    return lambda arrivals_ns, work_ns, speeds: VirtualFleet(speeds, strategy).mean_ns(arrivals_ns, work_ns)


def _central_fastest_first(arrivals_ns: Sequence[int], work_ns: Sequence[int], speeds: Sequence[float]) -> float:
    return central_mean_ns(arrivals_ns, work_ns, speeds, fastest_first)
