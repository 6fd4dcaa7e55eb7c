"""From a snapshot and the journal after it to the state at the journal's end."""

from __future__ import annotations

from collections.abc import Callable

from merit.core.codec import FOLD_VERSION, decode_state, fold
from merit.core.state import State
from merit.model.record import JournalCorrupt, Record
from merit.ports.journal import JournalReader
from merit.ports.snapshots import SnapshotStore

_FOLD_PROGRESS_RECORDS = 2_000


def restore(
    reader: JournalReader,
    snapshots: SnapshotStore,
    progress: Callable[[int], None] = lambda _: None,
    last_wanted: int | None = None,
) -> tuple[State, Record | None]:
    """The state at the journal's end, and the last record (None when there is none after the snapshot).

    Args:
        reader: of the journal.
        snapshots: the latest one of this fold's version is where to begin.
        progress: called now and then with the sequence reached.
        last_wanted: the state after this event, with which a record ends, in place of that at the end.

    Raises:
        JournalCorrupt: a record is damaged, or the snapshot is of another journal.
    """
    state = State()
    snapshot = snapshots.latest(last_wanted)
    if snapshot is not None and snapshot.fold_version == FOLD_VERSION:
        state = decode_state(snapshot.data)
    first = True
    last: Record | None = None
    records = reader.read(state.sequence + 1, last_wanted) if last_wanted != state.sequence else ()
    for count, record in enumerate(records):
        if first and snapshot is not None and state.sequence and record.previous != snapshot.record_hash:
            reason = f"it does not follow the snapshot of sequence {state.sequence}: they are of different journals"
            raise JournalCorrupt(record.cell, record.first, reason)
        first = False
        fold(state, record)
        last = record
        if count % _FOLD_PROGRESS_RECORDS == 0:
            progress(state.sequence)
    if last_wanted is None and state.sequence + 1 != reader.tail().next:
        reason = f"the snapshot is of sequence {state.sequence}, but the journal ends before it: its end was lost"
        raise JournalCorrupt("", reader.tail().next, reason)
    return state, last
