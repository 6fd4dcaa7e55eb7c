"""Whether a task costs the same however many wait and however many workers idle, and what waiting and idling takes."""

from __future__ import annotations

import asyncio
from math import ceil
from statistics import linear_regression

from merit.lab.bench.figures import Figure, median
from merit.lab.bench.fleet import Fleet, cpu_s, rss_bytes, staffed
from merit.lab.bench.flood import PREFETCHED, Flood
from merit.lab.bench.plan import Plan
from merit.model.limits import Limits

WAITING_COST_RATIO_MAX = 1.3
WORKERS_COST_RATIO_MAX = 1.3
WAITING_BYTES_MAX = 1_000
IDLE_BYTES_MAX = 100_000
_REPEATS = 3
_CROWD = 2_500
"""Idle workers in one process."""
_WAIT_S = 120.0
_SOAK_LOOKS = 40


async def run(plan: Plan) -> list[Figure]:
    """``plan.soak_s`` chooses a long look at memory instead of everything else."""
    if plan.soak_s:
        return [await _soak(plan, plan.soak_s)]
    return [*await _waiting(plan), *await _workers(plan)]


async def _waiting(plan: Plan) -> list[Figure]:
    few_us, _ = await _cost_with(plan, plan.waiting_few)
    many_us, waiting_bytes = await _cost_with(plan, plan.waiting)
    return [
        Figure("waiting_cost_ratio", many_us / few_us, "×", ceiling=WAITING_COST_RATIO_MAX),
        Figure("few_waiting_cpu_us", few_us, "µs/task"),
        Figure("many_waiting_cpu_us", many_us, "µs/task"),
        Figure("bytes_per_waiting_task", waiting_bytes, "B", ceiling=WAITING_BYTES_MAX),
    ]


async def _cost_with(plan: Plan, waiting: int) -> tuple[float, float]:
    """With so many that wait all the time: µs of the cell's CPU per task, and its bytes per task that waits."""
    async with Fleet(plan.state) as fleet:
        client = await fleet.connect()
        try:
            async with Flood(fleet.server) as flood:
                before = rss_bytes(fleet.cell)
                await flood.submit(waiting + plan.workers * PREFETCHED, _WAIT_S)
                waiting_bytes = (rss_bytes(fleet.cell) - before) / flood.submitted
                flood.refill = True
                fleet.add_workers(plan.workers, plan.concurrency)
                await fleet.attached(client, plan.workers)
                await flood.work(plan.scale_tasks // 2, _WAIT_S)
                costs_us = [await _cost_us(fleet, flood, plan.scale_tasks) for _ in range(_REPEATS)]
        finally:
            await client.aclose()
    return median(costs_us), waiting_bytes


async def _cost_us(fleet: Fleet, flood: Flood, tasks: int) -> float:
    began_s, completed = cpu_s([fleet.cell]), flood.completed
    await flood.work(tasks, _WAIT_S)
    return (cpu_s([fleet.cell]) - began_s) / (flood.completed - completed) * 1e6


async def _workers(plan: Plan) -> list[Figure]:
    async with Fleet(plan.state) as fleet:
        client = await fleet.connect()
        try:
            async with Flood(fleet.server) as flood:
                await flood.submit(plan.waiting_few + plan.busy_workers * PREFETCHED, _WAIT_S)
                flood.refill = True
                fleet.add_workers(plan.busy_workers, plan.concurrency)
                await fleet.attached(client, plan.busy_workers)
                await flood.work(plan.scale_tasks, _WAIT_S)
                alone_us = [await _cost_us(fleet, flood, plan.scale_tasks) for _ in range(_REPEATS)]
                flood.refill = False
                await flood.work(flood.submitted - flood.completed, _WAIT_S)
                before = rss_bytes(fleet.cell)
                for number in range(ceil(plan.idle_workers / _CROWD)):
                    count = min(_CROWD, plan.idle_workers - number * _CROWD)
                    fleet.launch("crowd", "-m", "merit.lab.bench.crowd", fleet.server, str(count), f"idle-{number}")
                await fleet.attached(client, plan.busy_workers + plan.idle_workers)
                idle_bytes = (rss_bytes(fleet.cell) - before) / plan.idle_workers
                flood.refill = True
                await flood.submit(plan.waiting_few + plan.busy_workers * PREFETCHED, _WAIT_S)
                crowded_us = [await _cost_us(fleet, flood, plan.scale_tasks) for _ in range(_REPEATS)]
        finally:
            await client.aclose()
    alone, crowded = median(alone_us), median(crowded_us)
    return [
        Figure("workers_cost_ratio", crowded / alone, "×", ceiling=WORKERS_COST_RATIO_MAX),
        Figure("alone_cpu_us", alone, "µs/task"),
        Figure("crowded_cpu_us", crowded, "µs/task"),
        Figure("bytes_per_idle_worker", idle_bytes, "B", ceiling=IDLE_BYTES_MAX),
    ]


async def _soak(plan: Plan, soak_s: float) -> Figure:
    async with (
        staffed(Fleet(plan.state), plan.workers, plan.concurrency) as (fleet, _),
        Flood(fleet.server) as flood,
    ):
        flood.refill = True
        await flood.submit(plan.waiting_few + plan.workers * PREFETCHED, _WAIT_S)
        # Until the cell holds as many final tasks as it ever will, memory has to grow.
        await flood.work(2 * Limits().finals_max, _WAIT_S)
        return Figure("growth_mb_per_1m_tasks", await _growth(fleet, flood, soak_s), "MB")


async def _growth(fleet: Fleet, flood: Flood, look_s: float) -> float:
    """Slope of the cell's memory over the tasks completed (least squares), in MB per million."""
    done: list[float] = []
    sizes: list[float] = []
    for _ in range(_SOAK_LOOKS):
        await asyncio.sleep(look_s / _SOAK_LOOKS)
        done.append(flood.completed / 1e6)
        sizes.append(rss_bytes(fleet.cell) / 1e6)
    return linear_regression(done, sizes).slope
