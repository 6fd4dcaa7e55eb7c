"""What each strategy costs: no-op tasks a second through a real control plane, against those with the default.

In pairs (``merit.lab.bench.paired``); the strategy is switched by command while the tasks go on. Beside it stands by how
much more CPU time all processes together take for a task, which tells the same on a machine that others use too.
"""

from __future__ import annotations

import os
import time
from typing import Final

import psutil

from merit.allocation.catalogue import BUILT_IN, DEFAULT
from merit.lab.bench.figures import Figure, median
from merit.lab.bench.fleet import Fleet, fine_cpu_s, staffed
from merit.lab.bench.flood import Flood
from merit.lab.bench.paired import Pairs, loss_pct, measure_pairs
from merit.lab.bench.plan import Plan
from merit.sdk.client import AsyncClient

COST_PCT_MAX: Final = 10.0
_SLICES: Final = 2
_SETTLED: Final = 10
"""After a switch, so much less than what is measured goes by first."""
_WAIT_S: Final = 120.0


async def run(plan: Plan) -> list[Figure]:
    """Each strategy; ``strategy_cost_pct`` is the worst."""
    times: dict[str, Pairs] = {}
    cpu_pct: dict[str, float] = {}
    async with (
        staffed(Fleet(plan.state), plan.workers, plan.concurrency) as (fleet, client),
        Flood(fleet.server) as flood,
    ):
        await flood.fill(plan, plan.strategy_tasks, _WAIT_S)
        for strategy in BUILT_IN:
            if strategy != DEFAULT:
                times[strategy], cpu_pct[strategy] = await _compare(fleet, client, flood, plan, strategy)
    costs = {strategy: loss_pct(pairs) for strategy, pairs in times.items()}
    default_s = median([default_s / _SLICES for pairs in times.values() for _, default_s in pairs])
    return [
        Figure("strategy_cost_pct", max(costs.values()), "%", ceiling=COST_PCT_MAX),
        *(Figure(f"strategy_cost_pct_{as_name(strategy)}", cost, "%") for strategy, cost in costs.items()),
        *(Figure(f"strategy_cpu_pct_{as_name(strategy)}", more, "%") for strategy, more in cpu_pct.items()),
        Figure(f"{as_name(DEFAULT)}_tasks_per_s", 1 / default_s, "1/s"),
    ]


def as_name(strategy: str) -> str:
    """A strategy in the name of a figure."""
    return strategy.replace("-", "_")


async def _compare(fleet: Fleet, client: AsyncClient, flood: Flood, plan: Plan, strategy: str) -> tuple[Pairs, float]:
    """Seconds per task with the strategy and with the default; and by how much more CPU time it takes, in hundredths."""
    tasks = max(1, plan.strategy_tasks // _SLICES)
    processes = [psutil.Process(os.getpid()), fleet.cell, *fleet.workers]
    spent_s = {True: 0.0, False: 0.0}
    chosen = False

    async def switch(on: bool) -> None:
        nonlocal chosen
        chosen = on
        await client.operations.fleet.set_allocation(strategy if on else DEFAULT)
        await flood.work(max(1, tasks // _SETTLED), _WAIT_S)

    async def measure() -> float:
        began_s, cpu_s, completed = time.perf_counter(), sum(map(fine_cpu_s, processes)), flood.completed
        await flood.work(tasks, _WAIT_S)
        done = flood.completed - completed
        spent_s[chosen] += (sum(map(fine_cpu_s, processes)) - cpu_s) / done
        return (time.perf_counter() - began_s) / done

    pairs = await measure_pairs(plan.strategy_pairs, _SLICES, switch, measure)
    return pairs, (spent_s[True] / spent_s[False] - 1) * 100
