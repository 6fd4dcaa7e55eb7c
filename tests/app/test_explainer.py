"""The processes that explain past decisions: bounded in number and time, and over when nobody waits for them."""

import asyncio
import os
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from merit.app import explainer as module
from merit.app.explainer import WAITING_MAX, JournalExplainer
from merit.app.state_directory import CELL, StateDirectory
from merit.app.stores import LocalStores
from merit.core.explaining import Explanation
from merit.gateway.explaining import CannotExplain
from merit.storage.sqlite_journal import SqliteJournal
from merit.testing.builders import an_id
from tests.app.recorded_life import LIMITS, a_busy_life

WAIT_S = 30.0
SOME = an_id(1)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A state directory with a journal, and its decisions."""
    recorded = a_busy_life(7, "two-choices")
    directory = StateDirectory(tmp_path_factory.mktemp("explained"))
    journal = SqliteJournal(directory.journal, CELL)
    epoch = journal.lead("leader-1", 1).epoch
    for record in recorded.disk.records:
        while epoch < record.epoch:
            epoch = journal.lead("another", 1).epoch
        journal.append(record)
    journal.close()
    return directory, list(recorded.assigned()), recorded


@pytest.fixture
def instead(tmp_path, monkeypatch):
    """Have this shell script run in place of the process; the file that it may leave its id in."""

    def run(script):
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\n{script}\n")
        program.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(program))
        return tmp_path / "pid"

    return run


def an_explainer(directory=Path("nowhere")):
    return JournalExplainer(LocalStores(StateDirectory(directory)), LIMITS)


async def steps(explainer, task=SOME, number=1, assigned_ns=1, rulings_max=10):
    async with aclosing(explainer.explain(task, number, assigned_ns, rulings_max)) as answers:
        return [step async for step in answers]


async def test_a_decision_is_explained_by_a_process_of_its_own(stored):
    directory, decisions, recorded = stored
    event, time_ns = decisions[-1]
    *_, found = await steps(an_explainer(directory.path), event.task, event.number, time_ns, 100)
    assert isinstance(found, Explanation)
    assert found == recorded.explained(event, time_ns)
    assert found.agrees


async def test_what_the_process_cannot_find_out_is_said(stored):
    directory, _, _ = stored
    with pytest.raises(CannotExplain, match="does not say to whom"):
        await steps(an_explainer(directory.path))
    with pytest.raises(CannotExplain):
        await steps(an_explainer(directory.path / "nowhere"))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "ended with 3"),
        ("echo nonsense", "no answer"),
        ("kill -9 $$", "ended with -9"),
    ],
)
async def test_a_process_that_goes_wrong_is_said_to_have(instead, script, said):
    instead(script)
    with pytest.raises(CannotExplain, match=said):
        await steps(an_explainer())


async def test_one_that_takes_too_long_is_ended(instead, monkeypatch):
    pid = instead("exec sleep 600")
    monkeypatch.setattr(module, "TIME_S_MAX", 0.2)
    with pytest.raises(CannotExplain, match="too long ago"):
        await steps(an_explainer())
    assert is_gone(int(pid.read_text()))


async def test_it_ends_when_nobody_waits_for_it(instead):
    pid = instead("""echo '{"sequence":1,"last":2}'; exec sleep 600""")
    answers = an_explainer().explain(an_id(1), 1, 1, 10)
    assert (await anext(answers)).last == 2
    await answers.aclose()
    assert is_gone(int(pid.read_text()))


async def test_one_at_a_time_and_a_bounded_number_waits(instead):
    instead("""echo '{"problem":"told"}'""")
    slow = an_explainer()
    await slow._one_at_a_time.acquire()
    waiting = [asyncio.create_task(steps(slow)) for _ in range(WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(CannotExplain, match="try again later") as refused:
        await steps(slow)
    assert refused.value.busy
    waiting.pop().cancel()
    slow._one_at_a_time.release()
    async with asyncio.timeout(WAIT_S):
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(error) for error in ended] == ["told"] * (WAITING_MAX - 1)
    with pytest.raises(CannotExplain, match="told"):
        await steps(slow)


async def test_no_process_can_be_had(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    with pytest.raises(CannotExplain, match="no process") as refused:
        await steps(an_explainer())
    assert refused.value.busy


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
