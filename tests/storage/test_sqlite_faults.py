"""The disk is full, fails, or loses power: nothing acknowledged is ever lost, and nothing is acknowledged that is not there."""

import os
import re
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

from merit.model.record import Record, Tail, after
from merit.ports.journal import JournalError, JournalUnavailable, OutcomeUnknown
from merit.storage import sqlite_compaction, sqlite_journal
from merit.storage.sqlite_journal import SqliteJournal
from merit.storage.verify import verify_journal
from merit.testing.journal_contract import CELL, batch, compact_all
from merit.testing.sqlite_faults import PowerCut, WatchedVfs, sqlite_error


def with_sizes(tail, size):
    return batch(tail, [bytes([tail.next % 251]) * size] * 2, [b"payload"])


class FailingDisk:
    """Fails the step with this number, counted from `arm`, and all that follow until it is disarmed."""

    def __init__(self, kinds, code, lasting=True):
        self.kinds, self.code, self.lasting = kinds, code, lasting
        self.left = None
        self.failed = 0

    def __call__(self, step, perform):
        if self.left is not None and step.kind in self.kinds:
            self.left -= 1
            if self.left < 0 and (self.lasting or self.left == -1):
                self.failed += 1
                perform(step.data[: len(step.data) // 2]) if step.kind == "write" else None
                raise sqlite_error(self.code)
        perform(step.data)


def recover(directory, acknowledged, vfs=None, compacted=1):
    """Opens anew, checks that everything acknowledged is there, but for what may have been compacted away, and at most one
    record more, and goes on."""
    with closing(SqliteJournal(directory, CELL, vfs=vfs)) as journal:
        tail = journal.lead("next", 2)
        assert verify_journal(journal).ok
        begins = journal.base().next
        assert begins <= compacted
        acknowledged = [record for record in acknowledged if record.first >= begins]
        found = list(journal.read())
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) <= len(acknowledged) + 1
        record = with_sizes(tail, 100)
        journal.append(record)
        assert journal.tail() == after(record)
        return len(found) - len(acknowledged)


def append_three(journal, acknowledged):
    """Appends three records behind those acknowledged; returns the error that stopped it, or None."""
    try:
        for _ in range(3):
            record = with_sizes(after(acknowledged[-1]), 9000)
            journal.append(record)
            acknowledged.append(record)
    except JournalError as error:
        return error
    return None


def check_stopped(journal, tail):
    for use in (
        journal.tail,
        journal.checkpoint,
        lambda: journal.append(with_sizes(tail, 10)),
        lambda: journal.lead("a", 2),
    ):
        with pytest.raises(JournalUnavailable, match="close this journal and open it again"):
            use()


@pytest.mark.parametrize("lasting", [True, False], ids=["lasting", "once"])
@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [
        ("write", apsw.SQLITE_FULL, JournalUnavailable),
        ("write", apsw.SQLITE_IOERR_WRITE, JournalUnavailable),
        ("sync", apsw.SQLITE_IOERR_FSYNC, OutcomeUnknown),
    ],
    ids=["full", "write", "sync"],
)
def test_a_failing_disk_stops_the_journal(tmp_path, kind, code, error, lasting):
    """At every single write and sync of three appends."""
    for number in range(40):
        directory = tmp_path / str(number)
        disk = FailingDisk({kind}, code, lasting)
        vfs = WatchedVfs("failing", disk)
        acknowledged: list[Record] = []
        try:
            with closing(SqliteJournal(directory, CELL, vfs="failing")) as journal:
                tail = journal.lead("a", 1)
                journal.append(with_sizes(tail, 9000))
                acknowledged += journal.read()
                disk.left = number
                refusal = append_three(journal, acknowledged)
                if refusal is not None:
                    assert type(refusal) is error
                    assert str(directory) in str(refusal)
                    assert f"record {after(acknowledged[-1]).next}" in str(refusal)
                    assert disk.failed == 1
                    check_stopped(journal, after(acknowledged[-1]))
            disk.left = None
            extra = recover(directory, acknowledged)
            assert error is OutcomeUnknown or extra == 0
        finally:
            vfs.unregister()
        if not disk.failed:
            assert number > 2
            return
    pytest.fail("the appends took more steps than were tried")


@pytest.mark.parametrize("kind", ["write", "sync", "truncate"])
def test_a_disk_that_fails_during_a_checkpoint_or_a_start(tmp_path, kind):
    code = {"write": apsw.SQLITE_FULL, "sync": apsw.SQLITE_IOERR_FSYNC, "truncate": apsw.SQLITE_IOERR_TRUNCATE}[kind]
    failures = 0
    for number in range(60):
        directory = tmp_path / str(number)
        acknowledged: list[Record] = []
        with closing(SqliteJournal(directory, CELL)) as journal:
            tail = journal.lead("a", 1)
            for _ in range(5):
                journal.append(with_sizes(tail, 2000))
                tail = journal.tail()
            acknowledged += journal.read()
            journal._failure = "left as a killed process leaves it"
        disk = FailingDisk({kind}, code)
        vfs = WatchedVfs("failing", disk)
        disk.left = number
        try:
            with closing(SqliteJournal(directory, CELL, vfs="failing")) as journal:
                with suppress(JournalUnavailable, OutcomeUnknown):
                    record = with_sizes(journal.lead("b", 2), 2000)
                    journal.append(record)
                    acknowledged.append(record)
                    journal.checkpoint()
                if disk.failed:
                    with pytest.raises(JournalUnavailable, match=re.escape(str(directory))):
                        journal.lead("b", 3)
            disk.left = None
            recover(directory, acknowledged)
        finally:
            vfs.unregister()
        failures += bool(disk.failed)
        if not disk.failed:
            break
    else:
        pytest.fail("more steps than were tried")
    assert failures >= (0 if kind == "truncate" else 3)


