"""What Merit promises of work that is earned: cheaters are found out, honest workers left alone, and few bad results get by."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from merit.lab.bench import cheats, reputation, votes
from merit.lab.bench.figures import Figure
from merit.lab.bench.plan import Plan

FULL_SEEDS: Final = 200


async def run(plan: Plan) -> list[Figure]:
    """One after the other, all of them by the rules alone and from seeds: but for speeds the same each time. Raises ``BadTrace``
    when the directory with labels cannot be read."""
    if plan.full:
        plan = replace(plan, seeds=max(plan.seeds, FULL_SEEDS))
    return [*await reputation.run(plan), *await cheats.run(plan), *await votes.run(plan)]
