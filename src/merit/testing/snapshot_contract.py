"""What every adapter of the snapshots' port must do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from merit.ports.snapshots import Snapshot, SnapshotStore

_HASH = bytes(range(32))

Damage = Callable[[SnapshotStore, int], None]
"""Damages the stored snapshot of a sequence."""


class SnapshotContract:
    """Subclass it and override the fixtures `store` and `damage`."""

    @pytest.fixture
    def store(self) -> SnapshotStore:
        """An empty store."""
        raise NotImplementedError

    @pytest.fixture
    def damage(self) -> Damage:
        """How a snapshot of `store` gets damaged."""
        raise NotImplementedError

    def test_nothing_is_there_at_first(self, store: SnapshotStore) -> None:
        """None, and no complaint."""
        assert store.latest() is None
        assert len(list(store.damaged)) == 0

    def test_the_latest_is_found(self, store: SnapshotStore) -> None:
        """The highest sequence counts, as a number."""
        for sequence in (9, 10, 100):
            store.save(sequence, 3, _HASH, b"state %d" % sequence)
            assert store.latest() == Snapshot(sequence, 3, _HASH, b"state %d" % sequence)

    def test_the_latest_up_to_a_sequence(self, store: SnapshotStore, damage: Damage) -> None:
        """Later ones do not count, not even when they are damaged."""
        for sequence in (9, 10):
            store.save(sequence, 3, _HASH, b"state %d" % sequence)
        damage(store, 10)
        for until, found in ((8, None), (9, 9), (10, 9), (10**18, 9)):
            snapshot = store.latest(until)
            assert (snapshot.sequence if snapshot is not None else None) == found
            assert len(list(store.damaged)) == (until > 9)

    def test_the_same_sequence_is_replaced(self, store: SnapshotStore) -> None:
        """As after an upgrade of the fold."""
        store.save(5, 1, _HASH, b"old")
        store.save(5, 2, _HASH, b"new")
        assert store.latest() == Snapshot(5, 2, _HASH, b"new")

    def test_a_damaged_one_is_named_and_skipped(self, store: SnapshotStore, damage: Damage) -> None:
        """The one before is used; when all are damaged there is none."""
        store.save(5, 1, _HASH, b"good")
        store.save(7, 1, _HASH, b"bad" * 1000)
        damage(store, 7)
        assert store.latest() == Snapshot(5, 1, _HASH, b"good")
        assert len(list(store.damaged)) == 1
        assert "7" in store.damaged[0]
        damage(store, 5)
        assert store.latest() is None
        assert len(list(store.damaged)) == 2
        store.save(9, 1, _HASH, b"better")
        assert store.latest() == Snapshot(9, 1, _HASH, b"better")
        assert len(list(store.damaged)) == 0

    def test_all_are_kept_until_they_are_dropped(self, store: SnapshotStore, damage: Damage) -> None:
        """Those that are damaged are told of as well, and dropped like others."""
        assert store.sequences() == {}
        store.drop([1])
        for sequence in (7, 100, 9):
            store.save(sequence, 1, _HASH, b"state %d" % sequence)
        damage(store, 9)
        stored = store.sequences()
        assert list(stored) == [7, 9, 100]
        assert all(size > 0 for size in stored.values())
        store.drop([9, 100, 8])
        assert list(store.sequences()) == [7]
        assert store.latest() == Snapshot(7, 1, _HASH, b"state 7")
        store.drop(store.sequences())
        assert store.latest() is None
        assert len(list(store.damaged)) == 0

    def test_empty_and_large(self, store: SnapshotStore) -> None:
        """Any bytes are kept as they are."""
        store.save(0, 0, _HASH, b"")
        assert store.latest() == Snapshot(0, 0, _HASH, b"")
        large = bytes(range(256)) * 20_000
        store.save(1, 0, _HASH, large)
        assert store.latest() == Snapshot(1, 0, _HASH, large)

    @pytest.mark.parametrize(("sequence", "version", "digest"), [(-1, 0, _HASH), (0, -1, _HASH), (0, 0, b"short")])
    def test_nonsense_is_refused(self, store: SnapshotStore, sequence: int, version: int, digest: bytes) -> None:
        """With a reason, and nothing is stored."""
        with pytest.raises(ValueError, match="must be"):
            store.save(sequence, version, digest, b"")
        assert store.latest() is None
