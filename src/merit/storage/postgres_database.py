"""The PostgreSQL database in which cells keep their things: how it is reached, and what it has to be like.

All adapters (``postgres_<port>.py``) share one `Database`; each has a `Session`, which is one connection, made when it
is needed and made anew when it was lost. Nothing is tried again here: whoever uses a session is told that it failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import asyncpg
import msgspec

from merit.storage.postgres_bridge import Bridge, outcome

SCHEMES: Final = ("postgresql", "postgres")
VERSION_MIN: Final = 14
"""Of the server: the oldest one that is maintained."""

_CONNECT_S: Final = 10.0
_CLOSE_S: Final = 2.0
_TRANSACTION_TIMEOUT_SINCE: Final = 170_000
_DIRECTLY: Final = (
    "there is a connection pooler (PgBouncer or the like) in between, which gives its connections to others between two "
    "transactions: connect to PostgreSQL directly; one control plane needs about ten connections"
)
# What asyncpg's prepared statements meet behind a pooler, before it can be recognised by its numbers.
_POOLER_ERRORS: Final = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)

_LOOK: Final = """
SELECT pg_backend_pid() AS pid, pg_is_in_recovery() AS standby, current_setting('server_version_num')::int AS version,
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit, current_setting('server_encoding') AS encoding
"""

T = TypeVar("T")
Work = Callable[["asyncpg.Connection[Any]"], Awaitable[T]]
"""What is done with a connection."""


class DatabaseUnavailable(Exception):
    """The database cannot be reached, or is not as it has to be; the message says what to do, and no password."""


class Bounds(msgspec.Struct, frozen=True):
    """How long the server lets one connection go on, in seconds: a statement, a wait for a lock, a transaction in which
    nothing happens. With ``transaction_s`` a whole transaction is bounded too (0: not). Without ``durable``, a crash of the
    server may lose what was committed last: for what can be made again."""

    statement_s: float = 30.0
    lock_s: float = 10.0
    idle_s: float = 30.0
    transaction_s: float = 0.0
    durable: bool = True


class Database:
    """A database at `url`; `close` frees everything that was opened of it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.place = redacted(url)
        self._bridge = Bridge(f"merit {self.place}")
        self._sessions: set[Session] = set()  # those that are open, whether or not somebody still has them

    def __repr__(self) -> str:
        return f"Database({self.place!r})"

    def session(
        self, name: str, failure: type[Exception] = DatabaseUnavailable, bounds: Bounds | None = None
    ) -> Session:
        """A connection for one adapter. `name` is shown in ``pg_stat_activity``; `failure` is what it raises."""
        session = Session(self, name, failure, bounds or Bounds())
        self._sessions.add(session)
        return session

    def forget(self, session: Session) -> None:
        """Called by a session that is closed."""
        self._sessions.discard(session)

    async def connect(self, name: str, bounds: Bounds) -> asyncpg.Connection[Any]:
        """A connection on the running loop, once the server is known to be fit. Raises `DatabaseUnavailable`."""
        connection: asyncpg.Connection[Any] | None = None
        try:
            connection = await asyncpg.connect(
                self._url,
                timeout=_CONNECT_S,
                # The server's own bound strikes first; this one is for a server that does not answer at all.
                command_timeout=max(bounds.statement_s, bounds.transaction_s) + _CLOSE_S,
                server_settings={"application_name": f"merit {name}"[:63]},
            )
            synchronous_commit = await self._check(connection)
            await _set(connection, bounds, synchronous_commit if bounds.durable else "off")
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if isinstance(error, Exception):
                raise self.failed(error) from None  # the cause of a bad URL may quote it
            raise
        return connection

    async def _check(self, connection: asyncpg.Connection[Any]) -> str:
        """What the server waits for in a commit, when all is as it has to be."""
        # In a transaction, which a pooler has to leave on one connection: so it is seen before anything else goes wrong.
        async with connection.transaction(readonly=True):
            found = await connection.fetchrow(_LOOK)
        assert found is not None
        if found["pid"] != connection.get_server_pid():
            raise DatabaseUnavailable(f"{self.place}: {_DIRECTLY}")
        if found["version"] < VERSION_MIN * 10_000:
            version = found["version"] // 10_000
            raise DatabaseUnavailable(f"{self.place}: PostgreSQL {version} is too old: use {VERSION_MIN} or later")
        if found["encoding"] != "UTF8":
            raise DatabaseUnavailable(
                f"{self.place}: this database keeps text as {found['encoding']}, which has no place for all names: make one "
                "with createdb --encoding=UTF8 --template=template0 …"
            )
        if found["standby"]:
            raise DatabaseUnavailable(
                f"{self.place}: this server is a standby, which only reads: connect to the primary, or name all of them: "
                "postgresql://user@host1,host2/database?target_session_attrs=primary"
            )
        if said := lossy(found):
            raise DatabaseUnavailable(f"{self.place}: {said}")
        waits: str = found["synchronous_commit"]
        return waits

    def failed(self, error: Exception) -> DatabaseUnavailable:
        """What an error of the driver means, said without the secrets of the URL."""
        return (
            DatabaseUnavailable(f"{self.place}: {_advice(error)}")
            if not isinstance(error, DatabaseUnavailable)
            else error
        )

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """See `Bridge.start`. Raises `DatabaseUnavailable` after `close`."""
        try:
            return self._bridge.start(work)
        except RuntimeError:
            raise self.closed() from None

    def closed(self) -> DatabaseUnavailable:
        """What is said after the end."""
        return DatabaseUnavailable(f"{self.place}: closed: open it again")

    def close(self) -> None:
        """Ends all sessions, and the thread behind them. May be called twice."""
        for session in list(self._sessions):
            session.close()
        self._bridge.close()


