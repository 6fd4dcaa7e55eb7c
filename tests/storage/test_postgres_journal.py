import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from merit.model.record import JournalCorrupt, Record, Tail, after
from merit.ports.journal import Fenced, JournalUnavailable, LeaderElsewhere, OutcomeUnknown
from merit.storage.postgres_database import Bounds, Database
from merit.storage.postgres_journal import COMPACT_BYTES, WAITING_MAX, PostgresJournal
from merit.storage.postgres_migrations import migrate
from merit.storage.postgres_reader import PostgresReader
from merit.storage.verify import verify_journal
from merit.testing.journal_contract import CELL, JournalContract, batch, fill, put
from merit.testing.postgres import PrivatePostgres
from tests.storage.postgres_proxy import PostgresProxy

LEASE_S = 1.0


@pytest.fixture
async def open_another(open_database):
    """Opens the same journal once more, as another process would; closed on the loop on which it was used."""
    opened = []

    def another(database=None, lease_s=LEASE_S):
        opened.append(PostgresJournal(database or open_database(), CELL, lease_s))
        return opened[-1]

    yield another
    for journal in opened:
        journal.close()


class TestPostgresJournal(JournalContract):
    @pytest.fixture
    async def open_journal(self, open_another):
        return lambda: open_another(lease_s=60.0)


@pytest.fixture
def sql(postgres, postgres_url):
    return lambda statement: postgres.sql(statement, postgres_url)


@contextlib.asynccontextmanager
async def row_locked(database, statement):
    """Somebody else's transaction that has begun, has executed the statement, and does nothing more."""
    connection = await database.connect("somebody else", Bounds())
    await connection.execute("BEGIN")
    await connection.execute(statement)
    try:
        yield connection
    finally:
        connection.terminate()


async def until(condition, what, wait_s=20.0):
    deadline = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


async def lead_when_free(journal, holder, wait_s=20.0):
    """The tail, and how long it took until somebody else did not lead any more."""
    began_s = time.monotonic()
    while True:
        try:
            return await asyncio.to_thread(journal.lead, holder, 1), time.monotonic() - began_s
        except LeaderElsewhere:
            assert time.monotonic() - began_s < wait_s
            await asyncio.sleep(0.02)


# --- the lease


async def test_a_lease_that_is_over_can_be_taken_and_one_that_is_renewed_cannot(open_another):
    first, second = open_another(), open_another()
    tail = first.lead("first", 1)
    ends_s = time.monotonic() + 2 * LEASE_S
    while time.monotonic() < ends_s:
        await first.renew()
        with pytest.raises(LeaderElsewhere, match="first"):
            second.lead("second", 1)
        await asyncio.sleep(LEASE_S / 5)
    record = batch(tail)
    await put(first, record)
    taken, waited_s = await lead_when_free(second, "second")
    assert waited_s < LEASE_S + 0.5
    assert (taken.next, taken.epoch) == (2, tail.epoch + 1)
    with pytest.raises(Fenced, match="somebody else leads"):
        await first.renew()
    with pytest.raises(JournalUnavailable):
        await put(first, batch(after(record)))
    await put(second, batch(taken))
    assert verify_journal(second).ok


async def test_a_leader_that_comes_back_is_fenced_by_the_database(open_another, sql):
    first, second = open_another(), open_another()
    tail = first.lead("same name", 1)
    sql("UPDATE merit.lease SET expires_at = '-infinity'")
    second.lead("same name", 1)
    with pytest.raises(Fenced, match="record 1 was not stored"):
        await put(first, batch(tail))
    with pytest.raises(JournalUnavailable, match="close this journal"):
        await put(first, batch(tail))
    with pytest.raises(JournalUnavailable):
        await first.renew()
    assert list(second.read()) == []


async def test_nobody_took_over_from_who_was_only_slow(open_another, sql):
    """The epoch decides, not the clock."""
    journal = open_another()
    tail = journal.lead("slow", 1)
    sql("UPDATE merit.lease SET expires_at = '-infinity'")
    await put(journal, batch(tail))
    await journal.renew()


