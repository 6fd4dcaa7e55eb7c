"""What is left of what workers of the unary contract could do: their tasks in the best time that their own concurrency
allows, by the time measured; through a real control plane, which journals them like all others.

The workers are servers in processes of their own (``merit.lab.bench.unary_crowd``). Their tasks wait, and so take them
nothing; but each is two calls of gRPC for the control plane and for the worker, all on this machine, so that beyond
``unary_tasks_per_s_max`` (tasks that take no time) it is the calls that are waited for.
"""

from __future__ import annotations

import time
from math import ceil
from typing import Final

from merit.lab.bench.figures import Figure, median
from merit.lab.bench.fleet import Fleet, cpu_s
from merit.lab.bench.plan import Plan
from merit.lab.bench.unary_crowd import CAPABILITY, CONCURRENCY
from merit.sdk.client import AsyncClient
from merit.sdk.options import TaskRequest

SHARE_MIN: Final = 0.8
_PROCESSES: Final = 2
_REPEATS: Final = 3


async def run(plan: Plan) -> list[Figure]:
    """``unary_share`` is that of the median time."""
    workers, tasks = plan.unary_workers, plan.unary_tasks
    async with Fleet(plan.state) as fleet:
        client = await fleet.connect()
        try:
            for number in range(min(_PROCESSES, workers)):
                count = len(range(number, workers, _PROCESSES))
                name = f"unary-{number}"
                fleet.launch(name, "-m", "merit.lab.bench.unary_crowd", fleet.server, str(count), name)
            await fleet.attached(client, workers)
            await _measure(client, workers * CONCURRENCY, plan.unary_nap_s)  # from then on all connections are there
            before_s = cpu_s([fleet.cell])
            runs = [await _measure(client, tasks, plan.unary_nap_s) for _ in range(_REPEATS)]
            cell_us = (cpu_s([fleet.cell]) - before_s) / (_REPEATS * tasks) * 1e6
            at_once_s, _ = await _measure(client, tasks, 0.0)
        finally:
            await client.aclose()
        journalled = fleet.completions()
    took_s = median([elapsed_s for elapsed_s, _ in runs])
    ids = [task for _, completed in runs for task in completed]
    lost = _REPEATS * tasks - sum(1 for task in ids if task in journalled)
    return [
        Figure("unary_share", ideal_s(tasks, workers, plan.unary_nap_s) / took_s, "share", floor=SHARE_MIN),
        Figure("unary_lost", lost, "tasks", ceiling=0),
        Figure("unary_tasks_per_s_max", tasks / at_once_s, "1/s"),
        Figure("unary_cell_cpu_us", cell_us, "µs/task"),
    ]


def ideal_s(tasks: int, workers: int, nap_s: float) -> float:
    """What so many tasks take at least: each worker does its four at a time, and all of them take the same."""
    return ceil(tasks / (workers * CONCURRENCY)) * nap_s


async def _measure(client: AsyncClient, tasks: int, nap_s: float) -> tuple[float, list[str]]:
    """How long all of them take, seconds, and which came to what they should."""
    request = TaskRequest(capability=CAPABILITY, parameters={"wait_s": nap_s})
    began_s = time.perf_counter()
    handles = await client.submit_many([request] * tasks)
    results = [(handle.id, await handle.wait()) for handle in handles]
    elapsed_s = time.perf_counter() - began_s
    return elapsed_s, [task for task, result in results if result.ok and result.value == nap_s]
