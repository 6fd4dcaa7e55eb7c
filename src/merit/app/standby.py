"""The state of a journal that somebody else writes, kept warm: whoever takes over has only the rest of it to fold."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Final

from merit.app.restore import beginning
from merit.core.codec import fold
from merit.core.state import State
from merit.model.record import JournalCorrupt, Record, Tail, record_hash
from merit.ports.journal import JournalCompacted, JournalReader
from merit.ports.snapshots import SnapshotStore

log = logging.getLogger("merit")

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
        self._begun_anew = False
        """And nothing was folded since."""

    def step(self, tail: Tail | None = None) -> bool:
        """Fold what has come, for a moment; whether there may be more of it.

        What was folded and is not in the journal any more, since that has lost its end or was exchanged, is left, and the state
        begun anew. ``tail``: where the journal ends, if that is known already.

        Raises:
            JournalUnavailable: to be tried again.
            JournalCorrupt, NoBeginning, SnapshotUnavailable: this is of no use any more.
        """
        if self._state is None:
            self._state, self._expected = beginning(self._reader, self._snapshots)
        try:
            if self._records is None:
                self._records = iter(self._reader.read(self._state.sequence + 1))
            if self._fold(self._state, self._records):
                return True
            return tail is not None and not self._is_at(tail) and self._begin_anew(tail.next - 1)
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
        if state is None or not self._is_at(tail):
            reached = state.sequence if state is not None else 0
            raise JournalCorrupt(
                self._reader.cell, tail.next, f"the journal ends before it, and what was read of it goes to {reached}"
            )
        self._state = self._records = None
        return state

    def _is_at(self, tail: Tail) -> bool:
        state = self._state
        return state is not None and (state.sequence + 1, self._expected) == (tail.next, tail.last_hash)

    def _begin_anew(self, last: int) -> bool:
        """The next step does; not if this comes of having done so right before."""
        if self._state is None or self._begun_anew:
            return False
        log.error(
            "what the journal of cell %r has up to %d is not what this node has read of it, up to %d: its end was lost (has a "
            "replica taken over that had not everything?), or it was restored from a copy; it is read anew",
            self._reader.cell,
            last,
            self._state.sequence,
        )
        self._state = self._records = None
        self._begun_anew = True
        return True

    def _fold(self, state: State, records: Iterator[Record]) -> bool:
        until_s = time.monotonic() + _STEP_S
        for record in records:
            if record.previous != self._expected:
                if self._begin_anew(record.last):
                    return True
                reason = f"it does not follow the record that ends at {state.sequence}, which was read before"
                raise JournalCorrupt(record.cell, record.first, reason)
            fold(state, record)
            self._expected = record_hash(record)
            self._begun_anew = False
            if time.monotonic() >= until_s:
                return True
        self._records = None
        return False
