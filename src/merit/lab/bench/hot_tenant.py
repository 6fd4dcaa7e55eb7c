"""What a tenant with a million waiting tasks costs another one that has ten.

Measured is the time from the submit of the ten until the last of them has begun, by the worker's clock (it is the same
machine), on a system without other work and on the same with the million waiting. All tasks are of the same kind and take
``Plan.hot_nap_s``.

**What was chosen, and why.** One worker that runs one task at a time: then nine others go before the last of the ten on
an idle system, and 17 or 18 and the rest of what runs where every second turn is the other tenant's, which is what a fair
share is and where the bar stands. With room for ten at once an idle system starts them all in a few milliseconds, and
the ratio would say how long a task of the other tenant takes and nothing else. The tasks take a little more than a tenth
of a second: a worker takes that much work in advance (``merit.session.worker_end``), of whatever tenant, so that shorter
ones would measure this. What it comes to with short tasks on usual workers is told beside it, without a bar.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from merit.lab.bench.figures import Figure, median
from merit.lab.bench.fleet import Fleet, staffed
from merit.lab.bench.flood import PREFETCHED, Flood
from merit.lab.bench.plan import Plan
from merit.model.tasks import TaskSpec
from merit.sdk.client import AsyncClient
from merit.sdk.options import TaskRequest

RATIO_MAX: Final = 2.0
_FEW: Final = 10
_SHORT_S: Final = 0.005
_CAPABILITY: Final = "bench.began"
_HOT: Final = "hot"
_SMALL: Final = "small"
_WAIT_S: Final = 180.0


class Starts(Struct, frozen=True):
    """Times until the last of the few has begun, seconds."""

    idle_s: list[float]
    hot_s: list[float]

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return median(self.hot_s) / median(self.idle_s)


async def run(plan: Plan) -> list[Figure]:
    """With tasks too long to be taken in advance, then with short ones."""
    late = await _starts(plan, plan.hot_nap_s, plan.waiting, workers=1, concurrency=1)
    few = plan.waiting_few + plan.workers * PREFETCHED
    short = await _starts(plan, _SHORT_S, few, workers=plan.workers, concurrency=plan.concurrency)
    return [
        Figure("hot_tenant_ratio", late.ratio, "×", ceiling=RATIO_MAX),
        Figure("idle_start_ms", median(late.idle_s) * 1e3, "ms"),
        Figure("hot_start_ms", median(late.hot_s) * 1e3, "ms"),
        Figure("short_idle_start_ms", median(short.idle_s) * 1e3, "ms"),
        Figure("short_hot_start_ms", median(short.hot_s) * 1e3, "ms"),
    ]


async def _starts(plan: Plan, nap_s: float, waiting: int, *, workers: int, concurrency: int | None) -> Starts:
    async with staffed(Fleet(plan.state), workers, concurrency, tenant=_SMALL) as (fleet, client):
        await _start_s(client, nap_s)  # from then on the worker knows how long they take
        idle_s = [await _start_s(client, nap_s) for _ in range(plan.hot_repeats)]
        async with Flood(fleet.server, _naps(nap_s), tenant=_HOT) as flood:
            await flood.submit(waiting, _WAIT_S)
            flood.refill = True
            hot_s: list[float] = []
            for number in range(plan.hot_repeats):
                # A task of the other tenant begins when the last of the few ends: each time it is met at another
                # moment of its life, all of them alike.
                await asyncio.sleep(nap_s * (number + 0.5) / plan.hot_repeats)
                hot_s.append(await _start_s(client, nap_s))
    return Starts(idle_s, hot_s)


def _naps(nap_s: float) -> Callable[[str, int], TaskSpec]:
    parameters = b'{"wait_s":%r}' % nap_s
    return lambda task_id, _: TaskSpec(task_id, _CAPABILITY, parameters)


async def _start_s(client: AsyncClient, nap_s: float) -> float:
    request = TaskRequest(capability=_CAPABILITY, parameters={"wait_s": nap_s})
    submitted_ns = time.time_ns()
    handles = await client.submit_many([request] * _FEW)
    begun_ns: list[int] = [await handle.result() for handle in handles]
    return (max(begun_ns) - submitted_ns) / 1e9
