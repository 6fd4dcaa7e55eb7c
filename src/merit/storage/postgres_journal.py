"""The journal in PostgreSQL: for a cell that is to go on when its machine does not.

Who leads stands in one row, the *lease*: holder, epoch, and until when, by the database's clock. Taking it over gives it
a new epoch; every append is one statement that locks that row FOR SHARE and stores nothing unless the epoch is still its
own. A take-over changes the row, and so waits for the append that is under way, and is seen by every later one: once
`lead` has read where the records end, nobody else can store any more, however long he was away. Clocks decide only when
it may be tried, never who is right.

An append runs on the caller's event loop, with a connection of its own: one round trip, one commit. Everything else runs
in the thread of `Database`. The server itself ends what a leader that stands still has left open, well before the lease
is over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final

import asyncpg
import msgspec
from asyncpg.prepared_stmt import PreparedStatement

from merit.model.record import JournalError, Record, Tail
from merit.ports.journal import LEASE_S, Fenced, JournalUnavailable, LeaderElsewhere, OutcomeUnknown
from merit.storage.fail_stop import FailStop
from merit.storage.postgres_database import Bounds, Database, DatabaseUnavailable, lossy
from merit.storage.postgres_reader import PostgresReader, read_tail
from merit.storage.record_row import HASH_COLUMN, encode_row

WAITING_MAX: Final = 16
"""Appends that may wait behind the one that is under way."""

COMPACT_RECORDS: Final = 256
COMPACT_BYTES: Final = 2 * 1024 * 1024
"""Removed by one call of `compact`: at most so many records, after the first at most so many bytes. A large value is many
rows to the server, and all of it has to be done in less than a lease."""

_MAKE_LEASE: Final = """
INSERT INTO merit.lease (cell, holder, epoch, expires_at, base_next, base_hash, base_epoch)
VALUES ($1, '', 0, '-infinity', $2, $3, $4) ON CONFLICT (cell) DO NOTHING
"""
_LOOK: Final = """
SELECT holder, epoch, expires_at > clock_timestamp() AS held, base_next, base_hash, base_epoch
FROM merit.lease WHERE cell = $1
"""
_LOCK_LEASE: Final = _LOOK + "FOR UPDATE"
_TAKE_LEASE: Final = """
UPDATE merit.lease SET holder = $2, epoch = $3, expires_at = clock_timestamp() + $4::interval WHERE cell = $1
"""
_RENEW: Final = """
UPDATE merit.lease SET expires_at = clock_timestamp() + $4::interval
WHERE cell = $1 AND holder = $2 AND epoch = $3
RETURNING current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes
"""
_GIVE_BACK: Final = """
UPDATE merit.lease SET holder = '', expires_at = '-infinity' WHERE cell = $1 AND holder = $2 AND epoch = $3
"""
# The lease is the fence. That the record before is there, with this hash, is asked as well: it costs a look at the index,
# and whatever confusion there is in this process, no gap and no fork is ever stored.
APPEND: Final = """
INSERT INTO merit.records (cell, first, last, epoch, time_ns, hash, payloads_crc, header, events, payloads, stored)
SELECT $1, $2::bigint, $3, $4::bigint, $5, $6, $7, $8, $9, $10, $11
FROM (SELECT base_next, base_hash FROM merit.lease WHERE cell = $1 AND holder = $12 AND epoch = $4 FOR SHARE) AS leader
WHERE CASE WHEN $13::bigint > 0
    THEN EXISTS (SELECT FROM merit.records WHERE cell = $1 AND first = $13 AND last = $2 - 1 AND hash = $14)
    ELSE base_next = $2 AND base_hash = $14 AND NOT EXISTS (SELECT FROM merit.records WHERE cell = $1) END
