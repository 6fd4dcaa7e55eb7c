"""What the follower does so that disk and start time stay bounded over months.

Only the leader removes anything from the journal. The follower works out up to where that may go, and says so once all of
it is archived: what is older than the journal is to keep, or too much of it; but never what is within the audit horizon,
not yet anchored, not yet known to the read model, or not behind two snapshots that have been verified. It always ends with a
snapshot, so that the journal that is left can be folded from its first event on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from merit.app.snapshotting import Snapshotting
from merit.model.limits import SECOND_NS
from merit.model.record import JournalCorrupt, Record
from merit.model.retention import SNAPSHOTS_KEPT, Retention
from merit.ports.archive import Archive, Archived, ArchiveUnavailable
from merit.ports.journal import JournalReader
from merit.ports.snapshots import SnapshotUnavailable
from merit.runtime.task_finder import first_since

ARCHIVED_AT_A_TIME: Final = 20_000
"""Events."""
_NOT_NOW: Final = (SnapshotUnavailable, ArchiveUnavailable, JournalCorrupt, ValueError)
"""Because of which nothing is to go for now: also a journal that is damaged where nobody else reads, or does not fit the archive."""
_SHARE_LEFT: Final = 0.9
"""Of the bytes that the journal may have: so much is left when it had too many, so that not every look finds too many."""


class Within(Struct, frozen=True):
    """The sequences up to which the journal may be let go, each for its own reason; 0 is nothing."""

    anchored: int
    known: int
    """To the read model."""


class Retaining:
    """Used by the follower, in turns. ``compact`` is what the leader may remove: all before this sequence.

    Args:
        reader: of the journal.
        snapshotting: its snapshots.
        archive: where what goes is kept.
        retention: the settings.
        clock: the present, Unix time; but not later than the last record, so that a clock which is far ahead makes nothing
            old.
    """

    def __init__(
        self,
        reader: JournalReader,
        snapshotting: Snapshotting,
        archive: Archive,
        retention: Retention,
        clock: Callable[[], int],
    ) -> None:
        self._reader = reader
        self._snapshotting = snapshotting
        self._archive = archive
        self._retention = retention
        self._clock = clock
        self.target = 0
        """The event up to which all is to go as soon as it may; 0: nothing is."""
        self.compact = 0
        self.alarms: dict[str, str] = {}

    def look(self) -> None:
        """Work out anew what is to go. Raises `JournalError`, but not for damage: that is an alarm."""
        self.alarms.clear()
        try:
            self._archive.drop(self._before_ns(self._retention.trails_keep_s), self._retention.archive_bytes_max)
            held = self._check_reach()
            self.target = self._wanted()
            # Behind what is archived the journal may begin at any moment, also because of what another follower has said.
            going = max(held.last, self.compact - 1)
            self._snapshotting.hold({self.target, *(one for one in self._snapshotting.stored if one <= going)})
            is_there = self.target in self._snapshotting.stored
            if not (is_there and self._snapshotting.are_verified_from(self.target)):
                self.target = 0
        except _NOT_NOW as error:
            self._cannot(error)
        if self._snapshotting.bad:
            self.alarms["snapshots"] = (
                f"{self._snapshotting.bad}; it is not relied on, and the journal is kept until there are others: check the disk"
            )

    def turn(self, within: Within) -> bool:
        """Archive a portion of what is to go. Whether there is more to archive at once. Raises as ``look``."""
        target = self.target
        if not target or target > min(within.anchored, within.known):
            return False
        try:
            archived = self._archive_some(target)
        except _NOT_NOW as error:
            self._cannot(error)
            return False
        if archived >= target:
            self.compact = target + 1
            self.target = 0
        return archived < target

    def _cannot(self, error: Exception) -> None:
        """That is tried again at the next look; all else goes on."""
        self.target = 0
        self.alarms["retention"] = f"the journal cannot be compacted, so that it grows: {error}"
        if isinstance(error, JournalCorrupt):
            self.alarms["retention"] += "; merit journal verify names all damage: restore the journal from a copy"

    def _before_ns(self, age_s: float) -> int:
        return self._clock() - round(age_s * SECOND_NS)

    def _check_reach(self) -> Archived:
        """What is archived, if it reaches to the journal. Raises `ArchiveUnavailable` otherwise."""
        held, first = self._archive.held(), self._reader.base().next
        if held.last and held.last + 1 < first:
            raise ArchiveUnavailable(
                f"the archive ends with event {held.last:,} and the journal begins with {first:,}; it seems to be an old copy, "
                "to which nothing is added and from which nothing is removed for it: restore a later one, or put this one "
                "away, and a new one is begun (see the how-to about running a control plane)"
            )
        return held

    def _wanted(self) -> int:
        """The snapshot up to which the journal is to go, or 0."""
        retention, reader = self._retention, self._reader
        first, following = reader.base().next, reader.tail().next
        safe = first_since(reader, self._before_ns(retention.audit_horizon_s))
        can = [one for one in self._snapshotting.stored[: -SNAPSHOTS_KEPT + 1] if first <= one < safe]
        old = first_since(reader, self._before_ns(retention.journal_keep_s))
        target = max((one for one in can if one < old), default=0)
        size = reader.size_bytes()
        if size > retention.journal_bytes_max:
            share = 1 - _SHARE_LEFT * retention.journal_bytes_max / size
            large = first + math.ceil(share * (following - first))
            enough = [one for one in can if one + 1 >= large]
            target = max(target, enough[0] if enough else max(can, default=0))
            if not enough and safe < large:
                self.alarms["journal"] = (
                    f"the journal has {size:,} bytes, more than the {retention.journal_bytes_max:,} that it may have "
                    f"(--journal-max), and all that is left is younger than {retention.audit_horizon_s:,.0f} s "
                    f"(--audit-horizon), within which nothing is removed: set one of the two anew, and make space"
                )
        return target

    def _archive_some(self, target: int) -> int:
        """Archive whole records up to the target, a portion of them; the last event that is archived."""
        held = self._check_reach()
        begin = max(held.last + 1, self._reader.base().next)
        if begin > target:
            return held.last
        records: list[Record] = []
        count = 0
        for record in self._reader.read(begin, target):
            records.append(record)
            count += record.count
            if count >= ARCHIVED_AT_A_TIME:
                break
        self._archive.add_segment(records)
        return records[-1].last
