"""What is done beside a cell, and what it tells."""

import asyncio
import contextlib
import logging
import threading
import time

import pytest

from merit.app import housekeeping
from merit.app.follower import FollowerOrders, FollowerReport
from merit.app.following import FollowerProcess
from merit.app.housekeeping import Housekeeping
from merit.app.state_directory import StateDirectory
from merit.app.stores import LocalStores
from merit.ports.journal import JournalUnavailable
from merit.storage.memory_journal import MemoryDisk, MemoryJournal
from merit.testing.journal_contract import CELL, fill

WAIT_S = 10.0


class Slow(MemoryJournal):
    """A journal as in a database: ``compactions``: what becomes of the next ones; then they go well."""

    def __init__(self):
        super().__init__(MemoryDisk(CELL))
        self.compactions = []
        self.answers = threading.Event()
        self.answers.set()
        self.away = False
        self.asked = self.refused = 0

    def compact(self, until):
        if self.compactions:
            raise self.compactions.pop(0)
        return super().compact(until)

    def size_bytes(self):
        self.asked += 1
        assert self.answers.wait(WAIT_S)
        if self.away:
            self.refused += 1
            raise JournalUnavailable("planned")
        return super().size_bytes()


@contextlib.asynccontextmanager
async def kept(tmp_path, journal, compact=1):
    follower = FollowerProcess(LocalStores(StateDirectory(tmp_path / "state")), FollowerOrders(), lambda: 0)
    follower._said = FollowerReport(0, 0, 0, 0, 1, compact, False, {})
    keeping = Housekeeping(journal, follower)
    task = asyncio.create_task(keeping.run())
    try:
        yield keeping, follower
        assert not task.done()
    finally:
        journal.answers.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds):
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(housekeeping, "_AGAIN_S", 0.1)
    monkeypatch.setattr(housekeeping, "_MEASURE_S", 0.1)


async def test_compaction_that_fails_is_told_of_once_and_tried_again_until_it_is_done(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    journal = Slow()
    await fill(journal, journal.lead("a", 1), [1] * 10)
    journal.compactions = [JournalUnavailable("planned to fail")] * 3
    async with kept(tmp_path, journal, compact=9) as (_, follower):
        await until(lambda: follower.standing().alarms)
        assert "the journal could not be compacted" in follower.standing().alarms[0]
        await until(lambda: journal.base().next == 9)
        await until(lambda: "in order again" in caplog.text)
        assert not follower.standing().alarms
        assert caplog.text.count("could not be compacted") == 1


async def test_the_size_is_known_without_waiting_for_what_does_not_answer(tmp_path):
    journal = Slow()
    await fill(journal, journal.lead("a", 1), [1])
    async with kept(tmp_path, journal) as (keeping, _):
        await until(keeping.journal_bytes)
        before = keeping.journal_bytes()
        journal.answers.clear()
        asked = journal.asked
        await until(lambda: journal.asked > asked)  # and waits for the answer
        began_s = time.monotonic()
        assert keeping.journal_bytes() == before
        assert time.monotonic() - began_s < 0.1
        journal.away = True
        journal.answers.set()
        await until(lambda: journal.refused > 1)  # so that it has heard the first one
        assert keeping.journal_bytes() == before
        journal.away = False
        await fill(journal, journal.tail(), [5])
        await until(lambda: keeping.journal_bytes() > before)