def append_until_refused(directory):
    """What the following tests run where there is too little space; returns how many were acknowledged."""
    with closing(SqliteJournal(directory, CELL)) as journal:
        tail = journal.lead("a", 1)
        with pytest.raises(JournalUnavailable, match=r"(disk is full|failed).*start again"):
            for _ in range(10_000):
                record = with_sizes(tail, 20_000)
                journal.append(record)
                tail = after(record)
        return tail


def reopened_tail(directory):
    with closing(SqliteJournal(directory, CELL)) as journal:
        tail = journal.lead("b", 2)
        verification = verify_journal(journal)
        assert verification.ok
        record = with_sizes(tail, 20_000)
        journal.append(record)
        return tail


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system, as root on Linux")
def test_a_full_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], capture_output=True)
    if mount.returncode:
        pytest.skip(f"mounting is not permitted here: {mount.stderr.decode()}")
    try:
        (small / "ballast").write_bytes(bytes(4_000_000))
        tail = append_until_refused(small / "journal")
        assert tail.next > 10
        (small / "ballast").unlink()
        assert reopened_tail(small / "journal") == Tail(tail.next, tail.last_hash, 2)
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_file_size_limit(tmp_path):
    """The portable full disk: the operating system refuses to let the log grow."""
    code = (
        "import pathlib, resource, signal, sys; from test_sqlite_faults import append_until_refused\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "tail = append_until_refused(pathlib.Path(sys.argv[1]))\n"
        "print(tail.next, tail.last_hash.hex())\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    sequence, digest = done.stdout.split()
    assert int(sequence) > 10
    assert reopened_tail(tmp_path) == Tail(int(sequence), bytes.fromhex(digest), 2)


def files_of(home):
    return {str(path): path.read_bytes() for path in home.iterdir() if path.name != "leader.lock"}


def test_what_a_failed_sync_left_in_memory_endangers_nothing_after_it(tmp_path):
    """After a failed fsync the kernel takes pages for written that the disk may not have: what comes later must not build on them."""
    home = tmp_path / "home"
    with closing(SqliteJournal(home, CELL)) as journal:
        journal.lead("a", 1)
    cut = PowerCut(files_of(home))
    failing = False

    def watch(step, perform):
        perform(step.data)
        if failing and step.kind == "sync":
            cut.lose(step.path)
            raise sqlite_error(apsw.SQLITE_IOERR_FSYNC)
        cut.note(step)

    vfs = WatchedVfs("forgetful", watch)
    acknowledged = []
    try:
        with closing(SqliteJournal(home, CELL, vfs="forgetful")) as journal:
            tail = journal.lead("b", 2)
            acknowledged.append(with_sizes(tail, 3000))
            journal.append(acknowledged[0])
            failing = True
            with pytest.raises(OutcomeUnknown):
                journal.append(with_sizes(after(acknowledged[0]), 3000))
            failing = False
        with closing(SqliteJournal(home, CELL, vfs="forgetful")) as journal:
            tail = journal.lead("c", 3)
            for _ in range(3):
                journal.append(with_sizes(tail, 3000))
                tail = journal.tail()
            acknowledged = list(journal.read())
            (tmp_path / "cut").mkdir()
            cut.leave(tmp_path / "cut", seed=1)
    finally:
        vfs.unregister()
    assert len(acknowledged) == 5
    recover(tmp_path / "cut", acknowledged)


def test_power_cuts(tmp_path, monkeypatch):
    """At any step, with any part of what was not synced lost or torn: what was acknowledged is there, whole, and the journal goes on."""
    monkeypatch.setattr(sqlite_journal, "_LOG_BYTES", 512 * 1024)  # what lies there is copied at every step
    monkeypatch.setattr(sqlite_compaction, "PORTION_RECORDS_MAX", 1)
    steps = []

    def note(step, perform):
        perform(step.data)
        if not step.path.endswith("-shm"):
            steps.append(step)

    home = tmp_path / "home"
    with closing(SqliteJournal(home, CELL)) as journal:
        journal.lead("a", 1)
    start = files_of(home)
    vfs = WatchedVfs("noted", note)
    acknowledged = []
    compactions = [(0, 1)]
    try:
        for life in range(3):
            with closing(SqliteJournal(home, CELL, vfs="noted")) as journal:
                tail = journal.lead("a", life)
                for number in range(12):
                    record = with_sizes(tail, 50 + 3000 * (number % 3))
                    journal.append(record)
                    tail = after(record)
                    acknowledged.append((len(steps), record))
                    if number % 4 == 3:
                        compactions.append((len(steps), record.first - 6))
                        compact_all(journal, record.first - 6)
                    if number % 5 == 4:
                        journal.checkpoint()
                if life == 1:
                    journal._failure = "left as a killed process leaves it"
    finally:
        vfs.unregister()

    cut = PowerCut(start)
    for number, step in enumerate(steps, 1):
        cut.note(step)
        home = tmp_path / f"cut-{number}"
        home.mkdir()
        cut.leave(home, seed=number)
        compacted = max(until for at, until in compactions if at < number)
        recover(home, [record for at, record in acknowledged if at <= number], compacted=compacted)
    assert len(steps) > 200
