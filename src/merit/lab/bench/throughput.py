"""How many tasks a second go through: no-op tasks from one client process over two workers, results back, durable."""

from __future__ import annotations

import os
import time

import psutil
from msgspec import Struct

from merit.lab.bench.figures import Figure
from merit.lab.bench.fleet import Fleet, cpu_s, rss_bytes, staffed
from merit.lab.bench.plan import Plan
from merit.sdk.client import AsyncClient

TASKS_PER_S_MIN = 20_000
CPU_S_PER_1K_MAX = 0.1
_WARM_TASKS = 2_000


class _Run(Struct):
    tasks: int
    tasks_per_s: float
    cell_us: float
    worker_us: float
    client_us: float
    lost: int
    duplicated: int


async def run(plan: Plan) -> list[Figure]:
    """Figures of one run for each size in ``plan.tasks``; the plain names are those of the last one."""
    async with staffed(Fleet(plan.state), plan.workers, plan.concurrency) as (fleet, client):
        await _run(fleet, client, _WARM_TASKS)
        runs = [await _run(fleet, client, tasks) for tasks in plan.tasks]
        rss_mb = rss_bytes(fleet.cell) / 1e6
    last = runs[-1]
    figures = [
        Figure(f"tasks_per_s_{_short(run.tasks)}", run.tasks_per_s, "1/s", floor=TASKS_PER_S_MIN) for run in runs
    ]
    figures += [
        Figure("tasks_per_s", last.tasks_per_s, "1/s", floor=TASKS_PER_S_MIN),
        Figure("cpu_s_per_1k", (last.cell_us + last.worker_us + last.client_us) / 1e3, "s", ceiling=CPU_S_PER_1K_MAX),
        Figure("lost", sum(run.lost for run in runs), "tasks", ceiling=0),
        Figure("duplicated", sum(run.duplicated for run in runs), "tasks", ceiling=0),
        Figure("rss_mb", rss_mb, "MB"),
        Figure("cell_cpu_us", last.cell_us, "µs/task"),
        Figure("workers_cpu_us", last.worker_us, "µs/task"),
        Figure("client_cpu_us", last.client_us, "µs/task"),
    ]
    return figures


async def _run(fleet: Fleet, client: AsyncClient, tasks: int) -> _Run:
    """All inputs through, each result compared with its input; then what the journal says of it."""
    own = psutil.Process(os.getpid())
    answers = [0] * tasks
    ids: list[str] = []
    before = [cpu_s([fleet.cell]), cpu_s(fleet.workers), cpu_s([own])]
    began_s = time.perf_counter()
    async for batch in client.batches(("bench.noop", {"x": number}) for number in range(tasks)):
        for handle in batch:
            result = await handle.wait()
            ids.append(handle.id)
            if result.ok and result.value == handle.tag:
                answers[handle.tag] += 1
    elapsed_s = time.perf_counter() - began_s
    after = [cpu_s([fleet.cell]), cpu_s(fleet.workers), cpu_s([own])]
    cell_us, worker_us, client_us = ((end - begin) / tasks * 1e6 for begin, end in zip(before, after, strict=True))
    journalled = fleet.completions()
    lost = sum(1 for count in answers if not count) + sum(1 for task in ids if task not in journalled)
    duplicated = sum(count - 1 for count in answers if count > 1)
    duplicated += sum(journalled.get(task, 1) - 1 for task in ids)
    return _Run(tasks, tasks / elapsed_s, cell_us, worker_us, client_us, lost, duplicated)


def _short(count: int) -> str:
    return f"{count // 1_000}k" if count % 1_000 == 0 else str(count)
