"""The lease on which a node leads: renewed all the time, and what it means when it cannot be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from merit.ports.journal import JournalUnavailable, LeasedJournal
from merit.runtime.elapsed import elapsed_s

log = logging.getLogger("merit")

_PARTS: Final = 3
"""It is renewed every so many parts of its time, so that one renewal may fail."""
_AGAIN_S: Final = 0.25


class Lease:
    """Renews from the time that it is made, until ``end``.

    Args:
        journal: led.
        since_s: when that was asked for, by ``elapsed_s``: the database counts from later on.
    """

    def __init__(self, journal: LeasedJournal, since_s: float) -> None:
        self._journal = journal
        self._until_s = since_s + journal.lease_s
        self._tell: Callable[[float], None] = lambda until_s: None
        self.lost = asyncio.create_task(self._keep())
        """Never done while the lease holds; then it raises why: ``Fenced``, ``JournalUnavailable``."""

    def tell(self, tell: Callable[[float], None]) -> None:
        """Have somebody told until when it holds, by ``elapsed_s``: now, and each time that it is renewed."""
        self._tell = tell
        tell(self._until_s)

    def check(self) -> None:
        """Raises what ``lost`` does, if it is done."""
        if self.lost.done():
            self.lost.result()

    async def end(self) -> None:
        """Renew it no more."""
        self.lost.cancel()
        await asyncio.gather(self.lost, return_exceptions=True)

    async def _keep(self) -> None:
        wait_s = part_s = self._journal.lease_s / _PARTS
        while True:
            await asyncio.sleep(wait_s)
            since_s = elapsed_s()
            try:
                async with asyncio.timeout(part_s):
                    await self._journal.renew()
            except (JournalUnavailable, TimeoutError) as error:
                reason = str(error) or f"no answer within {part_s:g} s"
                if elapsed_s() >= self._until_s:
                    raise JournalUnavailable(f"the lease is over, and could not be renewed: {reason}") from error
                log.warning("the lease could not be renewed, which is tried again: %s", reason)
                wait_s = min(_AGAIN_S, part_s)
            else:
                wait_s = part_s
                self._until_s = since_s + self._journal.lease_s
                self._tell(self._until_s)
