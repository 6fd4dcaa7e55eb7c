"""Processes that are kept running, and of which nothing is left."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from merit.pools.local_pool import LocalPool, PoolGaveUp, PoolNews
from tests.merit_command import Running, until

WAIT_S = 30.0
SLEEPER = "import time; time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def python(program: str) -> Callable[[int], list[str]]:
    return lambda slot: [sys.executable, "-c", program, str(slot)]


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_one_that_dies_is_started_again_and_all_end_with_the_pool():
    news: list[PoolNews] = []
    pool = LocalPool(python(SLEEPER), 2, news=news.append)
    running = asyncio.create_task(pool.run())
    await eventually(lambda: len(pool.pids) == 2)
    first = pool.pids
    os.kill(first[1], signal.SIGKILL)
    await eventually(lambda: pool.pids.get(1, first[1]) != first[1])
    assert pool.pids[0] == first[0]
    last = pool.pids
    pool.stop()
    await asyncio.wait_for(running, WAIT_S)
    assert pool.pids == {}
    assert all(gone(pid) for pid in [*first.values(), *last.values()])
    died = [item for item in news if item.unexpected]
    assert [(item.slot, item.pid, item.code) for item in died] == [(1, first[1], -signal.SIGKILL)]
    assert "SIGKILL" in str(died[0])


async def test_one_that_was_told_to_leave_is_not_started_again(tmp_path: Path):
    leaver = "import pathlib, time\nwhile not pathlib.Path(__import__('sys').argv[1]).exists():\n    time.sleep(0.01)"
    news: list[PoolNews] = []
    pool = LocalPool(
        lambda slot: [*python(leaver)(slot)[:-1], str(tmp_path / str(slot))], 2, news=news.append, done_codes=(0,)
    )
    running = asyncio.create_task(pool.run())
    await eventually(lambda: len(pool.pids) == 2)
    (tmp_path / "0").touch()
    await eventually(lambda: list(pool.pids) == [1])
    assert not running.done()
    (tmp_path / "1").touch()
    await asyncio.wait_for(running, WAIT_S)
    assert [(item.slot, item.code, item.unexpected) for item in news if item.code is not None] == [
        (0, 0, False),
        (1, 0, False),
    ]


async def test_back_off_doubles():
    news: list[PoolNews] = []
    pool = LocalPool(python("raise SystemExit(1)"), 1, news=news.append)
    running = asyncio.create_task(pool.run())
    await eventually(lambda: sum(item.unexpected for item in news) >= 3)
    pool.stop()
    await asyncio.wait_for(running, WAIT_S)
    waits = [item.again_s for item in news if item.again_s is not None]
    for place, wait_s in enumerate(waits):
        assert 0.1 * 2**place <= wait_s <= 0.2 * 2**place


async def test_one_that_cannot_work_is_not_tried_again_and_the_others_go_on(tmp_path: Path):
    news: list[PoolNews] = []
    pool = LocalPool(
        lambda slot: python("raise SystemExit(2)" if slot else SLEEPER)(slot), 2, folder=tmp_path, news=news.append
    )
    running = asyncio.create_task(pool.run())
    await eventually(lambda: any(item.cannot_work for item in news))
    assert list(pool.pids) == [0]
    assert not running.done()
    assert [(item.slot, item.code) for item in news if item.unexpected] == [(1, 2)]
    assert "exit code 2: it cannot work" in str(news[-1])
    pool.stop()
    await asyncio.wait_for(running, WAIT_S)
    assert pool.pids == {}
    assert sum(item.code is None for item in news) == 2


async def test_a_pool_of_which_none_can_work_gives_up(tmp_path: Path):
    pool = LocalPool(python("raise SystemExit(2)"), 2, folder=tmp_path)
    with pytest.raises(PoolGaveUp, match="exit code 2: it cannot work"):
        await asyncio.wait_for(pool.run(), WAIT_S)
    assert pool.pids == {}


async def test_a_program_that_does_not_exist_is_an_error():
    pool = LocalPool(lambda _: ["no-such-program-anywhere"], 1)
    with pytest.raises(FileNotFoundError):
        await asyncio.wait_for(pool.run(), WAIT_S)


async def test_one_that_does_not_listen_is_killed(tmp_path: Path):
    news: list[PoolNews] = []
    pool = LocalPool(python(DEAF), 1, folder=tmp_path, news=news.append, stop_s=0.2)
    running = asyncio.create_task(pool.run())
    await eventually(lambda: (tmp_path / "0.log").exists() and "deaf" in (tmp_path / "0.log").read_text())
    pool.stop()
    await asyncio.wait_for(running, WAIT_S)
    assert news[-1].code == -signal.SIGKILL


async def test_asked_twice_it_does_not_wait(tmp_path: Path):
    pool = LocalPool(python(DEAF), 1, folder=tmp_path)
    running = asyncio.create_task(pool.run())
    await eventually(lambda: (tmp_path / "0.log").exists() and "deaf" in (tmp_path / "0.log").read_text())
    pool.stop()
    await asyncio.sleep(0)
    pool.stop()
    await asyncio.wait_for(running, WAIT_S)


async def test_a_canceled_pool_leaves_nothing():
    pool = LocalPool(python(SLEEPER), 2)
    running = asyncio.create_task(pool.run())
    await eventually(lambda: len(pool.pids) == 2)
    pids = list(pool.pids.values())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert all(gone(pid) for pid in pids)


def test_a_killed_pool_leaves_nothing(tmp_path: Path):
    """Of the pool itself by the kernel's word, and of a worker's own children by theirs."""
    tethered = "from merit.pools.tether import tether; tether(); print('up', flush=True); import time; time.sleep(600)"
    program = (
        "import asyncio, pathlib, sys\n"
        "from merit.pools.local_pool import LocalPool\n"
        f"pool = LocalPool(lambda _: [sys.executable, '-c', {tethered!r}], 2, folder=pathlib.Path('logs'))\n"
        "asyncio.run(pool.run())\n"
    )
    pool = Running(["-c", program], tmp_path, "pool")
    try:
        logs = [tmp_path / "logs" / "0.log", tmp_path / "logs" / "1.log"]
        until(lambda: all(log.exists() and "up" in log.read_text() for log in logs), "both are up")
        pids = [child.pid for child in psutil.Process(pool.pid).children()]
        assert len(pids) == 2
    finally:
        pool.kill()
    until(lambda: all(gone(pid) for pid in pids), "both are gone")
