import apsw
import pytest

from merit.model.record import after
from merit.ports.archive import Archived, ArchiveUnavailable
from merit.storage.memory_archive import MemoryArchive
from merit.storage.sqlite_archive import SqliteArchive
from merit.testing.archive_contract import ARCHIVED_CELL, ArchiveContract, an_anchor, some_records, without_payloads
from merit.testing.sqlite_faults import WatchedVfs, sqlite_error


class TestMemoryArchive(ArchiveContract):
    @pytest.fixture
    def open_archive(self):
        archive = MemoryArchive(ARCHIVED_CELL)
        return lambda: archive


class TestSqliteArchive(ArchiveContract):
    @pytest.fixture
    def open_archive(self, tmp_path):
        opened = []

        def another():
            opened.append(SqliteArchive(tmp_path / "made when missing" / "archive.sqlite3", ARCHIVED_CELL))
            return opened[-1]

        yield another
        for archive in opened:
            archive.close()


@pytest.fixture
def filled(tmp_path):
    """The path of a closed archive of 30 records in 3 segments, with one anchor."""
    path = tmp_path / "archive.sqlite3"
    archive = SqliteArchive(path, ARCHIVED_CELL)
    records = some_records(30)
    for start in range(0, 30, 10):
        archive.add_segment(records[start : start + 10])
    archive.add_anchor(an_anchor(records))
    archive.close()
    return path


def execute(path, statement):
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    connection.close()


def test_reading_makes_no_file(tmp_path):
    archive = SqliteArchive(tmp_path / "archive.sqlite3", ARCHIVED_CELL)
    assert archive.held() == Archived()
    assert archive.last_anchor() is None
    assert list(tmp_path.iterdir()) == []


def test_only_the_owner_may_read(filled):
    archive = SqliteArchive(filled, ARCHIVED_CELL)
    archive.add_segment(some_records(1, after(some_records(30)[-1])))
    assert {path.name for path in filled.parent.iterdir() if path.stat().st_mode & 0o077} == set()
    archive.close()
    assert [path.name for path in filled.parent.iterdir()] == ["archive.sqlite3"]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("PRAGMA application_id = 1", "is not an archive of Merit"),
        ("PRAGMA user_version = 2", "has format 2, and this version of Merit reads format 1"),
        ("UPDATE meta SET cell = 'another'", "is not the archive of cell"),
        ("DROP TABLE segments", "is damaged"),
    ],
)
def test_what_is_no_archive_is_left_alone(filled, statement, message):
    execute(filled, statement)
    archive = SqliteArchive(filled, ARCHIVED_CELL)
    for use in (archive.held, lambda: list(archive.records(1, 9)), lambda: archive.add_segment(some_records(1))):
        with pytest.raises(ArchiveUnavailable, match=message):
            use()


@pytest.mark.parametrize(
    "data", ["zeroblob(length(data))", "substr(data, 1, length(data) - 5)", "x''", "x'789c6360000000020001'"]
)
def test_a_damaged_segment_is_named_and_the_others_can_be_read(filled, data):
    execute(filled, f"UPDATE segments SET data = CAST({data} AS BLOB) WHERE first = 21")
    archive = SqliteArchive(filled, ARCHIVED_CELL)
    with pytest.raises(ArchiveUnavailable, match="the segment that begins at 21 is damaged"):
        list(archive.records(1, 60))
    assert list(archive.records(41, 60)) == without_payloads(some_records(30)[20:])
    archive.close()


def test_a_damaged_file_is_named(filled):
    filled.write_bytes(b"nothing of the kind" * 1_000)
    archive = SqliteArchive(filled, ARCHIVED_CELL)
    with pytest.raises(ArchiveUnavailable, match="restore it from a copy"):
        archive.held()


def test_a_closed_one_says_so(filled):
    archive = SqliteArchive(filled, ARCHIVED_CELL)
    archive.close()
    with pytest.raises(ArchiveUnavailable, match="is closed"):
        archive.held()
    with pytest.raises(ArchiveUnavailable, match="is closed"):
        archive.add_segment(some_records(1))


def test_a_place_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArchiveUnavailable, match="check permissions"):
        SqliteArchive(tmp_path / "file" / "archive.sqlite3", ARCHIVED_CELL).add_segment(some_records(1))


@pytest.mark.parametrize(("kind", "code"), [("write", apsw.SQLITE_FULL), ("sync", apsw.SQLITE_IOERR_FSYNC)])
def test_a_disk_that_fails_at_any_step(tmp_path, kind, code):
    """Nothing is half there, and once the disk is well again the same can be done again."""
    records = some_records(20)
    for number in range(60):
        path = tmp_path / str(number) / "archive.sqlite3"
        left = number
        failed = False

        def fail(step, perform):
            nonlocal left, failed
            if step.kind == kind:
                left -= 1
                if left < 0:
                    failed = True
                    raise sqlite_error(code)
            perform(step.data)

        vfs = WatchedVfs("failing archive", fail)
        try:
            archive = SqliteArchive(path, ARCHIVED_CELL, vfs="failing archive")
            try:
                archive.add_segment(records[:10])
                archive.add_anchor(an_anchor(records))
            except ArchiveUnavailable as error:
                assert str(path) in str(error)  # noqa: PT017 (it may be raised, or not)
            finally:
                archive.close()
        finally:
            vfs.unregister()
        archive = SqliteArchive(path, ARCHIVED_CELL)
        assert archive.held().last in {0, 20}
        archive.add_segment(records)
        archive.add_anchor(an_anchor(records))
        assert list(archive.records(1, 40)) == without_payloads(records)
        assert archive.held().anchored == 40
        archive.close()
        if not failed:
            assert number > 3
            return
    pytest.fail("more steps than were tried")
