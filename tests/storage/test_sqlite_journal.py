import os
import subprocess
import sys
import threading

import apsw
import pytest

from merit.model.record import Tail, after, record_hash
from merit.ports.journal import JournalCorrupt, JournalForeign, JournalUnavailable, LeaderElsewhere
from merit.storage import sqlite_journal
from merit.storage.sqlite_journal import SqliteJournal
from merit.storage.sqlite_reader import open_reader
from merit.storage.verify import verify_journal
from merit.testing.journal_contract import CELL, JournalContract, batch
from merit.testing.sqlite_faults import WatchedVfs, sqlite_error


class TestSqliteJournal(JournalContract):
    @pytest.fixture
    def open_journal(self, tmp_path):
        opened = []

        def another():
            opened.append(SqliteJournal(tmp_path / "made" / "when missing", CELL))
            return opened[-1]

        yield another
        for journal in opened:
            journal.close()


@pytest.fixture
def filled(tmp_path):
    """A closed journal of 40 records of 5 events, 20 kB each."""
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = journal.lead("a", 1)
        for _ in range(40):
            record = batch(tail, [os.urandom(4000) for _ in range(5)], [b"payload"])
            journal.append(record)
            tail = after(record)
    return tmp_path


def execute(directory, statement, *values):
    connection = apsw.Connection(str(directory / "journal.sqlite3"))
    connection.execute(statement, values)
    connection.close()


def check_start_is_refused(directory, error, match):
    with SqliteJournal(directory, CELL) as journal, pytest.raises(error, match=match):
        journal.lead("b", 2)
        list(journal.read())


# --- what is not a journal, or not this one


def test_a_foreign_file_is_left_alone(tmp_path):
    path = tmp_path / "journal.sqlite3"
    execute(tmp_path, "CREATE TABLE mine (x)")
    before = path.read_bytes()
    check_start_is_refused(tmp_path, JournalForeign, "is not a journal of Merit")
    with pytest.raises(JournalForeign, match="is not a journal of Merit"):
        open_reader(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"this is no database at all" * 100])
def test_what_is_no_database_is_left_alone(tmp_path, content):
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(content)
    check_start_is_refused(tmp_path, JournalForeign, r"is not (a journal of Merit|an SQLite file)")
    assert path.read_bytes() == content


def test_another_format_is_refused(filled):
    execute(filled, "PRAGMA user_version = 3")
    check_start_is_refused(filled, JournalForeign, "has format 3, and this version of Merit reads format 2")


def test_another_cell_is_refused(filled):
    with SqliteJournal(filled, "another") as journal, pytest.raises(JournalForeign, match=f"of cell '{CELL}'"):
        journal.lead("b", 2)
    with pytest.raises(JournalForeign, match="'another'"):
        open_reader(filled, "another")
    with open_reader(filled) as reader:
        assert reader.cell == CELL


def test_missing_tables_are_named(filled):
    execute(filled, "DROP TABLE meta")
    check_start_is_refused(filled, JournalForeign, "does not have the tables")


def test_a_log_without_its_file_is_not_covered_up(filled):
    (filled / "journal.sqlite3").rename(filled / "journal.sqlite3-wal")
    check_start_is_refused(filled, JournalForeign, "is missing, but its log")


def test_a_creation_that_was_cut_short_is_begun_anew(tmp_path):
    for name in ("journal.sqlite3.new", "journal.sqlite3.new-journal"):
        (tmp_path / name).write_bytes(b"half")
    with SqliteJournal(tmp_path, CELL) as journal:
        assert journal.lead("a", 1).next == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.sqlite3", "leader.lock"]


def test_nothing_is_there_to_read(tmp_path):
    with pytest.raises(JournalUnavailable, match="there is no journal"):
        open_reader(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    check_start_is_refused(tmp_path / "file" / "below", JournalUnavailable, "file")


# --- damage


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM records WHERE first = 51", "a gap: the record starts at 56, but 51 was expected"),
        ("UPDATE records SET first = 52 WHERE first = 51", "columns of the row were altered"),
        ("UPDATE records SET last = 54 WHERE first = 51", "columns of the row were altered"),
        ("UPDATE records SET epoch = 9 WHERE first = 51", "columns of the row were altered"),
        ("UPDATE records SET time_ns = 9 WHERE first = 51", "columns of the row were altered"),
        ("UPDATE records SET hash = zeroblob(32) WHERE first = 51", "the header was altered"),
        ("UPDATE records SET header = CAST(x'98' || substr(header, 2) AS BLOB) WHERE first = 51", "header"),
        ("UPDATE records SET header = CAST(x'9902' || substr(header, 3) AS BLOB) WHERE first = 51", "format 2"),
        ("UPDATE records SET header = x'' WHERE first = 51", "the header cannot be decoded"),
        ("UPDATE records SET events = substr(events, 1, 99) WHERE first = 51", "the events cannot be decoded"),
        ("UPDATE records SET events = x'90' WHERE first = 51", "counts 5 events, and there are 0"),
        (
            "UPDATE records SET events = CAST(substr(events, 1, 5000) || x'0000' || substr(events, 5003) AS BLOB) WHERE first = 51",
            "events were altered",
        ),
        ("UPDATE records SET payloads = x'90' WHERE first = 51", "payloads were altered"),
        ("UPDATE records SET payloads_crc = 1 WHERE first = 51", "payloads were altered"),
    ],
)
def test_an_altered_row_is_named_and_the_others_are_still_checked(filled, statement, reason):
    execute(filled, statement)
    check_start_is_refused(filled, JournalCorrupt, reason)
    with open_reader(filled) as reader:
        verification = verify_journal(reader)
        assert not verification.ok
        assert [problem.sequence for problem in verification.problems] in ([51], [52], [56])
        assert reason in verification.problems[0].reason
        assert verification.last == 200
        assert len(list(reader.read(61))) == 28
        with pytest.raises(JournalCorrupt):
            list(reader.read(51))


