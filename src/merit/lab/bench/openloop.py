"""What happens to latency when submits come at a rate of their own, whether answers come or not.

Each task is a submit call of its own. Its time counts from when it was scheduled, not from when it could be sent, so
that a system that holds up its clients does not look the better for it (coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from math import inf

from msgspec import Struct, field

from merit.lab.bench.figures import Figure, percentile
from merit.lab.bench.fleet import Fleet, staffed, until
from merit.lab.bench.plan import Plan
from merit.sdk.client import AsyncClient
from merit.sdk.results import MeritError

HELD_MIN = 0.98
P99_MS_MAX = 100.0
STALL_RECOVERY_S_MAX = 10.0
_IN_TIME_S = P99_MS_MAX / 1e3
_STEP_S = 0.001
_DRAIN_S = 4.0
_WARM_S = 1.0
_BEFORE_STALL_S = 2.0
_AFTER_STALL_S = 4.0
_BIN_S = 0.1


class _Offer(Struct):
    """Submits at a rate; ``ended`` has when each completed and how long after its time, seconds."""

    began_s: float = 0.0
    offered: int = 0
    ended: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0

    @property
    def pending(self) -> int:
        return self.offered - len(self.ended) - self.refused

    def latencies_s(self) -> list[float]:
        """Of all that were offered; what never came took for ever."""
        return [latency for _, latency in self.ended] + [inf] * (self.offered - len(self.ended))


async def run(plan: Plan) -> list[Figure]:
    """Each rate in turn, then the stall."""
    figures: list[Figure] = []
    p99s_ms: list[float] = []
    async with staffed(Fleet(plan.state), plan.workers, plan.concurrency) as (fleet, client):
        await _offer(_Offer(), client, min(plan.rates_per_s), _WARM_S)
        for rate_per_s in plan.rates_per_s:
            offer = _Offer()
            await _offer(offer, client, rate_per_s, plan.offer_s)
            limit_s = offer.began_s + plan.offer_s + _IN_TIME_S
            held = sum(1 for end_s, _ in offer.ended if end_s <= limit_s) / offer.offered
            p99s_ms.append(percentile(offer.latencies_s(), 0.99) * 1e3)
            name = f"{rate_per_s // 1_000}k" if rate_per_s >= 1_000 else str(rate_per_s)
            figures += [
                Figure(f"held_{name}", held, "share", floor=HELD_MIN),
                Figure(f"open_p50_{name}_ms", percentile(offer.latencies_s(), 0.5) * 1e3, "ms"),
                Figure(f"open_p99_{name}_ms", p99s_ms[-1], "ms"),
            ]
        recovery_s = await _stall(fleet, client, plan)
    return [
        *figures,
        Figure("open_p99_ms", max(p99s_ms), "ms", ceiling=P99_MS_MAX),
        Figure("stall_recovery_s", recovery_s, "s", ceiling=STALL_RECOVERY_S_MAX),
    ]


async def _offer(offer: _Offer, client: AsyncClient, rate_per_s: int, offer_s: float) -> None:
    """Submit at the rate, come what may; then wait a while for what is still on its way."""
    total = int(rate_per_s * offer_s)
    running: set[asyncio.Task[None]] = set()
    offer.began_s = began_s = time.perf_counter()
    while offer.offered < total:
        due = min(total, int((time.perf_counter() - began_s) * rate_per_s) + 1)
        for number in range(offer.offered, due):
            task = asyncio.create_task(_one(offer, client, began_s + number / rate_per_s))
            running.add(task)
            task.add_done_callback(running.discard)
        offer.offered = max(offer.offered, due)
        await asyncio.sleep(_STEP_S)
    await until(lambda: not offer.pending, _DRAIN_S)
    for task in running:
        task.cancel()


async def _one(offer: _Offer, client: AsyncClient, due_s: float) -> None:
    try:
        handle = await client.submit("bench.noop", {"x": 1})
        await handle.result()
    except MeritError:
        offer.refused += 1
        return
    now_s = time.perf_counter()
    offer.ended.append((now_s, now_s - due_s))


async def _stall(fleet: Fleet, client: AsyncClient, plan: Plan) -> float:
    """Stop the control plane for a while under load; how long after that tasks again take no longer than they may."""
    offer = _Offer()
    offering = asyncio.create_task(
        _offer(offer, client, plan.stall_rate_per_s, _BEFORE_STALL_S + plan.stall_s + _AFTER_STALL_S)
    )
    await asyncio.sleep(_BEFORE_STALL_S)
    fleet.cell.suspend()
    await asyncio.sleep(plan.stall_s)
    fleet.cell.resume()
    resumed_s = time.perf_counter()
    await offering
    if offer.pending:
        return inf
    bins: defaultdict[int, list[float]] = defaultdict(list)
    for end_s, latency_s in offer.ended:
        bins[int((end_s - resumed_s) // _BIN_S)].append(latency_s)
    late = [number for number, latencies_s in bins.items() if percentile(latencies_s, 0.99) > _IN_TIME_S]
    return max(0.0, (max(late, default=-1) + 1) * _BIN_S)
