import pytest

from merit.ports.snapshots import SnapshotUnavailable
from merit.storage.file_snapshots import FileSnapshots
from merit.storage.memory_snapshots import MemorySnapshots
from merit.testing.snapshot_contract import SnapshotContract

HASH = bytes(32)


class TestMemorySnapshots(SnapshotContract):
    @pytest.fixture
    def store(self):
        return MemorySnapshots()

    @pytest.fixture
    def damage(self):
        return lambda store, sequence: store.damage(sequence)


class TestFileSnapshots(SnapshotContract):
    @pytest.fixture
    def store(self, tmp_path):
        return FileSnapshots(tmp_path / "made" / "when missing")

    @pytest.fixture
    def damage(self, tmp_path):
        def flip(_store, sequence):
            path = tmp_path / "made" / "when missing" / f"snapshot-{sequence:020}.bin"
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)

        return flip


@pytest.mark.parametrize("length", [0, 5, 11, 30, 43, 44, 60, -1])
def test_a_file_that_was_cut_off_is_skipped(tmp_path, length):
    store = FileSnapshots(tmp_path)
    store.save(1, 1, HASH, b"good")
    store.save(2, 1, HASH, b"state" * 100)
    path = tmp_path / f"snapshot-{2:020}.bin"
    path.write_bytes(path.read_bytes()[:length])
    latest = store.latest()
    assert latest is not None
    assert latest.sequence == 1
    assert str(path) in store.damaged[0]


def test_a_renamed_file_is_skipped(tmp_path):
    store = FileSnapshots(tmp_path)
    store.save(1, 1, HASH, b"good")
    (tmp_path / f"snapshot-{1:020}.bin").rename(tmp_path / f"snapshot-{9:020}.bin")
    assert store.latest() is None
    assert "of sequence 1" in store.damaged[0]


def test_what_a_killed_writer_left_is_removed_and_other_files_are_not(tmp_path):
    (tmp_path / "abc.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    FileSnapshots(tmp_path).save(1, 1, HASH, b"good")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", f"snapshot-{1:020}.bin"]


def test_a_failed_sync_leaves_the_old_ones(tmp_path, monkeypatch):
    store = FileSnapshots(tmp_path)
    store.save(1, 1, HASH, b"good")

    def fail(_descriptor):
        raise OSError(5, "planned")

    monkeypatch.setattr("merit.storage.durable_files.os.fsync", fail)
    with pytest.raises(SnapshotUnavailable, match="planned"):
        store.save(2, 1, HASH, b"better")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [f"snapshot-{1:020}.bin"]
    latest = store.latest()
    assert latest is not None
    assert latest.data == b"good"


def test_a_place_that_is_no_directory_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SnapshotUnavailable, match="file"):
        FileSnapshots(tmp_path / "file" / "below").save(1, 1, HASH, b"")
