"""What the death of a worker costs, and how long a start takes."""

from __future__ import annotations

import time

from merit.lab.bench.figures import Figure
from merit.lab.bench.fleet import Fleet, staffed
from merit.lab.bench.plan import Plan
from merit.lab.bench.restart import restart_figures
from merit.sdk.handles import TaskHandle

OVER_IDEAL_MAX = 1.2
_WORKERS = 2


async def run(plan: Plan) -> list[Figure]:
    """A worker is killed half-way; then a control plane is started on a long journal."""
    figures = await _kill_half_way(plan)
    return figures + (await restart_figures(plan) if plan.restart_events else [])


async def _kill_half_way(plan: Plan) -> list[Figure]:
    """The ideal: two workers share the first half, one does the second, and nothing else takes any time."""
    half = plan.naps // 2
    ideal_s = plan.nap_s * (half / _WORKERS + (plan.naps - half))
    done: list[TaskHandle] = []
    async with staffed(Fleet(plan.state), _WORKERS, 1) as (fleet, client):
        killed = False
        began_s = time.perf_counter()
        async for batch in client.batches(("bench.nap", {"wait_s": plan.nap_s}) for _ in range(plan.naps)):
            done += batch
            if not killed and len(done) >= half:
                fleet.lose_worker()
                killed = True
        elapsed_s = time.perf_counter() - began_s
        results = [await handle.wait() for handle in done]
        completions = fleet.completions()
    ids = {handle.id for handle, result in zip(done, results, strict=True) if result.ok}
    lost = plan.naps - len(ids & completions.keys())
    duplicated = len(done) - len({handle.id for handle in done}) + sum(completions.values()) - len(completions)
    return [
        Figure("over_ideal", elapsed_s / ideal_s, "×", ceiling=OVER_IDEAL_MAX),
        Figure("lost", lost, "tasks", ceiling=0),
        Figure("duplicated", duplicated, "tasks", ceiling=0),
        Figure("recovery_s", elapsed_s, "s"),
    ]
