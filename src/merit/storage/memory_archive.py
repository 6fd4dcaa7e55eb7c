"""An archive in memory, for the simulator and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merit.model.record import Record
from merit.model.trail import SignedAnchor, check_follows, decode_anchor
from merit.ports.archive import Archived, ArchiveUnavailable
from merit.storage.archive_rows import own_anchor
from merit.storage.segments import Segment, records_in, segments_of


class MemoryArchive:
    """An `Archive` of `cell` that lasts as long as the object."""

    def __init__(self, cell: str) -> None:
        self._cell = cell
        self._segments: list[Segment] = []
        self._anchors: list[SignedAnchor] = []

    def held(self) -> Archived:
        """See `ArchiveReader.held`."""
        segments, anchor = self._segments, self.last_anchor()
        return Archived(
            segments[0].first if segments else 0,
            segments[-1].last if segments else 0,
            decode_anchor(anchor.data).last if anchor is not None else 0,
            sum(len(segment.data) for segment in segments),
        )

    def records(self, first: int, last: int) -> Iterator[Record]:
        """See `ArchiveReader.records`."""
        for segment in self._segments:
            if segment.last >= first and segment.first <= last and first <= last:
                try:
                    yield from records_in(segment.data, first, last)
                except ValueError as error:
                    raise ArchiveUnavailable(
                        f"the segment that begins at {segment.first} is damaged: {error}"
                    ) from error

    def anchors(self, first: int, last: int) -> Iterator[SignedAnchor]:
        """See `ArchiveReader.anchors`."""
        for signed in self._anchors:
            anchor = decode_anchor(signed.data)
            if anchor.last >= first and anchor.first <= last:
                yield signed

    def last_anchor(self) -> SignedAnchor | None:
        """See `ArchiveReader.last_anchor`."""
        return self._anchors[-1] if self._anchors else None

    def add_anchor(self, anchor: SignedAnchor) -> None:
        """See `Archive.add_anchor`."""
        wanted = own_anchor(anchor, self._cell)
        if any(known.data == anchor.data for known in self._anchors):
            return
        check_follows(wanted, self.last_anchor())
        self._anchors.append(anchor)

    def add_segment(self, records: Sequence[Record]) -> None:
        """See `Archive.add_segment`."""
        last = self._segments[-1] if self._segments else None
        self._segments += list(segments_of(records, (last.last, last.hash) if last is not None else None))

    def drop(self, until_ns: int, bytes_max: int) -> int:
        """See `Archive.drop`."""
        size = self.held().segments_bytes
        while self._segments and (self._segments[0].time_ns < until_ns or size > bytes_max):
            size -= len(self._segments[0].data)
            self._segments = self._segments[1:]
        return self.held().first

    def close(self) -> None:
        """See `ArchiveReader.close`."""
