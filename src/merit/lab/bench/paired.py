"""What something costs on a machine that is never quiet: measured with and without it, in turns.

The two of a pair are measured in slices, as close together as it goes (with, without, without, with, …), so that what
changes meanwhile on the machine falls on both; what counts is the median of the pairs' ratios.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from statistics import median

Pairs = Sequence[tuple[float, float]]
"""With, and without."""


async def measure_pairs(
    count: int, slices: int, switch: Callable[[bool], Awaitable[None]], measure: Callable[[], Awaitable[float]]
) -> Pairs:
    """So many pairs, each of the sums of so many slices of either kind. It begins and ends without.

    Args:
        count: of pairs.
        slices: of each kind in a pair; an even number, so that neither kind comes first more often.
        switch: has it on, or off, from then on.
        measure: one slice, as things stand.
    """
    pairs: list[tuple[float, float]] = []
    on = False
    for _ in range(count):
        costs = {True: 0.0, False: 0.0}
        for turn in range(2 * slices):
            if turn % 2:
                on = not on
                await switch(on)
            costs[on] += await measure()
        pairs.append((costs[True], costs[False]))
    await switch(False)
    return pairs


def cost_pct(pairs: Pairs) -> float:
    """By how much the median of the pairs costs more with than without, in hundredths of without."""
    return (median(cost / free for cost, free in pairs) - 1) * 100


def loss_pct(pairs: Pairs) -> float:
    """Of times per task: by how much fewer tasks a second go through with than without, in hundredths of without."""
    return (1 - median(free / cost for cost, free in pairs)) * 100
