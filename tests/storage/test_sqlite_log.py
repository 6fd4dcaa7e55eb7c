"""Damage in the middle of the write-ahead log is found, and what a crash may leave is not taken for damage."""

import shutil
import struct
from contextlib import closing

import pytest

from merit.model.record import after
from merit.ports.journal import JournalCorrupt
from merit.storage.sqlite_journal import SqliteJournal
from merit.storage.sqlite_log import find_damage
from merit.storage.sqlite_reader import open_reader
from merit.storage.verify import verify_journal
from merit.testing.journal_contract import CELL, batch

FRAME = 24 + 8192
LOG = "journal.sqlite3-wal"
RECORDS = 30


def left_by_a_killed_process(directory, restarts=0):
    """A journal of `RECORDS` records, all in the log, or of twice as many whose log was begun anew in the middle."""
    made = directory.with_name(f"{directory.name}-made")
    with closing(SqliteJournal(made, CELL)) as journal:
        tail = journal.lead("a", 1)
        for _ in range(restarts + 1):
            if tail.next > 1:
                journal.checkpoint()
            for _ in range(RECORDS // (2 if tail.next > RECORDS else 1)):
                record = batch(tail, [b"x" * 7000] * 2, [b"payload"])
                journal.append(record)
                tail = after(record)
        shutil.copytree(made, directory, ignore=shutil.ignore_patterns("*-shm"))
    return directory


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory):
    return left_by_a_killed_process(tmp_path_factory.mktemp("log") / "killed")


@pytest.fixture
def killed(killed_once, tmp_path):
    return shutil.copytree(killed_once, tmp_path / "killed")


@pytest.fixture
def restarted(tmp_path):
    return left_by_a_killed_process(tmp_path / "restarted", restarts=1)


def transactions(log):
    """The transactions of the log's current life, each as the numbers of its frames, counted from 0."""
    found, current = [], []
    for number in range((len(log) - 32) // FRAME):
        _, pages, salts = struct.unpack_from(">2I8s", log, 32 + number * FRAME)
        if salts != log[16:24]:
            break
        current.append(number)
        if pages:
            found.append(current)
            current = []
    return found


def altered(directory, change):
    path = directory / LOG
    log = bytearray(path.read_bytes())
    change(log)
    path.write_bytes(log)


def flip(directory, offset):
    def change(log):
        log[offset] ^= 0x55

    altered(directory, change)


def check_damage(directory, frame):
    before = {name: (directory / name).read_bytes() for name in ("journal.sqlite3", LOG)}
    damage = find_damage(directory / "journal.sqlite3")
    assert damage is not None
    assert damage.frame == frame
    where = f"frame {frame} of the log" if frame else "the header of the log"
    with open_reader(directory) as reader:
        found = verify_journal(reader)
    assert found.problem_count == 1
    assert where in found.problems[0].reason
    assert found.problems[0].sequence == found.last + 1
    for _ in range(2):
        with closing(SqliteJournal(directory, CELL)) as journal, pytest.raises(JournalCorrupt, match=where) as refusal:
            journal.lead("b", 2)
        assert refusal.value.sequence == found.last + 1
    assert {name: (directory / name).read_bytes() for name in before} == before


def check_no_damage(directory, lost=0, records=RECORDS):
    assert find_damage(directory / "journal.sqlite3") is None
    with open_reader(directory) as reader:
        found = verify_journal(reader)
        assert found.ok
        assert found.records == records - lost
    with closing(SqliteJournal(directory, CELL)) as journal:
        assert journal.lead("b", 2).next == found.last + 1


@pytest.mark.parametrize("byte", [3, 8, 15, 23, 24 + 4000, FRAME - 1])
@pytest.mark.parametrize("place", [0, RECORDS // 2, -2])
@pytest.mark.parametrize("end", [0, -1], ids=["its first frame", "its commit frame"])
def test_one_altered_byte_is_found_and_stops_the_start(killed, place, byte, end):
    frame = transactions((killed / LOG).read_bytes())[place][end]
    flip(killed, 32 + frame * FRAME + byte)
    check_damage(killed, frame + 1)


@pytest.mark.parametrize("byte", range(1, 32, 3))
def test_an_altered_header_is_found(killed, byte):
    flip(killed, byte)
    check_damage(killed, 0)


def test_damage_behind_a_restart_is_found(restarted):
    frame = transactions((restarted / LOG).read_bytes())[3][0]
    flip(restarted, 32 + frame * FRAME + 500)
    check_damage(restarted, frame + 1)


def test_what_is_whole_is_not_damaged(killed):
    check_no_damage(killed)


def test_old_frames_behind_a_restart_are_not_damage(restarted):
    check_no_damage(restarted, records=RECORDS + RECORDS // 2)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_restarted_log_with_a_torn_first_transaction_is_not_damaged(restarted, tmp_path, kept):
    """The new header and a part of the first new frame lie in front of the old frames."""
    old = left_by_a_killed_process(tmp_path / "old")
    log = bytearray((restarted / LOG).read_bytes())
    following = 32 + kept * 512
    log[following:] = (old / LOG).read_bytes()[following:]
    (restarted / LOG).write_bytes(log)
    assert find_damage(restarted / "journal.sqlite3") is None


@pytest.mark.parametrize("written", [16, 20, 22, 24, 28])
def test_a_restart_torn_in_the_header_is_not_damage(killed, written):
    def begin_anew(log):
        magic, version, page_bytes, checkpoints, salt = struct.unpack_from(">5I", log)
        new = struct.pack(">5I12s", magic, version, page_bytes, checkpoints + 1, (salt + 1) % 2**32, b"drawn anew!!")
        log[:written] = new[:written]

    altered(killed, begin_anew)
    assert find_damage(killed / "journal.sqlite3") is None


@pytest.mark.parametrize("rest", [0, 10, 24, 5000])
def test_a_last_transaction_that_was_cut_off_is_not_damage(killed, rest):
    def cut(log):
        del log[32 + transactions(log)[-1][0] * FRAME + rest :]

    altered(killed, cut)
    check_no_damage(killed, lost=1)


@pytest.mark.parametrize("missing", [0, 1, -1])
def test_a_last_transaction_written_in_part_is_not_damage(killed, missing):
    def lose(log):
        start = 32 + transactions(log)[-1][missing] * FRAME
        log[start : start + FRAME] = bytes(FRAME)

    altered(killed, lose)
    check_no_damage(killed, lost=1)


def test_an_altered_last_transaction_cannot_be_told_from_a_torn_one(killed):
    flip(killed, 32 + transactions((killed / LOG).read_bytes())[-1][0] * FRAME + 100)
    check_no_damage(killed, lost=1)


@pytest.mark.parametrize("content", [None, b"", b"\x00", bytes(32), bytes(100_000)])
def test_an_empty_log_is_not_damaged(tmp_path, content):
    with closing(SqliteJournal(tmp_path, CELL)) as journal:
        journal.lead("a", 1)
    if content is not None:
        (tmp_path / LOG).write_bytes(content)
    check_no_damage(tmp_path, records=0)