def test_two_problems_are_both_named(filled):
    execute(filled, "UPDATE records SET events = zeroblob(length(events)) WHERE first IN (11, 101)")
    execute(filled, "DELETE FROM records WHERE first IN (51, 151)")
    with open_reader(filled) as reader:
        verification = verify_journal(reader)
    assert [problem.sequence for problem in verification.problems] == [11, 56, 101, 156]
    assert verification.problem_count == 4


def test_an_altered_last_row_stops_the_start(filled):
    execute(
        filled,
        "UPDATE records SET header = CAST(substr(header, 1, 30) || x'0000' || substr(header, 33) AS BLOB) WHERE first = 196",
    )
    with SqliteJournal(filled, CELL) as journal, pytest.raises(JournalCorrupt, match="sequence 196"):
        journal.lead("b", 2)
    # and nobody is kept from repairing it by a lock that was left
    execute(filled, "DELETE FROM records WHERE first = 196")
    with SqliteJournal(filled, CELL) as journal:
        assert journal.lead("b", 2).next == 196


def test_every_torn_page_is_noticed(filled):
    """Zeros over each page in turn: the start is refused or reading is, and verifying names it; nothing is ever read wrongly."""
    path = filled / "journal.sqlite3"
    whole = path.read_bytes()
    with open_reader(filled) as reader:
        records = list(reader.read())
    unnoticed = []
    for page in range(len(whole) // 8192):
        path.write_bytes(whole[: page * 8192] + bytes(8192) + whole[(page + 1) * 8192 :])
        for leftover in ("journal.sqlite3-wal", "journal.sqlite3-shm"):
            (filled / leftover).unlink(missing_ok=True)
        try:
            with open_reader(filled) as reader:
                verification = verify_journal(reader)
                if verification.ok:
                    unnoticed.append(page)
                    assert list(reader.read()) == records
                else:
                    assert verification.problem_count == len(verification.problems) > 0
        except (JournalForeign, JournalCorrupt, JournalUnavailable):
            continue
    assert unnoticed == []


def test_damaged_pages_do_not_hide_what_comes_after(filled):
    path = filled / "journal.sqlite3"
    content = bytearray(path.read_bytes())
    middle = len(content) // 8192 // 2
    content[middle * 8192 : (middle + 1) * 8192] = bytes(8192)
    path.write_bytes(content)
    with open_reader(filled) as reader:
        verification = verify_journal(reader)
    assert not verification.ok
    assert verification.last == 200
    assert verification.records >= 30


# --- leading


def test_a_leader_in_another_process_is_named_and_its_death_frees_the_lock(tmp_path):
    code = (
        "import sys, pathlib; from merit.storage.sqlite_journal import SqliteJournal;"
        f"j = SqliteJournal(pathlib.Path(sys.argv[1]), {CELL!r}); print(j.lead('the child', 1).epoch, flush=True);"
        "sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"1\n"
            with SqliteJournal(tmp_path, CELL) as journal:
                with pytest.raises(LeaderElsewhere, match=f"'the child' .process {child.pid}."):
                    journal.lead("me", 2)
                with open_reader(tmp_path) as reader:
                    assert reader.tail() == Tail(epoch=1)
                child.kill()
                child.wait(10)
                assert journal.lead("me", 2).epoch == 2
        finally:
            child.kill()


def test_a_reader_follows_the_leader(tmp_path):
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = journal.lead("a", 1)
        with open_reader(tmp_path) as reader:
            for number in range(1, 6):
                record = batch(tail)
                journal.append(record)
                tail = after(record)
                assert reader.tail() == tail
                assert sum(1 for _ in reader.read()) == number
                journal.checkpoint()
        with pytest.raises(JournalUnavailable, match="closed"):
            list(reader.read())


# --- the write-ahead log


def small_log(monkeypatch, due, limit):
    monkeypatch.setattr(sqlite_journal, "WAL_BYTES_DUE", due)
    monkeypatch.setattr(sqlite_journal, "WAL_BYTES_MAX", limit)
    monkeypatch.setattr(sqlite_journal, "_REST_BYTES", due // 8)
    monkeypatch.setattr(sqlite_journal, "_LOG_BYTES", 0)


def append_many(journal, tail, count):
    sizes = []
    for _ in range(count):
        record = batch(tail, [os.urandom(5000) for _ in range(4)])
        journal.append(record)
        tail = after(record)
        sizes.append(journal.size_bytes())
    return tail, sizes


def log_bytes(directory):
    return (directory / "journal.sqlite3-wal").stat().st_size


def test_checkpoints_beside_a_busy_writer_bound_the_log(tmp_path, monkeypatch):
    small_log(monkeypatch, due=400_000, limit=10**9)
    done = threading.Event()
    checkpoints = []
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = journal.lead("a", 1)

        def keep_short():
            while not done.wait(0.001):
                if journal.checkpoint_due:
                    checkpoints.append(journal.checkpoint())

        thread = threading.Thread(target=keep_short)
        thread.start()
        try:
            while len(checkpoints) < 10:
                tail, _ = append_many(journal, tail, 20)
        finally:
            done.set()
            thread.join()
        assert all(checkpoint.log_bytes_after == 0 for checkpoint in checkpoints)
        assert log_bytes(tmp_path) < journal.size_bytes() / 2
        assert verify_journal(journal).ok
        assert journal.tail() == tail


def test_without_checkpoints_the_log_is_bounded_by_the_appends(tmp_path, monkeypatch):
    small_log(monkeypatch, due=10**8, limit=500_000)
    with SqliteJournal(tmp_path, CELL) as journal:
        append_many(journal, journal.lead("a", 1), 100)
        assert log_bytes(tmp_path) < 600_000
        assert verify_journal(journal).ok


def test_a_log_that_cannot_be_bounded_refuses_the_next_append_only(tmp_path, monkeypatch):
    small_log(monkeypatch, due=10**8, limit=200_000)

    def full(step, perform):
        if step.path.endswith(".sqlite3") and stored:
            raise sqlite_error(apsw.SQLITE_FULL)
        perform(step.data)

    stored = []
    vfs = WatchedVfs("full", full)
    try:
        with SqliteJournal(tmp_path, CELL, vfs="full") as journal:
            tail = journal.lead("a", 1)
            with pytest.raises(JournalUnavailable, match="the disk is full"):
                for _ in range(100):
                    record = batch(tail, [os.urandom(5000) for _ in range(4)])
                    journal.append(record)
                    stored.append(record)
                    tail = after(record)
    finally:
        vfs.unregister()
    assert len(stored) > 3
    with SqliteJournal(tmp_path, CELL) as journal:
        journal.lead("b", 2)
        assert list(journal.read()) == stored


def test_only_the_owner_may_read(tmp_path):
    with SqliteJournal(tmp_path, CELL) as journal:
        append_many(journal, journal.lead("a", 1), 1)
        assert {path.name for path in tmp_path.iterdir() if path.stat().st_mode & 0o077} == set()


def test_a_reader_that_stays_in_a_transaction_delays_the_reuse_only(tmp_path, monkeypatch):
    small_log(monkeypatch, due=200_000, limit=400_000)
    with SqliteJournal(tmp_path, CELL) as journal:
        tail, _ = append_many(journal, journal.lead("a", 1), 5)
        stuck = apsw.Connection(str(tmp_path / "journal.sqlite3"), flags=apsw.SQLITE_OPEN_READONLY)
        cursor = stuck.execute("SELECT first FROM records")
        next(cursor)
        tail, _ = append_many(journal, tail, 50)
        assert log_bytes(tmp_path) > 1_000_000
        assert journal.checkpoint().log_bytes_after > 0
        assert not journal.checkpoint_due  # trying again at once would be of no use
        cursor.close(force=True)
        stuck.close()
        assert journal.checkpoint().log_bytes_after == 0
        tail, _ = append_many(journal, tail, 5)
        assert log_bytes(tmp_path) <= 4 * 200_000
        assert journal.tail() == tail
        assert verify_journal(journal).ok


def test_a_slow_reader_keeps_nobody_waiting(filled):
    """Between its chunks a reader is in no transaction."""
    with SqliteJournal(filled, CELL) as journal, open_reader(filled) as reader:
        journal.lead("b", 2)
        reading = reader.read()
        first = next(reading)
        append_many(journal, journal.tail(), 5)
        assert journal.checkpoint().log_bytes_after == 0
        rest = list(reading)
        assert rest[0].previous == record_hash(first)


def test_after_closing_one_file_holds_everything(filled):
    assert sorted(path.name for path in filled.iterdir()) == ["journal.sqlite3", "leader.lock"]


def test_an_interrupted_append_stops_the_journal(tmp_path, monkeypatch):
    with SqliteJournal(tmp_path, CELL) as journal:
        record = batch(journal.lead("a", 1))

        def interrupt(_self, _connection, _database, _pages):
            raise KeyboardInterrupt

        monkeypatch.setattr(SqliteJournal, "_note_log", interrupt)
        journal._writer.set_wal_hook(journal._note_log)
        with pytest.raises(KeyboardInterrupt):
            journal.append(record)
        monkeypatch.undo()
        with pytest.raises(JournalUnavailable, match="interrupted"):
            journal.append(record)
    with SqliteJournal(tmp_path, CELL) as journal:
        assert journal.lead("b", 2).next == 2  # it was stored; opening anew tells
