"""What Merit's memory promises: a follower that is quick and in nobody's way, search, and PostgreSQL as a second journal."""

from __future__ import annotations

from merit.lab.bench import catch_up, fence_cost, follower_cost, postgres_share, search_speed, takeovers
from merit.lab.bench.figures import Figure
from merit.lab.bench.plan import Plan
from merit.testing.postgres import PrivatePostgres


async def run(plan: Plan) -> list[Figure]:
    """One after the other. Raises ``PostgresFailed`` when there is no private PostgreSQL to be had."""
    figures = [*await follower_cost.run(plan), *await catch_up.run(plan), *await search_speed.run(plan)]
    with PrivatePostgres() as server:
        figures += await postgres_share.run(plan, server.new_database())
        figures += await fence_cost.run(plan, server.new_database())
        figures += await takeovers.run(plan, server.new_database())
    return figures