"""
_STORED: Final = "INSERT 0 1"
_REMOVE: Final = """
WITH old AS (
    SELECT first, stored - first_value(stored) OVER (ORDER BY first) AS bytes FROM merit.records
    WHERE cell = $1 AND first >= $2 AND last < $3
        AND first < (SELECT first FROM merit.records WHERE cell = $1 ORDER BY first DESC LIMIT 1)
    ORDER BY first LIMIT $4
), gone AS (
    DELETE FROM merit.records USING old WHERE cell = $1 AND records.first = old.first AND old.bytes <= $5
    RETURNING records.first, records.last, records.hash, records.epoch
)
SELECT last + 1 AS next, hash, epoch FROM gone ORDER BY first DESC LIMIT 1
"""
_MOVE_BASE: Final = """
UPDATE merit.lease SET base_next = $4, base_hash = $5, base_epoch = $6
WHERE cell = $1 AND holder = $2 AND epoch = $3 RETURNING epoch
"""


class _Lead(msgspec.Struct, frozen=True):
    """What `lead` found, and what appends go by."""

    holder: str = ""
    tail: Tail = Tail()
    first: int = 0
    """Of the last record; 0: there is none."""
    stored: int = 0


class PostgresJournal(FailStop, PostgresReader):
    """A `LeasedJournal` of `cell` in `database`, whose tables are there already (``migrate``). Usable after `lead`.

    `append` and `renew` belong to one event loop; the rest may be called from any thread, `lead` and `close` by whoever
    appends.
    """

    def __init__(self, database: Database, cell: str, lease_s: float = LEASE_S) -> None:
        # What a leader leaves open when it is stopped in the middle ends by itself before its lease does.
        self._bounds = Bounds(lease_s / 2, lease_s / 3, lease_s / 2, transaction_s=lease_s * 0.6)
        super().__init__(database, cell, self._bounds)
        # Renewals are not to wait for what takes longer.
        self._keeper = database.session(f"keep {cell}", JournalUnavailable, self._bounds)
        self._lease_s = lease_s
        self._lead = _Lead()
        self._expected = _Lead()
        self._waiting = 0
        self._turn = asyncio.Lock()
        self._appender: asyncpg.Connection[Any] | None = None
        self._statement: PreparedStatement[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._warning = ""

    @property
    def lease_s(self) -> float:
        """See `LeasedJournal.lease_s`. `renew` is to be called every third of it."""
        return self._lease_s

    def lead(self, holder: str, now_ns: int) -> Tail:
        """See `Journal.lead`. The lease decides: taken when nobody has it, it is over, or this journal has it already."""
        self._check_usable()
        if self._waiting:
            raise JournalUnavailable(f"{self._waiting} appends are under way: wait for them before leading anew")
        if not holder:
            raise ValueError("holder: an empty name means that nobody leads")
        self._lead = self._expected = self._session.run(lambda connection: self._take(connection, holder))
        return self._lead.tail

    async def _take(self, connection: asyncpg.Connection[Any], holder: str) -> _Lead:
        nothing = Tail()
        lease = await connection.fetchrow(_LOOK, self.cell)
        if lease is None:
            await connection.execute(_MAKE_LEASE, self.cell, nothing.next, nothing.last_hash, nothing.epoch)
        else:
            self._check_free(lease, holder)  # so that who waits for the lead never locks the row of the one who has it
        async with connection.transaction():
            try:
                lease = await connection.fetchrow(_LOCK_LEASE, self.cell)
            except asyncpg.LockNotAvailableError:
                raise LeaderElsewhere(f"{self._place}: somebody appends, or takes over, just now: try again") from None
            if lease is None:
                raise JournalUnavailable(f"{self._place}: the lease was removed just now: try again")
            self._check_free(lease, holder)
            # A statement of its own, begun after the lock was had: it sees every append that is durable, the last too.
            base = Tail(lease["base_next"], lease["base_hash"], lease["base_epoch"])
            tail, first, stored = await read_tail(connection, self.cell, base)
            epoch = max(lease["epoch"], tail.epoch) + 1
            await connection.execute(_TAKE_LEASE, self.cell, holder, epoch, self._lease)
        return _Lead(holder, Tail(tail.next, tail.last_hash, epoch), first, stored)

    def _check_free(self, lease: asyncpg.Record, holder: str) -> None:
        own = (lease["holder"], lease["epoch"]) == (self._lead.holder, self._lead.tail.epoch)
        if lease["held"] and not own:
            raise LeaderElsewhere(
                f"{lease['holder']!r} leads the journal of cell {self.cell!r} in {self._database.place}: stop it, or "
                f"wait until its lease is over, before {holder!r} can lead",
                lease["holder"],
            )

    def append(self, record: Record) -> Coroutine[Any, Any, None]:
        """See `Journal.append`. May be called while others are under way; what it returns is to be awaited in the same order."""
        self._check_usable()
        if not self._expected.holder:
            raise JournalUnavailable(f"{self._place}: the journal is not led: call lead first")
        self._check_follows(record, self._expected.tail)
        if self._waiting > WAITING_MAX:
            raise JournalUnavailable(f"{self._place}: {WAITING_MAX} appends wait already: wait for them first")
        row = encode_row(record)
        expected = self._expected
        stored = expected.stored + len(row[6]) + len(row[7]) + len(row[8])  # header, events, payloads
        values = (self.cell, *row, stored, expected.holder, expected.first, expected.tail.last_hash)
        self._expected = _Lead(
            expected.holder, Tail(record.last + 1, row[HASH_COLUMN], record.epoch), record.first, stored
        )
        self._waiting += 1
        # In the caller's own task: one of its own would cost a tenth of the commit.
        return self._store_in_turn(record.first, values)

    async def renew(self) -> None:
        """See `LeasedJournal.renew`."""
        self._check_usable()
        lead = self._lead
        if not lead.holder:
            raise JournalUnavailable(f"{self._place}: the journal is not led: call lead first")
        values = (self.cell, lead.holder, lead.tail.epoch, self._lease)
        renewed = await asyncio.wrap_future(
            self._session.start(lambda connection: connection.fetchrow(_RENEW, *values))
        )
        if renewed is None:
            raise self._failed(Fenced(f"{self._place}: the lease of epoch {lead.tail.epoch} was not renewed: {_OVER}"))
        if said := lossy(renewed):  # by now; when this connected it was not so
            raise self._failed(Fenced(f"{self._place}: who leads gives up: {said}"))

    def compact(self, until: int) -> int:
        """See `Journal.compact`. Appends wait while its end is made durable; readers do not."""
        self._check_usable()
        lead = self._lead
        if not lead.holder:
            raise JournalUnavailable(f"{self._place}: the journal is not led: call lead first")
        return self._keeper.run(lambda connection: self._compact(connection, lead, until))

    async def _compact(self, connection: asyncpg.Connection[Any], lead: _Lead, until: int) -> int:
        own = (self.cell, lead.holder, lead.tail.epoch)
        async with connection.transaction():
            begin: int = await connection.fetchval("SELECT base_next FROM merit.lease WHERE cell = $1", self.cell)
            portion = (self.cell, begin, min(until, 2**63 - 1), COMPACT_RECORDS, COMPACT_BYTES)
            gone = await connection.fetchrow(_REMOVE, *portion)
            if gone is None:
                following = begin
                moved = await connection.fetchval(
                    "SELECT epoch FROM merit.lease WHERE (cell, holder, epoch) = ($1, $2, $3)", *own
                )
            else:
                # Last, since appends wait from here to the commit. If the lease is over, all of it is undone.
                following = gone["next"]
                moved = await connection.fetchval(_MOVE_BASE, *own, following, gone["hash"], gone["epoch"])
            if moved is None:
                raise Fenced(f"{self._place}: nothing was removed before {until}: {_OVER}")
        return following

    def size_bytes(self) -> int:
        """See `JournalReader.size_bytes`."""
        self._check_usable()
        return self._keeper.run(self._size)

    def tail(self) -> Tail:
        """See `JournalReader.tail`."""
        self._check_usable()
        return super().tail()

    def base(self) -> Tail:
        """See `JournalReader.base`."""
        self._check_usable()
        return super().base()

    def close(self) -> None:
        """See `JournalReader.close`. The lease is given back, if the database can be reached."""
        self._failure = f"{self._place}: the journal is closed: open it again"
        self._drop_appender()
        self._keeper.close()  # before the lease is given back, for which it may stand in the way
        lead, self._lead = self._lead, _Lead()
        if lead.holder:
            values = (self.cell, lead.holder, lead.tail.epoch)
            with contextlib.suppress(JournalUnavailable):
                self._session.run(lambda connection: connection.execute(_GIVE_BACK, *values))
        super().close()

    # Appends

    async def _store_in_turn(self, first: int, values: tuple[Any, ...]) -> None:
        try:
            async with self._turn:
                self._check_usable()  # it may have been closed, or the append before this one have failed
                await self._store(self._statement or await self._connect(), first, values)
        except JournalError as error:
            self._failed(error)
            self._drop_appender()
            raise
        except BaseException as error:  # above all: whoever waits for it was canceled
            self._failed(self._unknown(first, repr(error)))
            self._drop_appender()
            raise
        finally:
            self._waiting -= 1

    async def _connect(self) -> PreparedStatement[Any]:
        """The statement of the appends, on a connection for them alone. Raises `JournalUnavailable`."""
        try:
            self._loop = asyncio.get_running_loop()
            self._appender = await self._database.connect(f"append {self.cell}", self._bounds)
            self._check_usable()  # it may have been closed meanwhile
            self._appender.add_log_listener(self._note_warning)
            self._statement = await self._appender.prepare(APPEND)
        except (DatabaseUnavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise JournalUnavailable(f"nothing was stored: {self._database.failed(error)}") from error
        return self._statement

    async def _store(self, statement: PreparedStatement[Any], first: int, values: tuple[Any, ...]) -> None:
        """One append. Raises `Fenced`, `JournalUnavailable`, `OutcomeUnknown`."""
        try:
            await statement.fetch(*values, timeout=self._lease_s)
        except asyncpg.PostgresError as error:
            # The server says that the statement failed, and so has undone it; unless it ends the connection with that,
            # when the commit may have been done before.
            if error.severity_en != "ERROR":
                raise self._unknown(first, str(self._database.failed(error))) from error
            raise JournalUnavailable(f"record {first} was not stored: {self._database.failed(error)}") from error
        except (asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise self._unknown(first, str(self._database.failed(error))) from error
        if self._warning:  # such as: a commit that was not waited for on the replicas
            raise self._unknown(first, f"the server warned: {self._warning}")
        if statement.get_statusmsg() != _STORED:
            raise Fenced(f"{self._place}: record {first} was not stored: {_OVER}")

    def _note_warning(self, _connection: object, message: Any) -> None:
        """Called by asyncpg with whatever the server says beside its answer."""
        if message.severity_en == "WARNING":
            self._warning = str(message)

    def _drop_appender(self) -> None:
        """Ends the connection of the appends, and with it the one that may be under way."""
        appender, self._appender, self._statement = self._appender, None, None
        if appender is None or self._loop is None or self._loop.is_closed():
            return
        try:
            inside = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            inside = False
        if inside:
            appender.terminate()
        else:
            self._loop.call_soon_threadsafe(appender.terminate)

    # What is refused

    @property
    def _place(self) -> str:
        return f"journal of cell {self.cell!r} in {self._database.place}"

    @property
    def _lease(self) -> timedelta:
        return timedelta(seconds=self._lease_s)

    def _unknown(self, first: int, reason: str) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"{self._place}: record {first} may or may not have been stored: {reason}; opening the journal anew tells"
        )


_OVER: Final = "somebody else leads by now, or what is stored is not what was expected"