async def test_who_closes_gives_the_lead_back_but_never_somebody_elses(open_another, sql):
    first, second, third = open_another(), open_another(), open_another()
    first.lead("first", 1)
    sql("UPDATE merit.lease SET expires_at = '-infinity'")
    second.lead("second", 1)
    first.close()
    with pytest.raises(LeaderElsewhere, match="second"):
        third.lead("third", 1)
    second.close()
    third.lead("third", 1)


async def test_who_does_not_lead_cannot_renew_and_needs_a_name(open_another):
    journal = open_another()
    with pytest.raises(JournalUnavailable, match="call lead first"):
        await journal.renew()
    with pytest.raises(ValueError, match="holder"):
        journal.lead("", 1)


async def test_a_take_over_waits_for_the_append_that_is_under_way(open_another, open_database, sql):
    """And has it in its tail."""
    first, second = open_another(lease_s=10.0), open_another(lease_s=10.0)
    tail = first.lead("first", 1)
    await put(first, batch(tail))
    tail = first.tail()
    await asyncio.to_thread(
        sql,
        "CREATE FUNCTION merit.wait() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(0.5); RETURN NEW; END'",
    )
    try:
        await asyncio.to_thread(
            sql, "CREATE TRIGGER wait BEFORE INSERT ON merit.records FOR EACH ROW EXECUTE FUNCTION merit.wait()"
        )
        await asyncio.to_thread(sql, "UPDATE merit.lease SET expires_at = '-infinity'")
        appending = asyncio.ensure_future(first.append(batch(tail)))
        await until(lambda: first._appender is not None, "the append has begun")
        while (
            await asyncio.to_thread(sql, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        ) != "1":
            await asyncio.sleep(0.01)
        taken = await asyncio.to_thread(second.lead, "second", 1)
        await appending
        assert taken.next == 3
    finally:
        await asyncio.to_thread(sql, "DROP FUNCTION merit.wait CASCADE")


@pytest.mark.parametrize("bounded", [True, False])
async def test_what_a_stopped_leader_has_left_open(open_another, open_database, bounded):
    """The server ends it, before the lease is over; what is somebody else's altogether is waited for, but not for ever."""
    journal, database = open_another(), open_database()
    journal.lead("stopped", 1)
    await journal.renew()
    lock = f"SELECT FROM merit.lease WHERE cell = '{CELL}' FOR SHARE"
    other = open_another()
    if bounded:
        stuck = await database.connect("append", journal._bounds)
        await stuck.execute("BEGIN")
        await stuck.execute(lock)
        _, waited_s = await lead_when_free(other, "other")
        assert waited_s < LEASE_S + 0.5
        stuck.terminate()
        return
    async with row_locked(database, lock):
        await asyncio.sleep(LEASE_S)
        with pytest.raises(LeaderElsewhere, match="just now"):
            await asyncio.to_thread(other.lead, "other", 1)
    await lead_when_free(other, "other")


async def test_a_leader_that_is_stopped_and_wakes_up_stores_nothing_more(open_another, postgres_url):
    """SIGSTOP, a take-over, SIGCONT."""
    script = Path(__file__).with_name("leading_process.py")
    process = subprocess.Popen(
        [sys.executable, str(script), CELL, str(LEASE_S)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MERIT_STORE": postgres_url},
    )
    try:
        assert process.stdout is not None
        lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(20)]
        process.send_signal(signal.SIGSTOP)
        journal = open_another(lease_s=10.0)
        tail, waited_s = await lead_when_free(journal, "taker")
        assert waited_s < LEASE_S + 0.5
        records = await fill(journal, tail, [1, 2])
        process.send_signal(signal.SIGCONT)
        rest, _ = await asyncio.to_thread(process.communicate, timeout=20)
        lines += rest.splitlines(keepends=True)
        acknowledged = [int(line.split()[1]) for line in lines if line.startswith("acknowledged")]
        assert lines[-1] in ("ended Fenced\n", "ended JournalUnavailable\n", "ended OutcomeUnknown\n")
        assert acknowledged == list(range(1, len(acknowledged) + 1))
        assert len(acknowledged) in (tail.next - 1, tail.next - 2)  # of the last one it may not have heard
        assert list(journal.read(tail.next)) == records
        assert verify_journal(journal).ok
    finally:
        process.kill()
        process.communicate()


async def test_however_leaders_follow_each_other_nothing_acknowledged_is_lost(open_another, open_database, sql):
    """Each is deposed while appends of it are under way."""
    database, chance = open_database(), random.Random(1)
    acknowledged: dict[int, Record] = {}
    leader = open_another(database)
    tail = leader.lead("0", 1)
    for turn in range(1, 12):
        pending = {}
        for _ in range(chance.randrange(1, 6)):
            record = batch(tail, [b"%d" % turn] * chance.randrange(1, 4))
            pending[record] = asyncio.ensure_future(leader.append(record))
            tail = after(record)
        await asyncio.sleep(chance.random() * 0.004)
        await asyncio.to_thread(sql, "UPDATE merit.lease SET expires_at = '-infinity'")
        successor = open_another(database)
        tail = await asyncio.to_thread(successor.lead, str(turn), 1)
        outcomes = await asyncio.gather(*pending.values(), return_exceptions=True)
        assert all(isinstance(outcome, Fenced | JournalUnavailable | None) for outcome in outcomes)
        acknowledged.update(
            (record.first, record) for record, outcome in zip(pending, outcomes, strict=True) if outcome is None
        )
        assert tail.next == max((record.last + 1 for record in acknowledged.values()), default=1)
        leader.close()
        leader = successor
    assert {record.first: record for record in leader.read()} == acknowledged
    assert len(acknowledged) > 10
    assert verify_journal(leader).ok


# --- appends


async def test_appends_wait_for_each_other_and_not_without_bound(open_another):
    journal = open_another()
    tail = journal.lead("a", 1)
    pending, records = [], []
    with pytest.raises(JournalUnavailable, match="wait already"):
        for _ in range(10 * WAITING_MAX):
            record = batch(tail)
            pending.append(journal.append(record))
            records.append(record)
            tail = after(record)
    with pytest.raises(JournalUnavailable, match="under way"):
        journal.lead("a", 1)
    await asyncio.gather(*pending)
    assert len(records) == WAITING_MAX + 1
    assert list(journal.read()) == records
    await put(journal, batch(tail))


@pytest.mark.parametrize("confusion", ["gap", "fork", "nothing before", "wrong beginning"])
async def test_the_database_refuses_what_does_not_follow_even_if_this_process_is_confused(open_another, confusion):
    journal = open_another()
    records = await fill(journal, journal.lead("a", 1), [2, 2])
    expected = journal._expected
    wrong = {
        "gap": Tail(7, expected.tail.last_hash, expected.tail.epoch),
        "fork": Tail(5, records[0].previous, expected.tail.epoch),
        "nothing before": Tail(1, bytes(32), expected.tail.epoch),
        "wrong beginning": Tail(9, bytes(32), expected.tail.epoch),
    }[confusion]
    first = expected.first if confusion in ("gap", "fork") else 0
    journal._expected = type(expected)(expected.holder, wrong, first, 0)
    with pytest.raises(Fenced):
        await put(journal, batch(wrong))
    assert list(PostgresReader(journal._database, CELL).read()) == records


async def test_an_append_that_was_cut_off_is_unknown_and_leading_anew_tells(
    open_another, open_database, postgres, postgres_url
):
    async with PostgresProxy(postgres.socket) as proxy:
        journal = open_another(open_database(proxy.url(postgres_url)), lease_s=60.0)
        records = await fill(journal, await asyncio.to_thread(journal.lead, "a", 1), [1])
        tail = after(records[-1])
        proxy.muted = True
        lost = batch(tail)
        pending = asyncio.ensure_future(journal.append(lost))
        behind = asyncio.ensure_future(journal.append(batch(after(lost))))
        again = open_another(lease_s=60.0)
        reader = PostgresReader(again._database, CELL)
        while not list(reader.read(2)):
            await asyncio.sleep(0.01)
        proxy.cut()
        with pytest.raises(OutcomeUnknown, match="record 2 may or may not"):
            await pending
        with pytest.raises(JournalUnavailable, match="former write failed"):
            await behind
        with pytest.raises(JournalUnavailable, match="close this journal"):
            journal.append(batch(after(lost)))
        proxy.muted = False
        await asyncio.to_thread(journal.close)
        assert again.lead("b", 1).next == 3
        assert list(again.read()) == [*records, lost]


async def test_an_append_whose_server_went_down_is_unknown(open_another, open_database, sql):
    journal = open_another(lease_s=30.0)
    tail = journal.lead("a", 1)
    await put(journal, batch(tail))
    tail = journal.tail()
    async with row_locked(open_database(), "SELECT FROM merit.lease FOR UPDATE"):
        pending = asyncio.ensure_future(journal.append(batch(tail)))
        while (
            await asyncio.to_thread(
                sql,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name = 'merit append contract' AND wait_event_type = 'Lock'",
            )
            != "1"
        ):
            await asyncio.sleep(0.01)
        with pytest.raises(OutcomeUnknown):
            await pending
    journal.close()
    assert open_another().lead("b", 1).next == 2


async def test_an_append_that_has_to_wait_too_long_is_not_stored(open_another, open_database):
    journal = open_another()
    tail = journal.lead("a", 1)
    async with row_locked(open_database(), "SELECT FROM merit.lease FOR UPDATE"):
        with pytest.raises(JournalUnavailable, match=r"record 1 was not stored: .* in time"):
            await put(journal, batch(tail))
    with pytest.raises(JournalUnavailable, match="close this journal"):
        journal.append(batch(tail))


async def test_who_is_canceled_while_an_append_is_under_way_ends_the_lead(open_another, open_database):
    journal = open_another(lease_s=10.0)
    tail = journal.lead("a", 1)
    async with row_locked(open_database(), "SELECT FROM merit.lease FOR UPDATE"):
        waiting = asyncio.create_task(put(journal, batch(tail)))
        await until(lambda: journal._statement is not None, "the append is under way")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(JournalUnavailable, match="may or may not"):
            journal.append(batch(tail))


async def test_a_commit_that_no_replica_has_is_not_acknowledged():
    """An administrator ends the wait for the replicas: the server says success, and warns."""
    with PrivatePostgres() as server:
        database = Database(server.url())
        await asyncio.to_thread(migrate, database)
        journal = PostgresJournal(database, CELL, 30.0)
        try:
            tail = await asyncio.to_thread(journal.lead, "a", 1)
            await put(journal, batch(tail))
            tail = journal.tail()
            for statement in ("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()"):
                await asyncio.to_thread(server.sql, statement)
            while await asyncio.to_thread(server.sql, "SHOW synchronous_standby_names") != "nobody":
                await asyncio.sleep(0.01)
            pending = asyncio.ensure_future(journal.append(batch(tail)))
            ending = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            while await asyncio.to_thread(server.sql, ending) != "1":
                await asyncio.sleep(0.01)
            with pytest.raises(OutcomeUnknown, match="the server warned"):
                await pending
        finally:
            for statement in ("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"):
                await asyncio.to_thread(server.sql, statement)
            await asyncio.to_thread(journal.close)
            database.close()


async def test_closing_while_an_append_is_under_way(open_another, open_database):
    journal = open_another(lease_s=10.0)
    tail = journal.lead("a", 1)
    pending = journal.append(batch(tail))  # not even connected
    journal.close()
    with pytest.raises((JournalUnavailable, OutcomeUnknown)):
        await pending
    with pytest.raises(JournalUnavailable, match="closed"):
        journal.append(batch(tail))


async def test_compaction_of_who_was_deposed_removes_nothing(open_another, sql):
    first, second = open_another(), open_another(lease_s=30.0)
    records = await fill(first, first.lead("first", 1), [1] * 10)
    sql("UPDATE merit.lease SET expires_at = '-infinity'")
    second.lead("second", 1)
    with pytest.raises(Fenced, match="nothing was removed"):
        first.compact(5)
    with pytest.raises(Fenced, match="nothing was removed"):
        first.compact(0)
    assert list(second.read()) == records


async def test_compaction_takes_so_many_bytes_at_a_time_and_at_least_one_record(open_another):
    journal = open_another(lease_s=30.0)
    tail = journal.lead("a", 1)
    for size in (COMPACT_BYTES * 2, 10, COMPACT_BYTES // 2, COMPACT_BYTES // 3, COMPACT_BYTES // 3, 10, 10):
        tail = await put(journal, batch(tail, [os.urandom(size)]))
    assert journal.compact(7) == 5, "the first, however large, and up to so much behind it"
    assert journal.compact(7) == 7
    assert journal.compact(7) == 7
    assert [record.first for record in journal.read()] == [7]
    assert verify_journal(journal).ok


async def test_what_takes_long_does_not_keep_the_lease_from_being_renewed_and_can_be_tried_again(
    open_another, open_database
):
    journal = open_another(lease_s=3.0)
    await fill(journal, journal.lead("a", 1), [1] * 4)
    for slow, lock in (
        (lambda: journal.compact(3), "SELECT FROM merit.records WHERE first = 1 FOR UPDATE"),
        (journal.size_bytes, "LOCK TABLE merit.records IN ACCESS EXCLUSIVE MODE"),
    ):
        async with row_locked(open_database(), lock):
            waiting = asyncio.create_task(asyncio.to_thread(slow))
            for _ in range(3):
                await asyncio.sleep(0.05)
                await asyncio.wait_for(journal.renew(), 1.0)
            assert not waiting.done()
            with pytest.raises(JournalUnavailable, match="in time"):
                await waiting
        assert await asyncio.to_thread(slow) > 1
    await journal.renew()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_who_leads_gives_up_when_the_server_keeps_nothing_any_more(setting):
    with PrivatePostgres() as server:
        database = Database(server.url())
        await asyncio.to_thread(migrate, database)
        journal = PostgresJournal(database, CELL, 30.0)
        try:
            tail = await put(journal, batch(await asyncio.to_thread(journal.lead, "a", 1)))
            await journal.renew()
            for statement in (f"ALTER SYSTEM SET {setting} = off", "SELECT pg_reload_conf()"):
                await asyncio.to_thread(server.sql, statement)
            with pytest.raises(Fenced, match=f"{setting} is off"):
                async with asyncio.timeout(10):
                    while True:
                        await journal.renew()
            with pytest.raises(JournalUnavailable, match=f"{setting} is off"):
                await put(journal, batch(tail))
        finally:
            await asyncio.to_thread(journal.close)
            database.close()


# --- damage


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM merit.records WHERE first = 51", "a gap: the record starts at 56, but 51 was expected"),
        ("UPDATE merit.records SET first = 52 WHERE first = 51", "columns of the row were altered"),
        ("UPDATE merit.records SET epoch = 9 WHERE first = 51", "columns of the row were altered"),
        ("UPDATE merit.records SET hash = sha256('') WHERE first = 51", "the header was altered"),
        ("UPDATE merit.records SET header = '' WHERE first = 51", "the header cannot be decoded"),
        ("UPDATE merit.records SET events = set_byte(events, 9, 255) WHERE first = 51", "events"),
        ("UPDATE merit.records SET payloads = '\\x90' WHERE first = 51", "payloads were altered"),
    ],
)
async def test_an_altered_row_is_named_and_the_others_are_still_checked(open_another, sql, statement, reason):
    journal = open_another(lease_s=30.0)
    await fill(journal, journal.lead("a", 1), [5] * 40)
    await asyncio.to_thread(sql, statement)
    verification = verify_journal(journal)
    assert [problem.sequence for problem in verification.problems] in ([51], [52], [56])
    assert reason in verification.problems[0].reason
    assert verification.last == 200
    assert len(list(journal.read(61))) == 28
    with pytest.raises(JournalCorrupt):
        list(journal.read())


async def test_an_altered_last_row_stops_the_start(open_another, sql):
    journal = open_another()
    await fill(journal, journal.lead("a", 1), [5] * 4)
    journal.close()
    await asyncio.to_thread(sql, "UPDATE merit.records SET hash = sha256('') WHERE first = 16")
    again = open_another()
    with pytest.raises(JournalCorrupt, match="sequence 16"):
        again.lead("b", 1)
    await asyncio.to_thread(sql, "DELETE FROM merit.records WHERE first = 16")
    assert again.lead("b", 1).next == 16


async def test_large_records_come_in_portions(open_another):
    journal = open_another(lease_s=30.0)
    tail, records = journal.lead("a", 1), []
    for _ in range(12):
        record = batch(tail, [os.urandom(1_500_000)], [b"payload"])
        tail = await put(journal, record)
        records.append(record)
    assert list(journal.read()) == records
    assert journal.size_bytes() >= 12 * 1_500_000
