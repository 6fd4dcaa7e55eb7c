"""What the fleet promises: strategies that cost little however many workers there are, a default that is as good as one
queue for all, and workers of the unary contract that are kept busy."""

from __future__ import annotations

from merit.lab.bench import default_vs_central, strategy_costs, strategy_scale, unary_share
from merit.lab.bench.figures import Figure
from merit.lab.bench.plan import Plan


async def run(plan: Plan) -> list[Figure]:
    """One after the other. Raises ``BadTrace`` for traces that cannot be read."""
    return [
        *await default_vs_central.run(plan),
        *await strategy_costs.run(plan),
        *await strategy_scale.run(plan),
        *await unary_share.run(plan),
    ]
