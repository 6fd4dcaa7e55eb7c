"""What the follower costs the cell: tasks a second while it runs and while it is stopped, in pairs (``merit.lab.bench.paired``).

Whatever came up while it was stopped it has to follow as well when it goes on: it costs rather more here than it does.
"""

from __future__ import annotations

import contextlib
import time
from typing import Final

import psutil

from merit.lab.bench.figures import Figure
from merit.lab.bench.fleet import Fleet, staffed, until
from merit.lab.bench.flood import Flood
from merit.lab.bench.paired import loss_pct, measure_pairs
from merit.lab.bench.plan import Plan

COST_PCT_MAX: Final = 5.0
FOLLOWER: Final = "merit.app.follow"
_SLICES: Final = 2
_WAIT_S: Final = 120.0


async def run(plan: Plan) -> list[Figure]:
    """With tasks that are always there, on as many workers as elsewhere."""
    async with staffed(Fleet(plan.state), plan.workers, plan.concurrency) as (fleet, client):
        async with Flood(fleet.server) as flood:
            await flood.fill(plan, 2 * plan.follower_tasks, _WAIT_S)
            if not followers(fleet):
                await until(lambda: bool(followers(fleet)), _WAIT_S)

            async def switch(on: bool) -> None:
                for process in followers(fleet):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        if on:
                            process.resume()
                        else:
                            process.suspend()

            async def measure() -> float:
                began_s, completed = time.perf_counter(), flood.completed
                await flood.work(max(1, plan.follower_tasks // _SLICES), _WAIT_S)
                return (time.perf_counter() - began_s) / (flood.completed - completed)

            await switch(False)
            pairs = await measure_pairs(plan.follower_pairs, _SLICES, switch, measure)
            await switch(True)
        status = await client.status()
    return [
        Figure("follower_cost_pct", loss_pct(pairs), "%", ceiling=COST_PCT_MAX),
        Figure("follower_lag_events", status["follower_lag_events"], "events"),
    ]


def followers(fleet: Fleet) -> list[psutil.Process]:
    """The processes of the control plane that follow its journal: one, or two while one takes over from another."""
    found = []
    for process in fleet.cell.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if FOLLOWER in process.cmdline():
                found.append(process)
    return found