class Session:
    """One connection for callers without a loop; they take turns. Errors of the database come as `failure`."""

    def __init__(self, database: Database, name: str, failure: type[Exception], bounds: Bounds) -> None:
        self._database = database
        self._name = name
        self._failure = failure
        self._bounds = bounds
        self._turn = asyncio.Lock()
        self._connection: asyncpg.Connection[Any] | None = None
        self._under_way: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._closing = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, work: Work[T]) -> T:
        """What comes of `work`, done with the connection. Raises `failure`, and what `work` raises of its own."""
        return outcome(self.start(work))

    def start(self, work: Work[T]) -> Future[T]:
        """Like `run`, but only begins it: what comes of it, and raises, is the future's. Raises `failure` if closed."""
        try:
            return self._database.start(self._do(work))
        except DatabaseUnavailable as error:
            raise self._failure(str(error)) from error

    def close(self) -> None:
        """Ends the connection, and what is done with it. May be called twice."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._database.forget(self)
        with contextlib.suppress(DatabaseUnavailable):
            outcome(self._database.start(self._disconnect()))

    async def _do(self, work: Work[T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            async with self._turn:
                return await self._work(work)
        except DatabaseUnavailable as error:
            raise self._failure(str(error)) from error
        except asyncio.CancelledError:
            if self._closed:  # and not: whoever waits does so no more
                raise self._failure(str(self._database.closed())) from None
            raise
        finally:
            self._under_way.discard(task)

    def _check_open(self) -> None:
        if self._closed:
            raise self._database.closed()

    async def _work(self, work: Work[T]) -> T:
        self._check_open()
        if self._connection is None or self._connection.is_closed():
            connection = await self._database.connect(self._name, self._bounds)
            if self._closed:  # meanwhile, and so nobody else would end this one
                connection.terminate()
            self._check_open()
            self._connection = connection
        try:
            return await work(self._connection)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            if isinstance(error, TimeoutError) and self._connection is not None:
                self._connection.terminate()  # it may still be at it: begun anew the next time
            raise self._database.failed(error) from error

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        for task in self._under_way:
            task.cancel()


def lossy(found: Mapping[str, Any]) -> str:
    """Which of these settings would let the server lose what it has acknowledged, and what to do; empty: none."""
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        if found.get(name) == "off":
            return (
                f"{name} is off, so that what was acknowledged could be lost when the server's machine fails: set "
                f"{name} = on in postgresql.conf (or where it was set for this user or database: ALTER ROLE, ALTER DATABASE "
                f"… RESET {name})"
            )
    return ""


async def _set(connection: asyncpg.Connection[Any], bounds: Bounds, synchronous_commit: str) -> None:
    """Bounds what the server does for this connection, also while its client stands still; and makes it stay as it was found,
    whatever the configuration is changed to later."""
    settings = {
        "statement_timeout": _milliseconds(bounds.statement_s),
        "lock_timeout": _milliseconds(bounds.lock_s),
        "idle_in_transaction_session_timeout": _milliseconds(bounds.idle_s),
        "idle_session_timeout": "0",  # who has nothing to do for long is not gone
        "synchronous_commit": synchronous_commit,
        "default_transaction_isolation": "read committed",
        "jit": "off",  # compiling takes longer than anything that is asked
    }
    if bounds.transaction_s and connection.get_server_version().major * 10_000 >= _TRANSACTION_TIMEOUT_SINCE:
        settings["transaction_timeout"] = _milliseconds(bounds.transaction_s)
    calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())
    await connection.execute(f"SELECT {calls}")


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def redacted(url: str) -> str:
    """The URL as it may be shown: host and database, without user, password and parameters."""
    place, _, query = url.partition("?")
    scheme, found, rest = place.partition("://")
    if not found or scheme not in SCHEMES or "@" in query or rest.count("@") > 1:
        return "postgresql://…"  # whatever this is: a password may be anywhere in it
    return f"postgresql://{rest.rpartition('@')[2]}"


def check_url(url: str) -> None:
    """Refuses, with `ValueError`, what is no URL of a PostgreSQL database; does not connect."""
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in SCHEMES:
        raise ValueError("not the URL of a PostgreSQL database: use postgresql://user@host/database")


def _advice(error: Exception) -> str:
    if isinstance(error, _POOLER_ERRORS) or "startup parameter" in str(error):
        return _DIRECTLY
    if isinstance(error, asyncpg.InvalidPasswordError | asyncpg.InvalidAuthorizationSpecificationError):
        return f"{error}; check user and password, which may also stand in PGPASSWORD or ~/.pgpass"
    if isinstance(error, asyncpg.UndefinedTableError | asyncpg.InvalidSchemaNameError):
        return f"{error}; Merit's tables are not there: check the name of the database, or start: merit up --store …"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return f"{error}; create it: createdb …"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return f"{error}; let the user own the database, or: GRANT CREATE ON DATABASE … TO …"
    if isinstance(error, asyncpg.QueryCanceledError | asyncpg.LockNotAvailableError | TimeoutError):
        return f"it did not answer in time ({_said(error)}); look at its load and at pg_stat_activity"
    if isinstance(error, asyncpg.DiskFullError | asyncpg.InsufficientResourcesError):
        return f"the server has no more room ({_said(error)}); make space or raise its limit"
    if isinstance(error, OSError):
        return f"cannot be reached ({_said(error)}); check that the server runs, host, port and firewall"
    if isinstance(error, asyncpg.InterfaceError | asyncpg.PostgresConnectionError | asyncpg.OperatorInterventionError):
        return f"the connection was lost, or could not be made ({_said(error)}); check that the server runs"
    if isinstance(error, ValueError):  # the URL itself; what it is not is said without quoting it
        return "the URL cannot be read: use postgresql://user@host:port/database, and %-escapes in a password"
    return f"the database refused it ({_said(error)})"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
