"""The port of the archive: what stays of the journal when its records are compacted away, and the signed anchors.

A *segment* is a run of whole records without their payloads, compressed. An *anchor* is a signature over the hashes of a run
of records, from which the trail of one task can be verified alone (``merit.model.trail``). Segments go when they are too old
or too large; anchors stay: there is one for many records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from merit.model.record import Record
from merit.model.trail import SignedAnchor


class ArchiveUnavailable(Exception):
    """It cannot be written or read (disk full, I/O error, damaged); the message names the place and what to do."""


class Archived(Struct, frozen=True):
    """What is in an archive. Sequences are 0 when there is none."""

    first: int = 0
    """Of the first event in its segments."""
    last: int = 0
    """Of the last event in its segments; all between are there."""
    anchored: int = 0
    """Of the last event that an anchor covers."""
    segments_bytes: int = 0


class ArchiveReader(Protocol):
    """Reads; from any thread, one call at a time."""

    def held(self) -> Archived:
        """What is there. Raises `ArchiveUnavailable`."""
        ...

    def records(self, first: int, last: int) -> Iterator[Record]:
        """The records in segments that hold any of these events, in order, without payloads.

        Raises `ArchiveUnavailable`.
        """
        ...

    def anchors(self, first: int, last: int) -> Iterator[SignedAnchor]:
        """Those that cover any of these events, in order. Raises `ArchiveUnavailable`."""
        ...

    def last_anchor(self) -> SignedAnchor | None:
        """The one that covers the latest events. Raises `ArchiveUnavailable`."""
        ...

    def close(self) -> None:
        """Frees everything. May be called twice."""
        ...


class Archive(ArchiveReader, Protocol):
    """Written by one follower at a time."""

    def add_anchor(self, anchor: SignedAnchor) -> None:
        """Stores the anchor that follows the last one, durably; the same again changes nothing.

        Raises `ArchiveUnavailable`, `ValueError` when it does not follow.
        """
        ...

    def add_segment(self, records: Sequence[Record]) -> None:
        """Stores records that follow those that are there, durably; those that are there already are passed over.

        Raises `ArchiveUnavailable`, `ValueError` when they do not follow.
        """
        ...

    def drop(self, until_ns: int, bytes_max: int) -> int:
        """Drops the oldest segments, those whose records are all from before a time, and as many as there are too many
        bytes; returns the sequence of the first event that is left (0: none). Raises `ArchiveUnavailable`."""
        ...
