"""The port of snapshots: folded states of a cell, from which a start, and a look at the past, go on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec


class SnapshotUnavailable(Exception):
    """The store cannot be written or read; the message names the place and what to do.

    The snapshots that were there are intact.
    """


class Snapshot(msgspec.Struct, frozen=True):
    """The state of a cell after the event `sequence`.

    `fold_version` is the version of the code that folded it, `record_hash` the hash of the record that ends with
    `sequence`, which ties the snapshot to its journal.
    """

    sequence: int
    fold_version: int
    record_hash: bytes
    data: bytes


class SnapshotStore(Protocol):
    """Keeps the snapshots of one cell until they are dropped; for one writer at a time."""

    def save(self, sequence: int, fold_version: int, record_hash: bytes, data: bytes) -> None:
        """Stores a snapshot durably. One of the same sequence is replaced.

        Raises `SnapshotUnavailable`, and `ValueError` for a negative sequence or version or a hash that is none.
        """
        ...

    def latest(self, until: int | None = None) -> Snapshot | None:
        """The latest one that is whole, of a sequence up to `until` if that is given, or None. Those found damaged on the
        way are named in `damaged`.

        Raises `SnapshotUnavailable`.
        """
        ...

    @property
    def damaged(self) -> tuple[str, ...]:
        """What the last call of `latest` had to skip, each with name and reason."""
        ...

    def sequences(self) -> dict[int, int]:
        """The sequences of those that are there, damaged ones too, in order, each with the bytes that it takes.

        Raises `SnapshotUnavailable`.
        """
        ...

    def drop(self, sequences: Iterable[int]) -> None:
        """Drops these; those that are not there are passed over. Raises `SnapshotUnavailable`."""
        ...
