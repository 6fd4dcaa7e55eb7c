"""How long one task takes when nothing else goes on: from the call of submit to the result, two durable appends in it."""

from __future__ import annotations

import time

from merit.lab.bench.calibration import sync_times_s
from merit.lab.bench.figures import Figure, percentile
from merit.lab.bench.fleet import Fleet, staffed
from merit.lab.bench.plan import Plan

OVERHEAD_MS_MAX = 1.2
"""What a task may cost beyond its two syncs."""
P99_MS_MAX = 2.0
_PARTS = 5
_SYNCS = 100
_WARM_ROUNDS = 100


async def run(plan: Plan) -> list[Figure]:
    """The disk is measured in between, since the bars go by it."""
    times_s: list[float] = []
    syncs_s: list[float] = []
    async with staffed(Fleet(plan.state), plan.workers, plan.concurrency) as (_, client):
        for part in range(_PARTS + 1):
            for _ in range(plan.rounds // _PARTS if part else min(plan.rounds, _WARM_ROUNDS)):
                began_s = time.perf_counter()
                handle = await client.submit("bench.noop", {"x": 1})
                await handle.result()
                if part:
                    times_s.append(time.perf_counter() - began_s)
            syncs_s += sync_times_s(plan.state, _SYNCS)
    sync_p50_ms, sync_p99_ms = percentile(syncs_s, 0.5) * 1e3, percentile(syncs_s, 0.99) * 1e3
    p50_ms, p99_ms = percentile(times_s, 0.5) * 1e3, percentile(times_s, 0.99) * 1e3
    return [
        Figure("p50_ms", p50_ms, "ms", ceiling=2 * sync_p50_ms + OVERHEAD_MS_MAX),
        Figure("p99_ms", p99_ms, "ms", ceiling=p50_ms + 2 * sync_p99_ms + P99_MS_MAX),
        Figure("fsync_p50_ms", sync_p50_ms, "ms"),
        Figure("fsync_p99_ms", sync_p99_ms, "ms"),
    ]
