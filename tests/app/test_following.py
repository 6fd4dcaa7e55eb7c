"""The control plane's side of the follower, with real processes: what it does when those die, hang, or are far behind."""

import asyncio
import logging
import os
import random
import signal
import sys
import time
from contextlib import asynccontextmanager, closing

import pytest
from msgspec.structs import replace

from merit.app import following
from merit.app.follower import FollowerOrders
from merit.app.following import FollowerProcess
from merit.app.state_directory import StateDirectory
from merit.app.stores import LocalStores
from merit.model.limits import SECOND_NS
from merit.model.search import TaskQuery, WorkerQuery
from tests.app.a_life import Life, projected

WAIT_S = 20.0

FAKE = """
import json, os, signal, sys, time
def say(sequence, hurries=False, **alarms):
    print(json.dumps(dict(sequence=sequence, time_ns=7, snapshot=3, anchored=2, journal_first=1, compact=0, hurries=hurries,
                          alarms=alarms)), flush=True)
def until_there_is(path):
    while not os.path.exists(path):
        time.sleep(0.01)
orders = json.loads(sys.argv[1])
"""


@pytest.fixture
def stores(tmp_path):
    return LocalStores(StateDirectory(tmp_path / "state"))


@asynccontextmanager
async def fake(stores, script, durable=lambda: 10):
    """A follower that is a script of Python."""
    process = FollowerProcess(stores, FollowerOrders(), durable, (sys.executable, "-c", FAKE + script))
    running = asyncio.create_task(process.run())
    try:
        yield process
    finally:
        await process.stop()
        await asyncio.wait_for(running, WAIT_S)


async def until(holds):
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_what_it_says_is_its_standing(stores, tmp_path):
    go = tmp_path / "go"
    script = f"say(4); until_there_is({str(go)!r}); say(10, disk='make space'); time.sleep(60)"
    async with fake(stores, script) as process:
        assert not await process.reached(10, 0.01)
        assert await process.reached(4, WAIT_S)
        assert process.standing().lag_events == 6
        waiting = [asyncio.create_task(process.reached(sequence, WAIT_S)) for sequence in (9, 10)]
        go.touch()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await process.reached(10, 0)
        process.look()
        standing = process.standing()
        assert (standing.sequence, standing.time_ns, standing.lag_events, standing.lag_s) == (10, 7, 0, 0.0)
        assert (standing.snapshot, standing.journal_first) == (3, 1)
        assert standing.alarms == ("make space",)
        assert not process._waiting


async def test_one_that_dies_is_started_again_and_told_of_meanwhile(stores, tmp_path, caplog):
    go = tmp_path / "go"
    script = f"""
mark = {str(tmp_path / "mark")!r}
if not os.path.exists(mark):
    open(mark, "w").close()
    say(5)
    os.kill(os.getpid(), signal.SIGKILL)
until_there_is({str(go)!r})
say(10)
time.sleep(60)
"""
    with caplog.at_level(logging.INFO):
        async with fake(stores, script) as process:
            await until(lambda: process.standing().alarms)
            (alarm,) = process.standing().alarms
            assert "was ended by signal 9" in alarm
            assert "started again" in alarm
            go.touch()
            assert await process.reached(10, WAIT_S)
            assert not process.standing().alarms
            process.look()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("print('no report'); sys.stdout.flush(); time.sleep(60)", "no report"),
        ("print('x' * 2_000_000); sys.stdout.flush(); time.sleep(60)", "no report"),
        ("os.close(1); time.sleep(60)", "signal 9"),
        ("sys.exit(3)", "exit code 3"),
    ],
)
async def test_one_that_cannot_be_understood_is_ended(stores, script, said):
    async with fake(stores, script) as process:
        await until(lambda: process.standing().alarms)
        assert said in process.standing().alarms[0]


async def test_one_that_cannot_be_started_is_an_alarm(stores):
    process = FollowerProcess(stores, FollowerOrders(), lambda: 10, ("/nowhere/at/all",))
    running = asyncio.create_task(process.run())
    await until(lambda: process.standing().alarms)
    assert "could not be started" in process.standing().alarms[0]
    await process.stop()
    await asyncio.wait_for(running, WAIT_S)


async def test_one_that_does_not_end_is_killed(stores, monkeypatch, caplog):
    monkeypatch.setattr(following, "STOP_S", 0.2)
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say(1); time.sleep(60)"
    async with fake(stores, script, lambda: 20_000) as process:
        assert await process.reached(1, WAIT_S)
    assert "is killed" in caplog.text


