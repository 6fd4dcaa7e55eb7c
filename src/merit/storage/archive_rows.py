"""What archives in databases do with rows; an adapter says how it gets them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from merit.model.record import Record
from merit.model.trail import Anchor, SignedAnchor, decode_anchor
from merit.ports.archive import Archived, ArchiveUnavailable
from merit.storage.segments import records_in

_DROPPED_MAX: Final = 16
"""Segments that one transaction drops."""


class ArchiveRows(ABC):
    """What is the same in all of them of an `Archive` of `cell` at `place`."""

    _HELD: ClassVar[str]
    """The fields of `Archived`."""
    _SEGMENT: ClassVar[str]
    """Given two sequences, of the first segment that has events from the one to the other: first, last, data."""
    _ANCHORS: ClassVar[str]
    """Given two sequences, of some anchors that cover events from the one to the other, from the first on: last, and the
    fields of `SignedAnchor`."""
    _LAST_ANCHOR: ClassVar[str]
    """The fields of `SignedAnchor`."""
    _OLDEST: ClassVar[str]
    """Of so many segments: first, time_ns, bytes."""

    def __init__(self, place: str, cell: str) -> None:
        self._place = place
        self._cell = cell

    @abstractmethod
    def _rows(self, query: str, *values: int) -> list[Any]:
        """All rows of one of the queries above."""

    @abstractmethod
    def _drop_to(self, first: int) -> None:
        """Drops the segment that begins with this sequence, and all before it."""

    def held(self) -> Archived:
        """See `ArchiveReader.held`."""
        rows = self._rows(self._HELD)
        return Archived(*rows[0]) if rows else Archived()

    def records(self, first: int, last: int) -> Iterator[Record]:
        """See `ArchiveReader.records`; in no transaction between two segments."""
        start = first
        while start <= last and (rows := self._rows(self._SEGMENT, start, last)):
            segment, start = rows[0][0], rows[0][1] + 1
            try:
                yield from records_in(rows[0][2], first, last)
            except ValueError as error:
                raise ArchiveUnavailable(
                    f"{self._place}: the segment that begins at {segment} is damaged: {error}; restore it from a copy"
                ) from error

    def anchors(self, first: int, last: int) -> Iterator[SignedAnchor]:
        """See `ArchiveReader.anchors`."""
        while first <= last and (rows := self._rows(self._ANCHORS, first, last)):
            for row in rows:
                yield SignedAnchor(*row[1:])
            first = rows[-1][0] + 1

    def last_anchor(self) -> SignedAnchor | None:
        """See `ArchiveReader.last_anchor`."""
        rows = self._rows(self._LAST_ANCHOR)
        return SignedAnchor(*rows[0]) if rows else None

    def drop(self, until_ns: int, bytes_max: int) -> int:
        """See `Archive.drop`; a few segments in each transaction."""
        size = self.held().segments_bytes
        while True:
            until = 0
            for first, time_ns, length in self._rows(self._OLDEST, _DROPPED_MAX):
                if time_ns >= until_ns and size <= bytes_max:
                    break
                until, size = first, size - length
            if not until:
                return self.held().first
            self._drop_to(until)


def own_anchor(anchor: SignedAnchor, cell: str) -> Anchor:
    """What is signed, if it is of `cell`. Raises `ValueError`."""
    wanted = decode_anchor(anchor.data)
    if wanted.cell != cell:
        raise ValueError(f"an anchor of cell {wanted.cell!r} was refused: this is the archive of {cell!r}")
    return wanted
