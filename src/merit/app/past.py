"""States of the past: which event of the journal a moment means, and the fold up to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from msgspec import Struct

from merit.app.journal_until import JournalUntil
from merit.app.judges import load_panel
from merit.app.past_cell import PastCell
from merit.app.restore import restore
from merit.app.strategies import load_strategies
from merit.core.recovering import desk_of
from merit.core.state import State
from merit.model.limits import SECOND_NS, Limits
from merit.ports.journal import JournalReader
from merit.ports.snapshots import SnapshotStore
from merit.runtime.task_finder import first_since

_MS_NS: Final = SECOND_NS // 1_000


class NotThere(Exception):
    """There is no state of such a moment; the message says of which there is one."""


class Instant(Struct, frozen=True):
    """A moment of the past: after the event ``sequence``, and before the next one."""

    sequence: int
    time_ns: int
    """What was the present then, Unix time: the moment that was asked for, or that of the event."""


def instant_at(reader: JournalReader, snapshots: SnapshotStore, time_ns: int) -> Instant:
    """The moment ``time_ns`` (Unix time): all events of a record happened at the record's time.

    Raises:
        NotThere: it lies before the journal's beginning.
        JournalError, SnapshotUnavailable: the journal or the snapshots cannot be read.
    """
    first, last = _reachable(reader, snapshots)
    sequence = first_since(reader, time_ns + 1) - 1
    if sequence < first:
        raise NotThere(f"{local_time(time_ns)} is before anything that is known: {_known(reader, first, last)}")
    return Instant(sequence, time_ns)


def instant_after(reader: JournalReader, snapshots: SnapshotStore, sequence: int) -> Instant:
    """The moment when the event ``sequence`` had just happened. Raises as ``instant_at``, also for an event that is still
    to come."""
    first, last = _reachable(reader, snapshots)
    if not first <= sequence <= last:
        raise NotThere(f"there is no event {sequence:,} to be looked at: {_known(reader, first, last)}")
    return Instant(sequence, _time_of(reader, sequence))


def fold_until(
    reader: JournalReader, snapshots: SnapshotStore, sequence: int, progress: Callable[[int], None] = lambda _: None
) -> State:
    """The state after the event ``sequence``, from the latest snapshot before it; also of one inside a record.

    Raises as ``merit.app.restore.restore``.
    """
    return restore(JournalUntil(reader, sequence), snapshots, progress, sequence)[0]


def local_time(time_ns: int) -> str:
    """A moment for people, in the time zone of this machine; up to a millisecond late, so that what has happened at a
    moment has happened at what this says."""
    late_s = -(-time_ns // _MS_NS) / 1_000
    return datetime.fromtimestamp(late_s).astimezone().isoformat(sep="T", timespec="milliseconds")


def _reachable(reader: JournalReader, snapshots: SnapshotStore) -> tuple[int, int]:
    """The first and the last event after which there is a state. Raises ``NotThere`` if there is none at all."""
    first, last = reader.base().next, reader.tail().next - 1
    if first > 1:
        # What has been compacted away is only in snapshots.
        first = max(first, min((at for at in snapshots.sequences() if at + 1 >= first), default=last))
    if last < first:
        raise NotThere("the journal is empty: nothing has happened yet")
    return first, last


def _known(reader: JournalReader, first: int, last: int) -> str:
    older = ", since older ones have been compacted away" if reader.base().next > 1 else ""
    began, ended = (f"event {at:,} at {local_time(_time_of(reader, at))}" for at in (first, last))
    return f"the journal can tell from {began} on{older}; the last is {ended}"


def _time_of(reader: JournalReader, sequence: int) -> int:
    return next(iter(reader.read(sequence, sequence))).time_ns


def cell_at(
    reader: JournalReader, snapshots: SnapshotStore, instant: Instant, progress: Callable[[int], None] = lambda _: None
) -> PastCell:
    """The cell as it was at that moment. Raises as ``fold_until``."""
    state = fold_until(reader, snapshots, instant.sequence, progress)
    return PastCell(reader.cell, desk_of(state, instant.time_ns, load_strategies(), Limits(), load_panel()))
