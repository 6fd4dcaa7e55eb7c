"""The proof that snapshots are right: the journal folded past each of them gives the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from merit.app.journal_until import JournalUntil
from merit.core.codec import decode_state, fold, state_digest
from merit.core.state import State
from merit.model.record import Record, record_hash
from merit.ports.journal import JournalReader
from merit.ports.snapshots import SnapshotStore


class Compared(Struct, frozen=True):
    """A state that came about in two ways."""

    sequence: int
    """After which event."""
    what: str
    """What was compared with the fold of the journal."""
    digest: str
    """Of the fold."""
    problem: str
    """Why the other one is not the same; empty: it is."""


def compare_snapshots(
    reader: JournalReader, snapshots: SnapshotStore, until: int, progress: Callable[[int], None] = lambda _: None
) -> Iterator[Compared]:
    """Fold the journal from where it begins, and hold it against every snapshot, and against the fold from the snapshot
    before to there and to the end: since the same events always give the same, a fold from any of them gives the same too.

    What has been compacted away is not there to be folded: then it begins with the oldest snapshot, which is believed.

    Args:
        reader: of the journal.
        snapshots: all that are there are compared, damaged ones too.
        until: sequence of the event to end with.
        progress: called now and then with the sequence reached.

    Raises:
        JournalError, SnapshotUnavailable: they cannot be read.
        UnreadableEvent, IllegalTransition: the journal and this version disagree.
    """
    whole, branch, began = State(), None, 0
    waiting = [at for at in snapshots.sequences() if at <= until]
    if (first := reader.base().next) > 1:
        waiting = [at for at in waiting if at + 1 >= first]
        if waiting and isinstance(found := _state_of(snapshots, waiting[0], None), State):
            whole = found
            yield Compared(waiting.pop(0), "the oldest snapshot, which is believed", state_digest(whole), "")
    if whole.sequence < until:
        for record in JournalUntil(reader, until).read(whole.sequence + 1):
            for state in (whole, branch):
                if state is not None:
                    fold(state, record)
            progress(record.last)
            while waiting and waiting[0] <= record.last:
                at = waiting.pop(0)
                if branch is not None:
                    yield _compared(whole, branch, f"the fold from the snapshot before it to {at:,}")
                found = _state_of(snapshots, at, record)
                yield _compared(whole, found, f"the snapshot of {at:,}")
                if isinstance(found, State):
                    branch, began = found, at
    if branch is not None and began < whole.sequence:
        yield _compared(whole, branch, f"the fold from the last snapshot to {until:,}")


def _state_of(snapshots: SnapshotStore, sequence: int, record: Record | None) -> State | str:
    """The state in the snapshot of this sequence, which has to be of the journal with this record, or what is wrong."""
    snapshot = snapshots.latest(sequence)
    if snapshot is None or snapshot.sequence != sequence:
        return next(iter(snapshots.damaged), "it has been dropped meanwhile")
    if record is not None and (record.last, record_hash(record)) != (sequence, snapshot.record_hash):
        return "it is of another journal"
    try:
        return decode_state(snapshot.data, snapshot.fold_version)
    except ValueError as error:
        return str(error)


def _compared(whole: State, other: State | str, what: str) -> Compared:
    digest = state_digest(whole)
    if isinstance(other, str):
        return Compared(whole.sequence, what, digest, other)
    is_same = state_digest(other) == digest
    return Compared(whole.sequence, what, digest, "" if is_same else f"it differs: {state_digest(other)}")
