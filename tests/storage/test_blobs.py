import fcntl
import os
import time
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.ports.blobs import BlobCorrupt, BlobUnavailable
from merit.storage import file_blobs
from merit.storage.file_blobs import FileBlobs, tenant_directory
from merit.storage.memory_blobs import MemoryBlobs
from merit.testing.blob_contract import HOSTILE_TENANTS, BlobContract


class TestMemoryBlobs(BlobContract):
    @pytest.fixture
    def open_blobs(self):
        return cache(MemoryBlobs)  # what lasts as long as the object has no second one


class TestFileBlobs(BlobContract):
    @pytest.fixture
    def open_blobs(self, tmp_path):
        return lambda bytes_max, clock: FileBlobs(tmp_path / "blobs", bytes_max, clock)


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


@given(st.lists(st.text(min_size=1, max_size=20), unique=True, min_size=2, max_size=20))
def test_tenants_never_share_a_directory_and_never_leave_the_store(tenants):
    names = [tenant_directory(tenant) for tenant in tenants]
    assert len({name.casefold() for name in names}) == len(tenants)
    for name in names:
        assert Path("/store", name).resolve() == Path("/store") / name
        assert "/" not in name
        assert len(name) <= 255


def test_hostile_tenants_stay_inside(tmp_path):
    store = tmp_path / "store"
    for tenant in HOSTILE_TENANTS:
        FileBlobs(store).put(tenant, b"x")
    assert len(files(tmp_path)) == len(files(store / "tenants")) == len(HOSTILE_TENANTS)


@pytest.mark.parametrize("damage", [b"", b"other", b"much longer than it was"])
def test_damage_is_found_and_putting_again_heals(tmp_path, damage):
    blobs = FileBlobs(tmp_path)
    digest = blobs.put("tenant", b"right")
    files(tmp_path / "tenants")[0].write_bytes(damage)
    with pytest.raises(BlobCorrupt, match=digest):
        blobs.get("tenant", digest)
    blobs.put("tenant", b"right")
    assert blobs.get("tenant", digest) == b"right"


def test_only_the_owner_may_read(tmp_path):
    FileBlobs(tmp_path / "store").put("tenant", b"secret")
    assert (tmp_path / "store").stat().st_mode & 0o077 == 0
    assert files(tmp_path)[0].stat().st_mode & 0o077 == 0


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    blobs = FileBlobs(tmp_path)

    def fail(_descriptor):
        raise OSError(28, "planned: no space")

    monkeypatch.setattr("merit.storage.durable_files.os.fsync", fail)
    with pytest.raises(BlobUnavailable, match="no space"):
        blobs.put("tenant", b"x")
    monkeypatch.undo()
    assert files(tmp_path) == []
    assert not blobs.has("tenant", sha256(b"x").hexdigest())


def test_everything_is_synced_before_it_is_named(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor):
        steps.append("directory" if Path(f"/dev/fd/{descriptor}").is_dir() else "file")
        fsync(descriptor)

    def note_replace(self, target):
        steps.append("rename")
        return replace(self, target)

    blobs = FileBlobs(tmp_path)
    blobs.put("tenant", b"first, which makes directories")
    monkeypatch.setattr("merit.storage.durable_files.os.fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    blobs.put("tenant", b"second")
    assert steps[-3:] == ["file", "rename", "directory"]


def test_old_scratch_is_swept_and_young_is_kept(tmp_path):
    blobs = FileBlobs(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name, age_s in (("old.tmp", 100_000), ("young.tmp", 10)):
        (scratch / name).write_bytes(b"half")
        os.utime(scratch / name, (time.time() - age_s,) * 2)
    blobs.put("tenant", b"x")
    assert [path.name for path in scratch.iterdir()] == ["young.tmp"]


def test_a_sweep_that_stands_still_is_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(file_blobs, "_LOCK_S", 0.05)
    blobs = FileBlobs(tmp_path)
    digest = blobs.put("tenant", b"x")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(BlobUnavailable, match="stands still"):
            blobs.touch("tenant", digest)
        assert blobs.get("tenant", digest) == b"x"
    finally:
        os.close(descriptor)  # as when the process ends
    blobs.touch("tenant", digest)


def test_a_sweep_does_not_wait_for_those_who_touch(tmp_path):
    blobs = FileBlobs(tmp_path)
    digest = blobs.put("tenant", b"x")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        assert blobs.sweep(2**62, lambda *_: False, 10) == 0
        assert blobs.has("tenant", digest)
    finally:
        os.close(descriptor)
    assert blobs.sweep(2**62, lambda *_: False, 10) == 1


def test_a_sweep_leaves_alone_what_is_no_blob(tmp_path):
    blobs = FileBlobs(tmp_path / "blobs")
    digest = blobs.put("tenant", b"x")
    (blob,) = files(tmp_path)
    notes = (blob.with_name("notes"), blob.parent.parent / "notes", tmp_path / "blobs" / "tenants" / "notes")
    for note in notes:
        note.write_bytes(b"somebody else's")
    assert blobs.sweep(2**62, lambda *_: False, 10) == 1
    assert not blobs.has("tenant", digest)
    assert set(files(tmp_path)) == set(notes)
