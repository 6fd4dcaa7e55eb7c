"""The state of a journal that somebody else writes, kept warm: whoever takes over has only the rest of it to fold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from merit.app.restore import beginning
from merit.core.codec import fold
from merit.core.state import State
from merit.model.record import JournalCorrupt, Record, Tail, record_hash
from merit.ports.journal import JournalCompacted, JournalReader
from merit.ports.snapshots import SnapshotStore

_STEP_S: Final = 0.1


class WarmState:
    """``step`` it again and again, in any thread; it goes by the journal alone.

    Args:
        reader: of the journal.
        snapshots: where to begin.
    """

    def __init__(self, reader: JournalReader, snapshots: SnapshotStore) -> None:
        self._reader = reader
        self._snapshots = snapshots
        self._state: State | None = None
        self._expected = b""
        """Hash of the record that the next one has to follow."""
        self._records: Iterator[Record] | None = None

    def step(self) -> bool:
        """Fold what has come, for a moment; whether there may be more of it.

        Raises:
            JournalUnavailable: to be tried again.
            JournalCorrupt, NoBeginning, SnapshotUnavailable: this is of no use any more.
        """
        if self._state is None:
            self._state, self._expected = beginning(self._reader, self._snapshots)
        try:
            if self._records is None:
                self._records = iter(self._reader.read(self._state.sequence + 1))
            return self._fold(self._state, self._records)
        except JournalCompacted:
            # It was left so far behind that a snapshot is ahead of it.
            self._state = self._records = None
            return True
        except BaseException:
            self._records = None  # to be read anew from where it is
            raise

    def taken(self, tail: Tail) -> State:
        """The state, which is the taker's from now on.

        Raises:
            JournalCorrupt: it is not that at ``tail``: the journal is not the one that was folded.
        """
        state = self._state
        if state is None or (state.sequence + 1, self._expected) != (tail.next, tail.last_hash):
            reached = state.sequence if state is not None else 0
            raise JournalCorrupt(
                self._reader.cell, tail.next, f"the journal ends before it, and what was read of it goes to {reached}"
            )
        self._state = self._records = None
        return state

    def _fold(self, state: State, records: Iterator[Record]) -> bool:
        until_s = time.monotonic() + _STEP_S
        for record in records:
            if record.previous != self._expected:
                reason = f"it does not follow the record that ends at {state.sequence}, which was read before"
                raise JournalCorrupt(record.cell, record.first, reason)
            fold(state, record)
            self._expected = record_hash(record)
            if time.monotonic() >= until_s:
                return True
        self._records = None
        return False