async def test_it_is_waited_for_only_if_a_snapshot_is_worth_it(stores, tmp_path, caplog):
    for durable, ends in ((20_000, True), (1_000, False)):
        mark = tmp_path / f"{durable}"
        script = f"""
def end(*_):
    open({str(mark)!r}, "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
say(1)
time.sleep(60)
"""
        async with fake(stores, script, lambda durable=durable: durable) as process:
            assert await process.reached(1, WAIT_S)
        assert mark.exists() == ends
    assert not caplog.records


async def test_one_that_is_far_behind_gives_way_to_one_that_hurries(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(following, "LAG_EVENTS_MAX", 10)
    go = tmp_path / "go"
    script = f"""
if not orders["hurry"]:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    say(1)
    time.sleep(60)
say(2, hurries=True)
until_there_is({str(go)!r})
say(100, hurries=True)
say(100)
time.sleep(60)
"""
    async with fake(stores, script, lambda: 100) as process:
        assert await process.reached(1, WAIT_S)
        process.look()
        assert "99 events" in process.standing().alarms[0]
        assert await process.reached(2, WAIT_S)
        assert process._hurries
        process.look()
        go.touch()
        assert await process.reached(100, WAIT_S)
        await until(lambda: not process._hurries)
        process.look()
        assert not process.standing().alarms


async def test_one_that_is_far_behind_and_stands_still_is_killed(stores, monkeypatch):
    monkeypatch.setattr(following, "LAG_EVENTS_MAX", 10)
    monkeypatch.setattr(following, "STOP_S", 0.2)
    script = """
if not orders["hurry"]:
    say(1)
    os.kill(os.getpid(), signal.SIGSTOP)
say(100)
time.sleep(60)
"""
    async with fake(stores, script, lambda: 100) as process:
        assert await process.reached(1, WAIT_S)
        await until(lambda: process.look() or process.standing().sequence == 100)


async def test_how_long_it_has_been_behind(stores, monkeypatch):
    now_s, durable = 100.0, 0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    process = FollowerProcess(stores, FollowerOrders(), lambda: durable)
    for _ in range(20_000):
        now_s += 0.05
        durable += 1
        process.look()
    assert process.standing().lag_s == pytest.approx(1_000, abs=1)
    assert len(process._marks) <= following._MARKS_MAX
    process._hear(replace(process._said, sequence=durable // 2))
    assert process.standing().lag_s == pytest.approx(500, rel=0.05)
    process.look()
    assert process.standing().lag_s == pytest.approx(500, rel=0.05)
    process._hear(replace(process._said, sequence=durable))
    process.look()
    assert process.standing().lag_s == 0
    now_s += 3600
    durable += 1
    process.look()
    assert process.standing().lag_s == 0, "it is behind since now only"


# The real one


def found(stores):
    with closing(stores.read_model_reader()) as model:
        page = model.find(TaskQuery(), 2**63 - 1, 1_000)
        assert not page.more
        assert page.rows
        return {row.order: row for row in reversed(page.rows)}, {
            row.worker: row for row in model.workers(WorkerQuery(), "", 1_000)
        }


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has this class of priority")
async def test_one_that_hurries_stands_back_once_it_has_caught_up(stores):
    with closing(stores.journal()) as journal:
        life = Life(journal, now_ns=time.time_ns())
        life.go_on(10)
        process = FollowerProcess(stores, FollowerOrders(), lambda: life.tail[0] - 1)
        process._hurries = True
        running = asyncio.create_task(process.run())
        try:
            assert await process.reached(life.tail[0] - 1, WAIT_S)
            await until(lambda: not process._hurries)
            assert process._process is not None
            assert os.sched_getscheduler(process._process.pid) == os.SCHED_IDLE
        finally:
            await process.stop()
            await running


async def test_killed_at_any_moment_it_has_in_the_end_what_a_projection_at_once_has(stores):
    chance = random.Random(7)
    journal = stores.journal()
    life = Life(journal, now_ns=time.time_ns() - 60 * SECOND_NS)
    process = FollowerProcess(stores, FollowerOrders(snapshot_events=200), lambda: life.tail[0] - 1)
    running = asyncio.create_task(process.run())
    try:
        for _ in range(3):
            since = process.standing().sequence
            await until(lambda since=since: life.go_on(3) or process.standing().sequence > since)
            await asyncio.sleep(chance.uniform(0, 0.1))
            life.go_on(20)
            assert process._process is not None
            os.kill(process._process.pid, signal.SIGKILL)
            killed = process._process
            await until(lambda killed=killed: process._process is not killed)
        assert await process.reached(life.tail[0] - 1, WAIT_S)
    finally:
        await process.stop()
        await running
        journal.close()
    with closing(stores.reader()) as reader:
        tasks, workers = projected(reader.read())
    # The words of a task are searched for, and not stored as they are.
    assert found(stores) == ({order: replace(row, words="") for order, row in tasks.items()}, workers)
