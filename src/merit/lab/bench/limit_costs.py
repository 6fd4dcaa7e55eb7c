"""What limits cost that hold nobody back: CPU of the control plane per task, with and without each, while it works.

In pairs (``merit.lab.bench.paired``). Limits per key are measured with tasks that have keys, all others with plain ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from merit.lab.bench.figures import Figure
from merit.lab.bench.fleet import Fleet, fine_cpu_s, staffed
from merit.lab.bench.flood import Flood
from merit.lab.bench.paired import Pairs, cost_pct, measure_pairs
from merit.lab.bench.plan import Plan
from merit.model.rules import RuleKind
from merit.model.tasks import TaskSpec, Terms
from merit.sdk.client import AsyncClient

COST_PCT_MAX: Final = 3.0
ALL_COST_PCT_MAX: Final = 10.0
_CAPABILITY: Final = "bench.noop"
_TENANT: Final = "limited"
_CONCURRENCY: Final[Mapping[str, Any]] = {"concurrency": 1_000_000}
_RATE: Final[Mapping[str, Any]] = {"rate_hz": 1_000_000.0, "burst": 1_000_000}
_KEYS: Final = tuple(Terms(key=f"key-{number}") for number in range(100))
_SLICES: Final = 4
_SETTLED: Final = 10
"""After a change of limits, so much less than what is measured goes by first."""
_WAIT_S: Final = 120.0

_Limit = tuple[RuleKind, str, Mapping[str, Any]]

_PLAIN: Final[Mapping[str, _Limit]] = {
    "capability_concurrency": (RuleKind.CAPABILITY, _CAPABILITY, _CONCURRENCY),
    "capability_rate": (RuleKind.CAPABILITY, _CAPABILITY, _RATE),
    "tenant_concurrency": (RuleKind.TENANT, _TENANT, _CONCURRENCY),
    "tenant_rate": (RuleKind.TENANT, _TENANT, _RATE),
}
_KEY: Final[_Limit] = (RuleKind.KEY, _CAPABILITY, _CONCURRENCY)
_ALL: Final[Sequence[_Limit]] = (
    (RuleKind.CAPABILITY, _CAPABILITY, {**_CONCURRENCY, **_RATE}),
    (RuleKind.TENANT, _TENANT, {**_CONCURRENCY, **_RATE}),
    _KEY,
)


async def run(plan: Plan) -> list[Figure]:
    """Each limit by itself, then all five; ``limits_cost_pct`` is the dearest of those by themselves."""
    costs: dict[str, float] = {}
    async with staffed(Fleet(plan.state), plan.workers, plan.concurrency, tenant=_TENANT) as (fleet, client):
        async with Flood(fleet.server, tenant=_TENANT) as plain:
            await plain.fill(plan, 2 * plan.limit_tasks, _WAIT_S)
            free_us = await _cost_us(fleet, plain, plan.limit_tasks)
            for name, limit in _PLAIN.items():
                costs[name] = cost_pct(await _pairs(fleet, client, plain, plan, (limit,)))
            plain.refill = False
            await plain.work(plain.submitted - plain.completed, _WAIT_S)
        async with Flood(fleet.server, _keyed, tenant=_TENANT) as keyed:
            await keyed.fill(plan, 2 * plan.limit_tasks, _WAIT_S)
            costs["key_concurrency"] = cost_pct(await _pairs(fleet, client, keyed, plan, (_KEY,)))
            together = cost_pct(await _pairs(fleet, client, keyed, plan, _ALL))
    return [
        Figure("limits_cost_pct", max(costs.values()), "%", ceiling=COST_PCT_MAX),
        Figure("limits_cost_pct_all", together, "%", ceiling=ALL_COST_PCT_MAX),
        *(Figure(f"limits_cost_pct_{name}", cost, "%", ceiling=COST_PCT_MAX) for name, cost in costs.items()),
        Figure("unlimited_cpu_us", free_us, "µs/task"),
    ]


def _keyed(task_id: str, number: int) -> TaskSpec:
    return TaskSpec(task_id, _CAPABILITY, b'{"x":1}', terms=_KEYS[number % len(_KEYS)])


async def _pairs(fleet: Fleet, client: AsyncClient, flood: Flood, plan: Plan, limits: Sequence[_Limit]) -> Pairs:
    """Costs with and without the limits."""
    tasks = max(1, plan.limit_tasks // _SLICES)

    async def switch(on: bool) -> None:
        await _set(client, limits, on=on)
        await flood.work(max(1, tasks // _SETTLED), _WAIT_S)

    async def measure() -> float:
        return await _cost_us(fleet, flood, tasks)

    return await measure_pairs(plan.limit_pairs, _SLICES, switch, measure)


async def _set(client: AsyncClient, limits: Sequence[_Limit], *, on: bool) -> None:
    for kind, name, values in limits:
        await client.operations.set_rule(kind, name, **(values if on else {}))


async def _cost_us(fleet: Fleet, flood: Flood, tasks: int) -> float:
    began_s, completed = fine_cpu_s(fleet.cell), flood.completed
    await flood.work(tasks, _WAIT_S)
    return (fine_cpu_s(fleet.cell) - began_s) / (flood.completed - completed) * 1e6
