"""What is done beside a cell as long as it is led here. All that waits for a disk or a database does so in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from merit.app.following import FollowerProcess
from merit.model.record import JournalError
from merit.ports.journal import Journal
from merit.storage.sqlite_journal import SqliteJournal

_LOOK_S: Final = 0.05
_MEASURE_S: Final = 2.0
_AGAIN_S: Final = 5.0
"""When a portion of compaction that failed is tried again."""


class Housekeeping:
    """Checkpoints and compaction of the journal, its size for people, a look at the follower. ``run`` it in a task.

    Args:
        journal: led.
        follower: says what may be compacted; told of alarms.
    """

    def __init__(self, journal: Journal, follower: FollowerProcess) -> None:
        self._journal = journal
        self._follower = follower
        self._bytes = 0
        self._measured_s = float("-inf")
        self._compacted = 1
        self._again_s = 0.0

    def journal_bytes(self) -> int:
        """Size of the journal, as it was a few seconds ago; 0 in the first moment. Waits for nothing."""
        return self._bytes

    async def run(self) -> None:
        """Without an end. Raises ``JournalUnavailable`` for a failed checkpoint, after which nothing can be appended."""
        while True:
            self._follower.look()
            if isinstance(self._journal, SqliteJournal) and self._journal.checkpoint_due:
                await asyncio.to_thread(self._journal.checkpoint)
            if time.monotonic() >= self._measured_s + _MEASURE_S:
                with contextlib.suppress(JournalError):  # appends find out, too; until then the last one stays
                    self._bytes = await asyncio.to_thread(self._journal.size_bytes)
                self._measured_s = time.monotonic()
            if self._compacted < self._follower.compact and time.monotonic() >= self._again_s:
                await self._compact(self._follower.compact)
            await asyncio.sleep(_LOOK_S)

    async def _compact(self, until: int) -> None:
        """A portion only, since appends wait for it; and until there is no more that can be removed just now."""
        try:
            first = await asyncio.to_thread(self._journal.compact, until)
        except JournalError as error:
            # If the journal is not in order, appends will find so; if they do not, it grows.
            self._again_s = time.monotonic() + _AGAIN_S
            self._follower.beside["compaction"] = (
                f"the journal could not be compacted, and grows until it can be; it is tried again all the time: {error}"
            )
        else:
            self._compacted = first if first > self._compacted else until
            self._follower.beside.pop("compaction", None)
