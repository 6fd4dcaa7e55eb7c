import asyncio
import os
import subprocess
import sys

import pytest

from merit.app.control_plane import ControlPlane, Settings
from merit.app.node import Node
from merit.app.postgres_stores import PostgresStores
from merit.app.state_directory import CELL
from merit.app.stores import open_stores, shared_stores
from merit.kernel.quarantine import Stopped, digest_of
from merit.ports.journal import JournalUnavailable
from merit.ports.read_model import Portion, Reached, ReadModelUnavailable
from merit.storage import postgres_migrations
from merit.storage.postgres_database import Bounds, Database
from merit.testing.builders import a_spec
from merit.testing.journal_contract import batch, put

CHILD = """
from merit.app.stores import stores_of_environment

stores = stores_of_environment()
print(stores.directory.path, stores.reader().tail().next, stores.read_model_reader().reached().sequence)
stores.close()
"""


@pytest.fixture
def open_shared(tmp_path):
    opened = []

    def another(url):
        opened.append(shared_stores(tmp_path, url, 3.0))
        return opened[-1]

    yield another
    for stores in opened:
        stores.close()


async def test_all_of_it_is_in_one_database_and_other_processes_find_it(open_shared, postgres, tmp_path):
    stores = open_shared(postgres.new_database())
    with pytest.raises(JournalUnavailable, match="tables are not there"):
        stores.reader()
    journal = stores.journal()
    assert journal.lease_s == 3.0
    assert journal.cell == CELL
    tail = journal.lead("a", 1)
    with pytest.raises(ReadModelUnavailable, match="the follower makes it"):
        stores.read_model_reader()
    stores.read_model().write(Portion(0, Reached(7, 1)))
    stores.snapshots().save(3, 1, bytes(32), b"state")
    digest = stores.blobs().put("tenant", b"content")
    record = batch(tail, [b"event"] * 3, cell=CELL)
    await put(journal, record)
    stores.archive().add_segment([record])
    assert stores.archive().held().last == 3
    assert stores.blobs().has("tenant", digest)
    assert list(stores.snapshots().sequences()) == [3]
    child = subprocess.run(
        [sys.executable, "-c", CHILD], env=stores.environment(), capture_output=True, text=True, timeout=60
    )
    assert child.stdout.split() == [str(tmp_path), "4", "7"], child.stderr
    journal.close()
    stores.close()
    stores.close()
    with pytest.raises(JournalUnavailable, match="closed"):
        stores.journal().lead("b", 1)


def test_what_is_set_aside_by_one_node_is_set_aside_for_all(postgres, tmp_path):
    url = postgres.new_database()
    one, other = (shared_stores(tmp_path / name, url, 3.0) for name in ("one", "other"))
    try:
        with pytest.raises(JournalUnavailable, match=r"a defect.*could not be set aside.*tables are not there"):
            one.set_aside(Stopped(a_spec(1), RuntimeError("a defect")))
        one.journal().close()
        assert not other.quarantine()
        for item in (a_spec(1), a_spec(2), a_spec(1), "a task\0", "a task\0"):
            one.set_aside(Stopped(item, RuntimeError("a defect\0" + "x" * 100_000)))
        found = other.quarantine()
        assert found.digests == {digest_of(a_spec(1)), digest_of(a_spec(2))}
        assert found.tasks == ("a task\0",)
        # What an earlier version noted in a node's own file still counts for that node.
        other.directory.path.mkdir()
        other.directory.set_aside(Stopped(a_spec(3), RuntimeError("a defect")))
        assert other.quarantine().digests == found.digests | {digest_of(a_spec(3))}
        assert one.quarantine().digests == found.digests
        postgres.sql("DELETE FROM merit.quarantine", url)
        assert not one.quarantine()
    finally:
        one.close()
        other.close()


def test_terms_come_and_go_and_connections_do_not_become_more(open_shared, postgres):
    url = postgres.new_database()
    stores = open_shared(url)
    for term in range(5):
        journal = stores.journal()
        journal.lead("a", 1)
        digest = stores.blobs().put("tenant", b"content")
        assert stores.blobs().has("tenant", digest)
        assert not stores.snapshots().sequences()
        assert not stores.quarantine()
        assert journal.compact(1) == 1
        journal.close()
        found = postgres.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'merit %'",
            url,
        )
        assert int(found) <= 2 + 1, f"in term {term}: blobs, snapshots, and one that is just going"
    assert len(stores._database._sessions) == 2


async def test_a_node_that_finds_others_at_the_tables_waits_and_can_be_stopped(
    tmp_path, open_shared, postgres, monkeypatch, caplog
):
    monkeypatch.setattr(postgres_migrations, "LOCK_S", 0.2)
    url = postgres.new_database()
    stores = open_shared(url)
    at_it = await Database(url).connect("somebody else", Bounds())
    await at_it.execute(f"BEGIN; SELECT pg_advisory_xact_lock({postgres_migrations._LOCK})")

    async def run_until(led_or_not):
        plane = ControlPlane(Settings(state=tmp_path, grpc="127.0.0.1:0", store=url, lease_s=3.0), stores)
        led = asyncio.Event()
        running = asyncio.create_task(Node(plane, stores).run(lambda *_: led.set(), lambda _: None))
        await led_or_not(led)
        assert not running.done()
        plane.stop()
        await asyncio.wait_for(running, 20)
        return led.is_set()

    async def tried_again(_):
        async with asyncio.timeout(20):
            while caplog.text.count("stands by") < 2:
                await asyncio.sleep(0.01)

    assert not await run_until(tried_again)
    at_it.terminate()
    assert await run_until(lambda led: asyncio.wait_for(led.wait(), 20))


def test_what_is_no_database_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--store: .* use postgresql://"):
        open_stores(tmp_path, "mysql://host/database")
    stores = open_stores(tmp_path, "postgresql://127.0.0.1:1/database")
    assert isinstance(stores, PostgresStores)
    with pytest.raises(JournalUnavailable, match="check that the server runs"):
        stores.journal()
    stores.close()


def test_without_the_extra_it_is_named(tmp_path):
    """The driver is imported only when it is asked for."""
    program = (
        "import sys; sys.modules['asyncpg'] = None\n"
        "from pathlib import Path\nfrom merit.app.stores import open_stores\n"
        "open_stores(Path('state')).close()\n"
        "try: open_stores(Path('state'), 'postgresql://host/database')\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=60
    )
    assert "pip install 'merit-fleet[postgres]'" in done.stdout, done.stderr
