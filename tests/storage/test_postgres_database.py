import asyncio
import contextlib
import logging
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from merit.storage.postgres_bridge import Bridge
from merit.storage.postgres_database import Bounds, Database, DatabaseUnavailable, check_url, redacted
from merit.testing.postgres import PrivatePostgres
from tests.storage.postgres_proxy import PostgresProxy

SECRET = "tiger"


@pytest.fixture(scope="module")
def rough():
    """A server whose settings a test may change, if it sets them back."""
    with PrivatePostgres() as server:
        yield server


def refusal(url):
    """What it says to this URL."""
    database = Database(url)
    try:
        with pytest.raises(DatabaseUnavailable) as refused:
            database.session("test").run(lambda connection: connection.fetchval("SELECT 1"))
    finally:
        database.close()
    return str(refused.value)


def set_system(server, name, value):
    server.sql(f"ALTER SYSTEM SET {name} = {value}")
    server.sql("SELECT pg_reload_conf()")
    wanted = server.sql(f"SHOW {name}")
    for _ in range(500):
        if wanted == value:
            return
        time.sleep(0.01)
        wanted = server.sql(f"SHOW {name}")
    pytest.fail(f"{name} did not become {value}")


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
def test_a_server_that_may_lose_what_it_has_acknowledged_is_refused(rough, name):
    set_system(rough, name, "off")
    try:
        assert f"set {name} = on" in refusal(rough.url())
    finally:
        set_system(rough, name, "on")


def test_commits_that_are_not_waited_for_are_refused(rough):
    url = rough.new_database()
    rough.sql("ALTER DATABASE d1 SET synchronous_commit = off")
    assert "set synchronous_commit = on" in refusal(url)
    rough.sql("ALTER DATABASE d1 SET synchronous_commit = local")
    database = Database(url)
    assert database.session("test").run(lambda connection: connection.fetchval("SELECT 1")) == 1
    database.close()


@pytest.mark.parametrize("waits", ["on", "local"])
def test_what_a_commit_waits_for_stays_as_it_was_whatever_is_configured_meanwhile(rough, waits):
    database = Database(rough.new_database())
    show = "SELECT current_setting('synchronous_commit')"
    session = database.session("test")
    set_system(rough, "synchronous_commit", waits)
    try:
        assert session.run(lambda connection: connection.fetchval(show)) == waits
        set_system(rough, "synchronous_commit", "off")
        # What is read again is read between two statements.
        for _ in range(3):
            assert session.run(lambda connection: connection.fetchval(show)) == waits
    finally:
        set_system(rough, "synchronous_commit", "on")
        database.close()


def test_who_has_nothing_to_do_for_long_keeps_the_connection(rough):
    url = rough.new_database()
    rough.sql(f"ALTER DATABASE {url.partition('?')[0].rpartition('/')[2]} SET idle_session_timeout = '50ms'")
    database = Database(url)
    pid = "SELECT pg_backend_pid()"
    with database.session("test") as session:
        first = session.run(lambda connection: connection.fetchval(pid))
        time.sleep(0.3)  # what is waited for is that nothing happens
        assert session.run(lambda connection: connection.fetchval(pid)) == first
    database.close()


def test_a_database_that_cannot_hold_all_text_is_refused(rough):
    rough.sql("CREATE DATABASE latin ENCODING LATIN1 TEMPLATE template0")
    assert "keeps text as LATIN1" in refusal(rough.url("latin"))


def test_a_standby_is_refused(rough):
    rough.end()
    (rough.data / "standby.signal").touch()
    rough.resume()
    try:
        assert "this server is a standby" in refusal(rough.url())
    finally:
        rough.end()
        (rough.data / "standby.signal").unlink()
        rough.resume()


async def test_a_pooler_in_between_is_refused(postgres, migrated_postgres_url):
    async with PostgresProxy(postgres.socket, pooler=True) as pooler:
        with pytest.raises(DatabaseUnavailable, match="connect to PostgreSQL directly"):
            await Database(pooler.url(migrated_postgres_url)).connect("test", Bounds())
    async with PostgresProxy(postgres.socket) as proxy:
        connection = await Database(proxy.url(migrated_postgres_url)).connect("test", Bounds())
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


async def test_encryption_that_is_asked_for_is_never_done_without(postgres, migrated_postgres_url):
    async with PostgresProxy(postgres.socket) as proxy:
        url = proxy.url(migrated_postgres_url).replace("sslmode=disable", "sslmode=require")
        with pytest.raises(DatabaseUnavailable, match=r"cannot be reached .*SSL"):
            await Database(url).connect("test", Bounds())


