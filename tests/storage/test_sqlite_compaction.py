"""What compaction does to the file, and what the journals of before make of it."""

import os
import threading
import time
from zlib import crc32

import apsw
import pytest

from merit.model.record import Tail, after, encode_record, header_hash
from merit.ports.journal import Fenced, JournalCorrupt, JournalUnavailable
from merit.storage import sqlite_compaction
from merit.storage.sqlite_journal import SqliteJournal
from merit.storage.sqlite_reader import open_reader
from merit.storage.verify import verify_journal
from merit.testing.journal_contract import CELL, batch, compact_all
from merit.testing.sqlite_faults import WatchedVfs, sqlite_error

FORMAT_1 = """
PRAGMA page_size = 8192;
PRAGMA application_id = 0x4D524A31;
PRAGMA user_version = 1;
PRAGMA journal_mode = wal;
CREATE TABLE meta (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    cell TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    holder TEXT NOT NULL,
    led_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE records (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    hash BLOB NOT NULL,
    payloads_crc INTEGER NOT NULL,
    header BLOB NOT NULL,
    events BLOB NOT NULL,
    payloads BLOB NOT NULL
) STRICT;
"""


def file_of_format_1(directory, count):
    """As version 0.1 of Merit made it, with `count` records; returns them."""
    connection = apsw.Connection(str(directory / "journal.sqlite3"))
    connection.execute(FORMAT_1).fetchall()
    connection.execute("INSERT INTO meta VALUES (1, ?, 4, 'then', 1)", (CELL,))
    records, tail = [], Tail(epoch=4)
    for _ in range(count):
        record = batch(tail, [b"event"] * 3, [b"payload"])
        header, events, payloads = encode_record(record)
        connection.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.first,
                record.last,
                record.epoch,
                record.time_ns,
                header_hash(header),
                crc32(payloads),
                header,
                events,
                payloads,
            ),
        )
        records.append(record)
        tail = after(record)
    connection.close()
    return records


def append_many(journal, tail, count, size=2_000):
    for _ in range(count):
        record = batch(tail, [os.urandom(size)] * 2, [b"payload"])
        journal.append(record)
        tail = after(record)
    return tail


@pytest.mark.parametrize("count", [0, 5])
def test_a_file_of_format_1_is_read_and_upgraded_by_the_next_leader(tmp_path, count):
    records = file_of_format_1(tmp_path, count)
    with open_reader(tmp_path) as reader:
        for _ in range(2):  # before the upgrade, and by a reader that was there when it came
            assert reader.base() == Tail()
            assert list(reader.read()) == records
            assert verify_journal(reader).ok
            assert reader.size_bytes() > 0
            with SqliteJournal(tmp_path, CELL) as journal:
                tail = journal.lead("now", 2)
                assert tail.next == 3 * count + 1
                assert tail.epoch > 4
        with SqliteJournal(tmp_path, CELL) as journal:
            tail = append_many(journal, journal.lead("now", 3), 3)
            compact_all(journal, tail.next)
            assert reader.base() == journal.base() != Tail()
            assert list(reader.read()) == list(journal.read())
            assert len(list(reader.read())) == 1


def test_an_upgrade_that_is_cut_short_is_done_again(tmp_path):
    for number in range(40):
        directory = tmp_path / str(number)
        directory.mkdir()
        records = file_of_format_1(directory, 3)
        left = number

        def fail(step, perform):
            nonlocal left
            left -= 1
            if left < 0:
                raise sqlite_error(apsw.SQLITE_IOERR_WRITE)
            perform(step.data)

        vfs = WatchedVfs("upgrade", fail)
        try:
            with SqliteJournal(directory, CELL, vfs="upgrade") as journal:
                journal.lead("now", 2)
            done = True
        except JournalUnavailable:
            done = False
        finally:
            vfs.unregister()
        with SqliteJournal(directory, CELL) as journal:
            journal.lead("again", 3)
            assert list(journal.read()) == records
            assert journal.base() == Tail()
        if done:
            assert number > 3
            return
    pytest.fail("the upgrade took more steps than were tried")


def test_a_long_run_of_appends_and_compaction_keeps_the_file_bounded(tmp_path):
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = journal.lead("a", 1)
        sizes, used = [], []
        for _ in range(30):
            tail = append_many(journal, tail, 100)
            compact_all(journal, tail.next - 200)
            journal.checkpoint()
            sizes.append((tmp_path / "journal.sqlite3").stat().st_size)
            used.append(journal.size_bytes())
        assert max(sizes[5:]) <= sizes[5] * 1.1  # 25 times as much has been appended since
        assert max(used[5:]) < 200 * 4_500 * 1.5
        assert verify_journal(journal).records == 100


def test_what_is_freed_does_not_count(tmp_path):
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = append_many(journal, journal.lead("a", 1), 300)
        journal.checkpoint()
        before = journal.size_bytes()
        compact_all(journal, tail.next)
        journal.checkpoint()
        assert journal.size_bytes() < before / 10
        with open_reader(tmp_path) as reader:
            assert reader._content_bytes() == journal.size_bytes()


