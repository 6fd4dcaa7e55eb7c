"""How many tasks a second go through over PostgreSQL, as a share of what goes through over SQLite, on this machine.

Both control planes are there all the time, each with workers of its own, and have their turns; what counts is the median of
the ratios. The server is private, runs on this machine too, and waits for its disk at each commit.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from statistics import median
from typing import Final

from merit.lab.bench.figures import Figure
from merit.lab.bench.fleet import Fleet, staffed
from merit.lab.bench.flood import PREFETCHED, Flood
from merit.lab.bench.plan import Plan

SHARE_MIN: Final = 0.6
_WAIT_S: Final = 120.0


async def run(plan: Plan, url: str) -> list[Figure]:
    """``url``: of an empty database."""
    async with AsyncExitStack() as opened:
        sqlite = await _at_work(opened, Fleet(plan.state), plan)
        postgres = await _at_work(opened, Fleet(plan.state, store=url), plan)
        rates: list[tuple[float, float]] = []
        for turn in range(plan.store_pairs):
            pair = (sqlite, postgres) if turn % 2 else (postgres, sqlite)
            rate = {flood: await _rate(flood, plan) for flood in pair}
            rates.append((rate[sqlite], rate[postgres]))
    return [
        Figure("postgres_share_of_sqlite", median(there / here for here, there in rates), "×", floor=SHARE_MIN),
        Figure("sqlite_tasks_per_s", median(here for here, _ in rates), "1/s"),
        Figure("postgres_tasks_per_s", median(there for _, there in rates), "1/s"),
    ]


async def _at_work(opened: AsyncExitStack, fleet: Fleet, plan: Plan) -> Flood:
    await opened.enter_async_context(staffed(fleet, plan.workers, plan.concurrency))
    flood = await opened.enter_async_context(Flood(fleet.server))
    await _rate(flood, plan)
    return flood


async def _rate(flood: Flood, plan: Plan) -> float:
    """Tasks a second, while there is always something to do; nothing is left to do then."""
    waiting = plan.waiting_few + plan.workers * PREFETCHED
    began_s = time.perf_counter()
    flood.add(waiting)
    flood.refill = True
    await flood.work(plan.store_tasks, _WAIT_S)
    flood.refill = False
    rate_hz = plan.store_tasks / (time.perf_counter() - began_s)
    await flood.work(flood.submitted - flood.completed, _WAIT_S)
    return rate_hz
