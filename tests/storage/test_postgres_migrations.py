import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from merit.kernel.quarantine import Stopped
from merit.model.search import TaskQuery
from merit.ports.blobs import TOUCH_NS
from merit.ports.journal import JournalUnavailable
from merit.storage import postgres_migrations
from merit.storage.postgres_blobs import PostgresBlobs
from merit.storage.postgres_database import Bounds, DatabaseUnavailable
from merit.storage.postgres_journal import PostgresJournal
from merit.storage.postgres_migrations import Migration, MigrationWaits, check_tables, migrate, migrations
from merit.storage.postgres_quarantine import PostgresQuarantine
from merit.storage.postgres_read_model import PostgresReadModel
from merit.storage.postgres_reader import PostgresReader
from merit.testing.journal_contract import CELL, fill
from merit.testing.read_model_contract import ALL, a_row, write

ALL_STEPS = migrations()


@pytest.fixture
def url(postgres):
    """Of a database with nothing in it."""
    return postgres.new_database()


def test_the_files_are_numbered_without_a_gap():
    assert [step.number for step in ALL_STEPS] == list(range(1, len(ALL_STEPS) + 1))
    assert all(step.name.startswith(f"{step.number:04}_") for step in ALL_STEPS)


def test_from_nothing_and_again(open_database, url):
    database = open_database(url)
    with pytest.raises(DatabaseUnavailable, match="tables are not there"):
        check_tables(database)
    with pytest.raises(JournalUnavailable, match="merit up --store"):
        PostgresReader(database, "cell").tail()
    assert migrate(database) == len(ALL_STEPS)
    assert migrate(database) == 0
    check_tables(database)


async def _journal(database):
    journal = PostgresJournal(database, CELL)
    records = await fill(journal, await asyncio.to_thread(journal.lead, "a", 1), [1, 2, 3])
    journal.close()
    return lambda: list(PostgresReader(database, CELL).read()) == records


async def _contents(database):
    insert = "INSERT INTO merit.blobs (cell, tenant, digest, data) VALUES ('cell', 'tenant', $1, 'content')"
    digest = sha256(b"content")
    with database.session("test") as session:
        session.run(lambda connection: connection.execute(insert, digest.digest()))
    return lambda: PostgresBlobs(database, "cell").get("tenant", digest.hexdigest()) == b"content"


async def _read_model(database):
    model = PostgresReadModel(database, "cell")
    write(model, [a_row(1), a_row(2)])
    return lambda: [row.order for row in model.find(TaskQuery(capability="echo"), ALL, 10).rows] == [2, 1]


async def _quarantine(database):
    quarantine = PostgresQuarantine(database, "cell")
    quarantine.set_aside(Stopped("a task", RuntimeError("planned")))
    return lambda: quarantine.kept().tasks == ("a task",)


async def _touched_blobs(database):
    blobs = PostgresBlobs(database, "cell")
    blobs.touch("tenant", sha256(b"content").hexdigest())
    # What was there before counts as used when the step was taken.
    return lambda: blobs.sweep(time.time_ns() - TOUCH_NS, lambda *_: False, 10) == 0


# What can be there after each step, and is to be there after all later ones. A new step adds what it brings.
CONTENTS = {1: _journal, 2: _contents, 3: _read_model, 4: _quarantine, 5: _touched_blobs}


@pytest.mark.parametrize("number", [step.number for step in ALL_STEPS])
async def test_from_each_earlier_step_with_what_was_there_then(open_database, url, number):
    database = open_database(url)
    assert await asyncio.to_thread(migrate, database, ALL_STEPS[:number]) == number
    still_there = [await CONTENTS[earlier](database) for earlier in range(1, number + 1)]
    assert await asyncio.to_thread(migrate, database) == len(ALL_STEPS) - number
    assert all(check() for check in still_there)


def test_several_at_once(open_database, url):
    databases = [open_database(url) for _ in range(4)]
    with ThreadPoolExecutor(len(databases)) as pool:
        done = list(pool.map(migrate, databases))
    assert sum(done) == len(ALL_STEPS)
    for database in databases:
        check_tables(database)


@pytest.mark.parametrize(
    "lock",
    [
        f"SELECT pg_advisory_xact_lock({postgres_migrations._LOCK})",
        "LOCK TABLE merit.blobs IN ACCESS SHARE MODE",
    ],
    ids=["somebody else is at it", "a table is in use"],
)
async def test_nobody_waits_long_for_others(open_database, url, lock, monkeypatch):
    monkeypatch.setattr(postgres_migrations, "LOCK_S", 0.2)
    database = open_database(url)
    done = await asyncio.to_thread(migrate, database, ALL_STEPS[:4])
    other = await database.connect("somebody else", Bounds())
    await other.execute("BEGIN")
    await other.execute(lock)
    with pytest.raises(MigrationWaits, match="somebody else is at it, or uses them"):
        await asyncio.to_thread(migrate, database)
    other.terminate()
    monkeypatch.undo()
    assert done + await asyncio.to_thread(migrate, database) == len(ALL_STEPS)


def test_tables_of_a_newer_version_are_left_alone(open_database, url):
    database = open_database(url)
    newer = Migration(len(ALL_STEPS) + 1, "9999_newer.sql", "CREATE TABLE merit.newer (x int)")
    migrate(database, [*ALL_STEPS, newer])
    for refused in (migrate, check_tables):
        with pytest.raises(DatabaseUnavailable, match=r"of a newer version of Merit .*use that version"):
            refused(database)


def test_tables_that_another_file_has_made_are_left_alone(open_database, url):
    database = open_database(url)
    first = ALL_STEPS[0]
    migrate(database, [Migration(1, first.name, first.statements + "-- as it was before it was released")])
    for refused in (migrate, check_tables):
        with pytest.raises(DatabaseUnavailable, match=f"made by another {first.name}"):
            refused(database)


def test_a_step_that_fails_leaves_nothing_and_can_be_done_again(open_database, url):
    database = open_database(url)
    bad = Migration(1, "0001_bad.sql", "CREATE TABLE merit.half (x int); SELECT 1 / 0")
    with pytest.raises(DatabaseUnavailable, match="division by zero"):
        migrate(database, [bad])
    assert migrate(database) == len(ALL_STEPS)


def test_a_user_who_may_not_is_told_what_he_needs(open_database, postgres, url):
    postgres.sql("CREATE ROLE weak LOGIN")
    try:
        with pytest.raises(DatabaseUnavailable, match="GRANT CREATE ON DATABASE"):
            migrate(open_database(url.replace("postgres@", "weak@")))
    finally:
        postgres.sql("DROP ROLE weak")