@pytest.mark.parametrize(
    ("database", "user", "said"),
    [("nowhere", "postgres", "create it"), ("postgres", "nobody_known", 'role "nobody_known" does not exist')],
)
def test_what_is_wrong_is_said(postgres, database, user, said):
    assert said in refusal(postgres.url(database, user))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://scott:{SECRET}@127.0.0.1:1/d",
        f"postgresql://scott:{SECRET}/x@127.0.0.1:1/d",
        f"postgresql://scott:{SECRET}#x@127.0.0.1:1/d",
        f"postgresql://scott:x?{SECRET}@127.0.0.1:1/d",
        f"postgresql://scott:x@{SECRET}@127.0.0.1:1/d",
        f"postgresql://scott@127.0.0.1:1/d?password={SECRET}",
        f"postgresql://scott@127.0.0.1:1/d?password=a@{SECRET}",
        f"postgresql://127.0.0.1:1,{SECRET}@[::1/d",
        f"mysql://scott:{SECRET}@127.0.0.1/d",
        f"{SECRET}",
    ],
)
def test_no_password_is_said(url, caplog):
    caplog.set_level(logging.DEBUG)
    said = refusal(url)
    assert SECRET not in said
    assert SECRET not in repr(Database(url))
    assert SECRET not in caplog.text


def test_what_may_be_shown_of_a_url():
    assert redacted("postgresql://scott:tiger@host:5433/merit?sslmode=require") == "postgresql://host:5433/merit"
    assert redacted("postgres://host/merit") == "postgresql://host/merit"
    assert redacted("postgresql://a:b@h1:1,h2:2/merit") == "postgresql://h1:1,h2:2/merit"


@pytest.mark.parametrize("url", ["", "merit.sqlite3", "mysql://host/d", "http://host", "://"])
def test_what_is_no_url_of_a_database_is_refused(url):
    with pytest.raises(ValueError, match="use postgresql://"):
        check_url(url)


def test_a_lost_connection_is_made_anew(postgres, open_database):
    session = open_database().session("lost")
    pid = session.run(lambda connection: connection.fetchval("SELECT pg_backend_pid()"))
    postgres.sql(f"SELECT pg_terminate_backend({pid}, 5000)")
    with pytest.raises(DatabaseUnavailable, match="the connection was lost"):
        for _ in range(2):  # it may have been noticed before it was used
            again = session.run(lambda connection: connection.fetchval("SELECT pg_backend_pid()"))
            assert again != pid
            raise DatabaseUnavailable("the connection was lost, and made anew at once")
    assert session.run(lambda connection: connection.fetchval("SELECT 1")) == 1


def test_bounds_hold(open_database):
    session = open_database().session("bounds", bounds=Bounds(0.2, 0.1, 0.3, 0.5))
    with pytest.raises(DatabaseUnavailable, match="did not answer in time"):
        session.run(lambda connection: connection.execute("SELECT pg_sleep(10)"))
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
    found = [session.run(lambda connection, name=name: connection.fetchval(f"SHOW {name}")) for name in names]
    assert found == ["200ms", "100ms", "300ms", "500ms"]


def test_a_closed_one_says_so(open_database):
    database = open_database()
    session = database.session("closed", LookupError)
    session.close()
    session.close()
    with pytest.raises(LookupError, match="closed"):
        session.run(lambda connection: connection.fetchval("SELECT 1"))
    other = database.session("other", LookupError)
    assert other.run(lambda connection: connection.fetchval("SELECT 1")) == 1
    database.close()
    database.close()
    with pytest.raises(LookupError, match="closed"):
        other.run(lambda connection: connection.fetchval("SELECT 1"))
    with pytest.raises(LookupError, match="closed"):
        other.start(lambda connection: connection.fetchval("SELECT 1"))


@pytest.mark.parametrize("whole", [True, False], ids=["database", "session"])
@pytest.mark.parametrize("how", ["run", "start"])
def test_what_is_under_way_at_the_end_is_told_of_it(open_database, whole, how):
    database = open_database()
    session = database.session("under way", LookupError)
    session.run(lambda connection: connection.fetchval("SELECT 1"))
    begun = threading.Event()

    async def lasts(connection):
        begun.set()
        await asyncio.sleep(3600)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.run, lasts) if how == "run" else session.start(lasts)
        assert begun.wait(10)
        (database if whole else session).close()
        with pytest.raises(LookupError, match="closed"):
            waiting.result(10)


@pytest.mark.parametrize("stubborn", [True, False])
def test_a_session_that_is_closed_while_it_connects_leaves_nothing_open(postgres, open_database, stubborn, monkeypatch):
    database = open_database()
    real, begun, made = database.connect, threading.Event(), []

    async def slowly(name, bounds):
        begun.set()
        with contextlib.suppress(asyncio.CancelledError) if stubborn else contextlib.nullcontext():
            await asyncio.sleep(0.5)
        made.append(await real(name, bounds))
        return made[-1]

    monkeypatch.setattr(database, "connect", slowly)
    session = database.session("closed while connecting", LookupError)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(session.run, lambda connection: connection.fetchval("SELECT 1"))
        assert begun.wait(10)
        session.close()
        with pytest.raises(LookupError, match="closed"):
            waiting.result(10)
    assert len(made) == stubborn
    assert all(connection.is_closed() for connection in made)


def test_a_bridge_that_closes_cancels_what_is_under_way():
    bridge = Bridge("test")
    under_way = bridge.start(asyncio.sleep(3600))
    assert bridge.start(asyncio.sleep(0, "done")).result(10) == "done"
    bridge.close()
    with pytest.raises(CancelledError):
        under_way.result(1)
    with pytest.raises(RuntimeError, match="closed"):
        bridge.start(asyncio.sleep(0))