def test_appends_checkpoints_and_readers_go_on_beside_it(tmp_path):
    until = [1]
    done = threading.Event()
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = journal.lead("a", 1)

        def keep():
            while not done.wait(0.001):
                journal.compact(until[0])
                if journal.checkpoint_due:
                    journal.checkpoint()

        thread = threading.Thread(target=keep)
        thread.start()
        try:
            slowest_s = 0.0
            for _ in range(1_500):
                record = batch(tail, [os.urandom(2_000)] * 4)
                began_s = time.perf_counter()
                journal.append(record)
                slowest_s = max(slowest_s, time.perf_counter() - began_s)
                tail = after(record)
                until[0] = tail.next - 400
        finally:
            done.set()
            thread.join()
        assert slowest_s < 5  # a matter of milliseconds, but machines of tests are busy
        assert journal.base().next > 4_000
        assert journal.tail() == tail
        assert verify_journal(journal).ok
    with SqliteJournal(tmp_path, CELL) as journal:
        assert journal.lead("b", 2).next == tail.next


def test_a_portion_is_bounded(tmp_path, monkeypatch):
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = append_many(journal, journal.lead("a", 1), 5)
        tail = append_many(journal, tail, 3, size=2_000_000)
        tail = append_many(journal, tail, 5)
        begins = [journal.base().next]
        while (first := journal.compact(tail.next)) > begins[-1]:
            begins.append(first)
        assert begins == [1, 11, 13, 15, 17, 25]  # the large ones go alone
        monkeypatch.setattr(sqlite_compaction, "PORTION_RECORDS_MAX", 2)
        tail = append_many(journal, tail, 3)
        assert journal.compact(tail.next) == 29


def test_who_leads_no_more_removes_nothing(tmp_path):
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = append_many(journal, journal.lead("a", 1), 5)
        other = apsw.Connection(str(tmp_path / "journal.sqlite3"))
        other.execute("UPDATE meta SET epoch = epoch + 1")
        other.close()
        with pytest.raises(Fenced, match="somebody else leads"):
            journal.compact(tail.next)
        with pytest.raises(JournalUnavailable, match="open it again"):
            append_many(journal, tail, 1)
        with open_reader(tmp_path) as reader:
            assert len(list(reader.read())) == 5


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM records WHERE first = 1",
        "DELETE FROM records WHERE first = 5",
        "UPDATE records SET last = 7 WHERE first = 3",
        "UPDATE records SET epoch = 0 WHERE first = 5",
    ],
)
def test_damage_is_not_removed_and_stops_nobody(tmp_path, statement):
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = append_many(journal, journal.lead("a", 1), 6)
        other = apsw.Connection(str(tmp_path / "journal.sqlite3"))
        other.execute(statement)
        other.close()
        with pytest.raises(JournalCorrupt, match="does not follow"):
            journal.compact(tail.next)
        assert journal.base() == Tail()
        append_many(journal, tail, 1)


@pytest.mark.parametrize(("kind", "code"), [("write", apsw.SQLITE_FULL), ("sync", apsw.SQLITE_IOERR_FSYNC)])
def test_a_disk_that_fails_while_it_removes_stops_the_journal(tmp_path, kind, code):
    failing = False

    def fail(step, perform):
        if failing and step.kind == kind:
            raise sqlite_error(code)
        perform(step.data)

    vfs = WatchedVfs("removing", fail)
    try:
        with SqliteJournal(tmp_path, CELL, vfs="removing") as journal:
            tail = append_many(journal, journal.lead("a", 1), 5)
            failing = True
            with pytest.raises(JournalUnavailable, match="start again"):
                journal.compact(tail.next)
            failing = False
            with pytest.raises(JournalUnavailable, match="open it again"):
                append_many(journal, tail, 1)
    finally:
        vfs.unregister()
    with SqliteJournal(tmp_path, CELL) as journal:
        assert journal.lead("b", 2).next == tail.next
        assert verify_journal(journal).ok


def test_a_journal_that_lost_all_records_is_not_begun_anew(tmp_path):
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = append_many(journal, journal.lead("a", 1), 3)
        compact_all(journal, tail.next)
    other = apsw.Connection(str(tmp_path / "journal.sqlite3"))
    other.execute("DELETE FROM records")
    other.close()
    with SqliteJournal(tmp_path, CELL) as journal, pytest.raises(JournalCorrupt, match="never removes the last"):
        journal.lead("b", 2)
    with open_reader(tmp_path) as reader:
        found = verify_journal(reader)
    assert [problem.sequence for problem in found.problems] == [5]


def test_another_base_is_noticed(tmp_path):
    with SqliteJournal(tmp_path, CELL) as journal:
        tail = append_many(journal, journal.lead("a", 1), 5)
        compact_all(journal, 5)
    other = apsw.Connection(str(tmp_path / "journal.sqlite3"))
    other.execute("UPDATE meta SET base_hash = zeroblob(32)")
    other.close()
    with open_reader(tmp_path) as reader:
        assert [problem.sequence for problem in verify_journal(reader).problems] == [5]
        with pytest.raises(JournalCorrupt, match="the chain is broken"):
            list(reader.read())
        assert reader.tail().next == tail.next
