"""What the queue promises: shares between tenants, limits that cost next to nothing, delayed tasks at their time."""

from __future__ import annotations

from merit.lab.bench import delayed, hot_tenant, limit_costs
from merit.lab.bench.figures import Figure
from merit.lab.bench.plan import Plan


async def run(plan: Plan) -> list[Figure]:
    """One after the other, each with a control plane of its own."""
    return [*await hot_tenant.run(plan), *await limit_costs.run(plan), *await delayed.run(plan)]
