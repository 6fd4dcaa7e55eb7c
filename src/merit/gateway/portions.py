"""Long lists are gone through a portion at a time, others having their turn in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Final, TypeVar

PORTION: Final = 2_000
"""Items that one turn of the loop looks at: a few ms, however they are looked at."""

Item = TypeVar("Item")


async def portions(items: Iterable[Item], size: int | None = None) -> AsyncIterator[list[Item]]:
    """The items as they are now: a copy, since they may change between two turns of the loop; it takes some 40 ms
    for a million. ``size``: of a portion, for items that take longer to look at than others."""
    rest = iter(list(items))
    while portion := list(islice(rest, size or PORTION)):
        yield portion
        await asyncio.sleep(0)
