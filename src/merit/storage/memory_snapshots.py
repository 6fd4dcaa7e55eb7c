"""Snapshots in memory, for the simulator and tests."""

from __future__ import annotations

from collections.abc import Iterable

from merit.ports.snapshots import Snapshot
from merit.storage.file_snapshots import check_snapshot


class MemorySnapshots:
    """A `SnapshotStore` that lasts as long as the object. `damage` plans what a bad disk does."""

    def __init__(self) -> None:
        self._snapshots: dict[int, Snapshot] = {}
        self._bad: set[int] = set()
        self._damaged: tuple[str, ...] = ()

    @property
    def damaged(self) -> tuple[str, ...]:
        """See `SnapshotStore.damaged`."""
        return self._damaged

    def save(self, sequence: int, fold_version: int, record_hash: bytes, data: bytes) -> None:
        """See `SnapshotStore.save`."""
        check_snapshot(sequence, fold_version, record_hash)
        self._snapshots[sequence] = Snapshot(sequence, fold_version, record_hash, data)
        self._bad.discard(sequence)

    def latest(self, until: int | None = None) -> Snapshot | None:
        """See `SnapshotStore.latest`."""
        newest_first = sorted((one for one in self._snapshots if until is None or one <= until), reverse=True)
        whole = next((sequence for sequence in newest_first if sequence not in self._bad), None)
        skipped = newest_first if whole is None else newest_first[: newest_first.index(whole)]
        self._damaged = tuple(f"snapshot {sequence}: it was planned to be damaged" for sequence in skipped)
        return None if whole is None else self._snapshots[whole]

    def sequences(self) -> dict[int, int]:
        """See `SnapshotStore.sequences`."""
        return {sequence: len(self._snapshots[sequence].data) for sequence in sorted(self._snapshots)}

    def drop(self, sequences: Iterable[int]) -> None:
        """See `SnapshotStore.drop`."""
        for sequence in sequences:
            self._snapshots.pop(sequence, None)

    def damage(self, sequence: int) -> None:
        """From now on the snapshot of this sequence is found damaged, until it is saved again."""
        self._bad.add(sequence)
