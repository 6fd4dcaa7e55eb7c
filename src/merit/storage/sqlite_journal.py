"""The journal in one SQLite file: the default on one machine, with nothing to install.

An append is one INSERT in a transaction of its own, synced (`synchronous=FULL`) before it returns. The write-ahead log
is copied into the file (checkpointed) by `checkpoint`, which the shell calls from a thread: done inline, as SQLite does
by default, it would cost an append now and then tens of milliseconds. `compact` is called from a thread, too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

import apsw
import msgspec

from merit.model.record import JournalError, Record, Tail
from merit.ports.journal import Fenced, JournalCorrupt, JournalUnavailable, OutcomeUnknown
from merit.storage import sqlite_compaction, sqlite_format, sqlite_log
from merit.storage.durable_files import make_directory
from merit.storage.fail_stop import FailStop
from merit.storage.leader_lock import LeaderLock
from merit.storage.record_row import HASH_COLUMN, encode_row
from merit.storage.sqlite_reader import SqliteReader, open_reader

LOCK_NAME: Final = "leader.lock"

WAL_BYTES_DUE: Final = 8 * 1024 * 1024
"""Size of the write-ahead log from which on a checkpoint is due.

SQLite syncs the file in the last pass only, so that appends wait the longer, the longer the log: measured 2 ms with 4
MiB, 4 ms with 8 MiB, 7 ms with 16 MiB. Shorter logs make that happen more often than once in a hundred appends.
"""

WAL_BYTES_MAX: Final = 256 * 1024 * 1024
"""Size of the write-ahead log from which on an append does the checkpoint itself: whoever should call `checkpoint` does
not, or cannot keep up."""

_LOG_BYTES: Final = WAL_BYTES_DUE + 1024 * 1024
_SPACE_TO_EXTEND: Final = 16
_PASSES_MAX: Final = 4
_REST_BYTES: Final = 256 * 1024  # what may be left for the pass that appends wait for

_INSERT: Final = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Checkpoint(msgspec.Struct, frozen=True):
    """What one call of `checkpoint` did: bytes of the log before and after, and for how many passes."""

    log_bytes_before: int
    log_bytes_after: int
    passes: int


class SqliteJournal(FailStop, SqliteReader):
    """A `Journal` of `cell` in `directory`, which is made when it is missing. Usable after `lead`.

    `append` belongs to one thread, and with it all but `checkpoint`, `compact` and `size_bytes`, which may be called
    from others at the same time. `vfs` names a registered SQLite VFS (fault injection in tests).
    """

    def __init__(self, directory: Path, cell: str, *, vfs: str | None = None) -> None:
        super().__init__(None, directory / sqlite_format.FILE_NAME, cell)
        self._vfs = vfs
        self._lock = LeaderLock(directory / LOCK_NAME)
        self._expected = Tail()
        self._keeper: apsw.Connection | None = None  # for checkpoints and compaction
        self._turn = threading.Lock()  # held by an append, and by the short last pass of a checkpoint
        self._keeping = threading.Lock()  # held by whoever uses the keeper
        self._wal_bytes = 0
        self._wal_bytes_due = WAL_BYTES_DUE
        self._wal_bytes_inline = WAL_BYTES_MAX

    def lead(self, holder: str, now_ns: int) -> Tail:
        """See `Journal.lead`. A lock of the operating system decides, and is free as soon as its process is dead."""
        self._check_usable()
        try:
            make_directory(self._path.parent)
            self._lock.take(holder, now_ns)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            if self._connection is None:
                self._open()
            tail = self._begin_epoch(holder, now_ns)
            self._extend_log()
            return tail
        except apsw.Error as error:
            raise self._gave_up(sqlite_format.translated(error, self._path, self.cell)) from error
        except OSError as error:
            raise self._gave_up(self._unusable(error)) from error
        except JournalError as error:
            self._gave_up(error)
            raise

    def append(self, record: Record) -> None:
        """See `Journal.append`; durable on return."""
        self._check_usable()
        self._check_follows(record, self._expected)
        writer = self._writer
        row = encode_row(record)
        try:
            with self._turn:
                writer.execute(_INSERT, row)
        except apsw.ConstraintError as error:
            raise self._failed(
                Fenced(
                    f"{self._path}: there is a record {record.first} already: somebody else writes; nothing was stored"
                )
            ) from error
        except apsw.Error as error:
            raise self._failed(sqlite_format.translated_append(error, self._path, record.first)) from error
        except BaseException as error:
            self._failed(
                OutcomeUnknown(f"{self._path}: the append of record {record.first} was interrupted ({error!r})")
            )
            raise
        self._expected = Tail(record.last + 1, row[HASH_COLUMN], record.epoch)
        if self._wal_bytes >= self._wal_bytes_inline:
            self._bound_log()

    def _content_bytes(self) -> int:
        with self._turn:  # a reader in the middle of the last pass of a checkpoint would keep the log from being reused
            return super()._content_bytes()

    def _log_bytes(self) -> int:
        """Only what is in use: the log is made longer in advance."""
        return self._wal_bytes

    @property
    def checkpoint_due(self) -> bool:
        """Whether the write-ahead log is long enough for `checkpoint` to be called, from a thread."""
        return self._wal_bytes >= self._wal_bytes_due

    def checkpoint(self) -> Checkpoint:
        """Copies the write-ahead log into the file, so that the log is written from its beginning again.

        Appends go on meanwhile: passes without a lock leave ever less to copy, and appends wait for the last, short one
        only. Readers in the middle of a transaction can keep the log from being reused until they end it. Raises
        `JournalUnavailable`, and the journal takes no more appends then.
        """
        with self._keeping:
            self._check_usable()
            before, passes, rest = self._wal_bytes, 0, self._wal_bytes
            try:
                while passes < _PASSES_MAX and rest > _REST_BYTES:
                    copied = self._copy_log()
                    rest_before, rest = rest, self._wal_bytes - copied  # with what was appended meanwhile
                    passes += 1
                    if rest >= rest_before:
                        break
                with self._turn:
                    self._note_copied(self._copy_log())
            except apsw.Error as error:
                raise self._failed(sqlite_format.translated(error, self._path, self.cell)) from error
            return Checkpoint(before, self._wal_bytes, passes + 1)

    def compact(self, until: int) -> int:
        """See `Journal.compact`. A portion is chosen beside the appends; they wait while it is removed.

        After a failed removal the journal takes no more appends. Raises `JournalCorrupt`, too, when its oldest records are
        damaged; nothing is removed then, and the journal goes on.
        """
        with self._keeping:
            self._check_usable()
            if self._keeper is None:
                raise JournalUnavailable(f"{self._path}: the journal is not led: call lead first")
            try:
                present = sqlite_compaction.present_base(self._keeper)
                base = sqlite_compaction.next_base(self._keeper, present, self.cell, until)
            except apsw.Error as error:
                raise sqlite_format.translated(error, self._path, self.cell) from error
            if base.next > present.next:
                self._move_base(self._keeper, base)
            return base.next

    def _move_base(self, keeper: apsw.Connection, base: Tail) -> None:
        try:
            with self._turn:
                sqlite_compaction.move_base(keeper, base, self._path, self._expected.epoch)
        except apsw.Error as error:
            raise self._failed(sqlite_format.translated(error, self._path, self.cell)) from error
        except Fenced as error:
            raise self._failed(error) from None

    def tail(self) -> Tail:
        """See `JournalReader.tail`."""
        self._check_usable()
        return super().tail()

    def close(self) -> None:
        """See `JournalReader.close`."""
        with self._keeping, self._turn:
            self._shut()
            self._failure = self._failure or f"{self._path}: the journal is closed: open it again"

    @property
    def _writer(self) -> apsw.Connection:
        if self._connection is None:
            raise JournalUnavailable(f"{self._path}: the journal is not led: call lead first")
        return self._connection

    def _open(self) -> None:
        """Opens the file, or makes it, and brings it into a state that is known to be on the disk. Raises
        `apsw.Error`, `OSError`, `JournalCorrupt`."""
        if not self._path.exists():
            sqlite_format.create(self._path, self.cell, self._vfs)
        self._check_log()
        self._connection = connection = self._connect()
        sqlite_format.check(connection, self._path, self.cell)
        connection.pragma("journal_mode", "wal")
        sqlite_format.upgrade(connection)
        # The log may hold pages whose sync failed in a former life: the kernel takes them for written, though the disk
        # may not have them, and everything appended behind them would be lost with them in a power cut. Copied into the
        # file and begun anew, the log holds nothing that is in doubt.
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._keeper = self._connect()
        for one in (connection, self._keeper):
            one.set_wal_hook(self._note_log)

    def _check_log(self) -> None:
        """Refuses a log with damage in the middle before SQLite cuts it there; nothing is changed."""
        damage = sqlite_log.find_damage(self._path)
        if damage is None:
            return
        try:
            with open_reader(self._path.parent, self.cell, self._vfs) as reader:
                following = reader.tail().next
        except (JournalCorrupt, JournalUnavailable):  # what is left without the rest of the log cannot be read at all
            following = 0
        raise JournalCorrupt(self.cell, following, damage.reason)

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), vfs=self._vfs)
        connection.set_busy_timeout(sqlite_format.BUSY_WAIT_MS)
        connection.pragma("synchronous", "full")
        connection.pragma("fullfsync", True)  # macOS: its fsync leaves data in the drive's cache
        connection.pragma("checkpoint_fullfsync", True)
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("journal_size_limit", 4 * WAL_BYTES_DUE)  # a log that grew beyond is cut back when reused
        return connection

    def _begin_epoch(self, holder: str, now_ns: int) -> Tail:
        tail = super().tail()
        epoch = tail.epoch + 1
        with self._turn:
            self._writer.execute("UPDATE meta SET epoch = ?, holder = ?, led_ns = ?", (epoch, holder, now_ns))
        self._expected = Tail(tail.next, tail.last_hash, epoch)
        return self._expected

    def _extend_log(self) -> None:
        """Make the log as long as it will get, with zeros, which SQLite takes for its end.

        Syncing what overwrites a file costs the disk half of syncing what makes it longer (measured 190 against 260 us an
        append). A disk that is nearly full is left alone: there the space is worth more.
        """
        with contextlib.suppress(OSError), self._turn:
            log = sqlite_log.log_path(self._path)
            space = os.statvfs(log)
            if space.f_bavail * space.f_frsize < _SPACE_TO_EXTEND * WAL_BYTES_DUE:
                return
            descriptor = os.open(log, os.O_RDWR)
            try:
                length = os.fstat(descriptor).st_size
                os.pwrite(descriptor, bytes(max(0, _LOG_BYTES - length)), length)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _gave_up(self, error: JournalError) -> JournalError:
        """Ends an attempt at leading: frees what it took, so that the next one starts from nothing."""
        self._failure = f"taking leadership failed ({error}): close this journal and open it again"
        self._shut()
        return error

    def _unusable(self, error: OSError) -> JournalUnavailable:
        return JournalUnavailable(f"{self._path.parent}: cannot be used: {error}; check permissions and space")

    def _note_log(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        """Called by SQLite after each commit with the length of the log."""
        self._wal_bytes = pages * sqlite_format.PAGE_BYTES
        return apsw.SQLITE_OK

    def _copy_log(self) -> int:
        """One checkpoint that waits for nobody; returns the bytes of the log copied by now. Raises `apsw.Error`."""
        if self._keeper is None:
            return 0
        try:
            _, copied = self._keeper.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:  # another program is at it
            return 0
        return max(copied, 0) * sqlite_format.PAGE_BYTES

    def _bound_log(self) -> None:
        """Checkpoints after an append, since the log has become too long; never stands in line behind another
        checkpoint.

        Does not raise, since the record is stored and to be acknowledged: a failure refuses the next append.
        """
        if self._keeping.acquire(blocking=False):
            try:
                self._note_copied(self._copy_log())
            except apsw.Error as error:
                self._failed(sqlite_format.translated(error, self._path, self.cell))
            finally:
                self._keeping.release()

    def _note_copied(self, copied_bytes: int) -> None:
        """Takes note of how much of the log is copied; when all is, the next append writes it from its beginning."""
        if copied_bytes >= self._wal_bytes:
            self._wal_bytes = 0
            self._wal_bytes_due, self._wal_bytes_inline = WAL_BYTES_DUE, WAL_BYTES_MAX
        else:  # somebody reads an old state: to be tried again after some more
            self._wal_bytes_due = self._wal_bytes + WAL_BYTES_DUE
            self._wal_bytes_inline = max(WAL_BYTES_MAX, self._wal_bytes_due)

    def _shut(self) -> None:
        """Closes what is open and gives the lock back last, so that the next leader finds nobody else writing."""
        for connection in (self._keeper, self._connection):
            if connection is not None and self._failure is not None:
                # No checkpoint on closing: after a failure the log stays as it is for the next one to open it.
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        try:
            if self._keeper is not None:
                self._keeper.close(force=True)
                self._keeper = None
            super().close()
        except apsw.Error as error:
            self._failure = self._failure or f"{self._path}: closing failed ({error})"
        finally:
            self._lock.release()
