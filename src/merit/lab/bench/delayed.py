"""How late delayed tasks begin while others go through: by the clock of the worker, which is this machine's."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from merit.lab.bench.figures import Figure, percentile
from merit.lab.bench.fleet import Fleet, FleetFailed, fine_cpu_s
from merit.lab.bench.flood import Flood
from merit.lab.bench.plan import Plan
from merit.model.frames import Settled
from merit.model.limits import SECOND_NS
from merit.model.tasks import TaskSpec, Terms

P99_MS_MAX: Final = 100.0
_TAKEN_PER_S: Final = 10_000
"""Delayed tasks are submitted faster than this on any machine that the bar is for."""
_AHEAD_S: Final = 1.0
"""The others flow for so long before the first delayed task is due."""
_STEP_S: Final = 0.001
_WAIT_S: Final = 60.0


class Lateness:
    """Tasks that are due one after the other, evenly spread, and how late each began."""

    def __init__(self, count: int, first_ns: int, spread_ns: int) -> None:
        self.late_ns: list[int] = []
        self._count = count
        self._first_ns = first_ns
        self._spread_ns = spread_ns
        self._due_ns: dict[str, int] = {}

    def spec(self, task_id: str, number: int) -> TaskSpec:
        """The task of this number."""
        due_ns = self._first_ns + self._spread_ns * number // self._count
        self._due_ns[task_id] = due_ns
        return TaskSpec(task_id, "bench.began", b"{}", terms=Terms(not_before_ns=due_ns))

    def heard(self, outcome: Settled) -> None:
        """Its result is the time at which it began."""
        self.late_ns.append(int(outcome.result) - self._due_ns.pop(outcome.task))

    def late_ms(self, share: float) -> float:
        """Of this share (0 to 1) none was later."""
        return percentile(self.late_ns, share) / 1e6


async def run(plan: Plan) -> list[Figure]:
    """Submit them all, then let them come while others flow at their rate."""
    ahead_s = 2 * _AHEAD_S + plan.delayed / _TAKEN_PER_S
    async with Fleet(plan.state) as fleet:
        client = await fleet.connect()
        try:
            fleet.add_workers(plan.workers, plan.concurrency)
            await fleet.attached(client, plan.workers)
        finally:
            await client.aclose()
        first_ns = time.time_ns() + int(ahead_s * SECOND_NS)
        lateness = Lateness(plan.delayed, first_ns, int(plan.delay_spread_s * SECOND_NS))
        async with (
            Flood(fleet.server, lateness.spec, heard=lateness.heard) as delayed,
            Flood(fleet.server) as others,
        ):
            await delayed.submit(plan.delayed, _WAIT_S)
            spare_s = (first_ns - time.time_ns()) / SECOND_NS - _AHEAD_S
            if spare_s < 0:
                raise FleetFailed(f"{plan.delayed:,} delayed tasks were not taken before the first of them was due")
            await asyncio.sleep(spare_s)
            began_s, cell_s = time.perf_counter(), fine_cpu_s(fleet.cell)
            await _offer(others, plan.flow_rate_per_s, _AHEAD_S + plan.delay_spread_s)
            others_per_s = others.completed / (time.perf_counter() - began_s)
            await delayed.work(plan.delayed - delayed.completed, _WAIT_S)
            cell_us = (fine_cpu_s(fleet.cell) - cell_s) / (delayed.completed + others.completed) * 1e6
    return [
        Figure("timer_p99_ms", lateness.late_ms(0.99), "ms", ceiling=P99_MS_MAX),
        Figure("timer_p50_ms", lateness.late_ms(0.5), "ms"),
        Figure("timer_max_ms", lateness.late_ms(1.0), "ms"),
        Figure("timer_early", sum(1 for late_ns in lateness.late_ns if late_ns < 0), "tasks", ceiling=0),
        Figure("timer_others_per_s", others_per_s, "1/s"),
        Figure("timer_cpu_us", cell_us, "µs/task"),
    ]


async def _offer(flood: Flood, rate_per_s: int, offer_s: float) -> None:
    """Submit at the rate, whatever comes back."""
    total, began_s = int(rate_per_s * offer_s), time.perf_counter()
    while flood.submitted < total:
        due = min(total, int((time.perf_counter() - began_s) * rate_per_s) + 1)
        flood.add(due - flood.submitted)
        await asyncio.sleep(_STEP_S)
