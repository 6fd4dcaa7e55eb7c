"""What is acknowledged is done, once, whatever is killed: with real processes and real kills."""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.inspection import foreign_agent as foreign
from merit import AsyncClient, Options
from tests.merit_command import WAIT_S, Fleet, Running, fleet, until

COUNT = 400


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as running:
        yield running


def assert_each_completed_once(made: Fleet, ids: set[str]) -> None:
    completed = Counter(event["task"] for event in made.events("TaskCompleted"))
    assert set(completed) == ids
    assert set(completed.values()) == {1}


async def test_kill_9_of_the_control_plane_loses_and_doubles_nothing(made: Fleet):
    plane = made.up()
    workers = [made.worker(f"w{n}", "--concurrency", "8") for n in range(2)]
    seen: dict[int, int] = {}
    kills = [COUNT // 4, COUNT // 2]
    async with asyncio.timeout(WAIT_S), AsyncClient(made.server) as client:
        calls = (("add", {"a": n, "b": 1}) for n in range(COUNT))
        ids = set()
        async for batch in client.batches(calls, window=100):
            for handle in batch:
                assert handle.tag not in seen
                ids.add(handle.id)
                seen[handle.tag] = (await handle.wait()).value
            if kills and len(seen) >= kills[0]:
                del kills[0]
                plane.kill()
                plane = await asyncio.to_thread(made.up)
    assert not kills
    assert seen == {n: n + 1 for n in range(COUNT)}
    # The workers first: one may not be back yet and still have reports to deliver.
    assert [worker.stop() for worker in workers] == [0, 0]
    assert plane.stop() == 0
    assert_each_completed_once(made, ids)
    assert [event["epoch"] for event in made.events("LeadershipStarted")] == [1, 2, 3]


async def test_kill_9_of_workers_loses_and_doubles_nothing(made: Fleet):
    made.up()
    workers = [made.worker(f"w{n}", "--concurrency", "4") for n in range(2)]
    seen: dict[int, str] = {}
    ids = set()
    async with asyncio.timeout(WAIT_S), AsyncClient(made.server) as client:
        calls = (("slow", {"name": f"n{n}", "seconds": 0.01}) for n in range(200))
        async for batch in client.batches(calls):
            for handle in batch:
                ids.add(handle.id)
                seen[handle.tag] = (await handle.wait()).value
            if len(seen) >= 50 and len(workers) == 2:
                workers.pop().kill()
                # Under the same name: what the one before held is lost at once, and tried again.
                workers = [workers[0], made.worker("w1", "--concurrency", "4"), workers[0]]
    assert seen == {n: f"n{n}" for n in range(200)}
    assert_each_completed_once(made, ids)


def test_a_worker_that_is_asked_to_end_finishes_what_it_has(made: Fleet):
    made.up()
    worker = made.worker("w1", "--concurrency", "2")
    ids = [made.merit("submit", "gated", f"name=d{n}").out.strip() for n in range(4)]
    until(lambda: (made.folder / "begun-d0").exists() and (made.folder / "begun-d1").exists(), "two are running")
    worker.send(signal.SIGTERM)
    worker.says("draining", "err")
    (made.folder / "go").touch()
    assert worker.ended() == 0
    states = {view["id"]: view for view in made.merit("task", "list", "--json").json["tasks"]}
    assert [states[one]["state"] for one in ids[:2]] == ["COMPLETED"] * 2
    assert [len(states[one]["attempts"]) for one in ids[:2]] == [1, 1]
    assert [states[one]["state"] for one in ids[2:]] == ["PENDING"] * 2
    made.worker("w2")
    until(lambda: len(made.events("TaskCompleted")) == 4, "the others are done by the next worker")
    assert not made.events("AttemptFailed")
    assert_each_completed_once(made, set(ids))


def test_a_worker_that_hangs_holds_up_nothing_for_longer_than_a_run_may_take(made: Fleet):
    made.up()
    stopped = made.worker("w1", "--concurrency", "2")
    task = made.merit("submit", "gated", "name=h", "--run-timeout", "1.5", "--json").json["id"]
    until((made.folder / "begun-h").exists, "it is running")
    stopped.send(signal.SIGSTOP)
    (made.folder / "go").touch()
    made.worker("w2", "--concurrency", "2")
    view = until(lambda: _if_final(made, task), "somebody else has done it")
    assert view["state"] == "COMPLETED"
    first, last = view["attempts"][0], view["attempts"][-1]
    assert (first["worker"], first["state"]) == ("w1", "TIMED_OUT")
    assert last["worker"] == "w2"
    stopped.send(signal.SIGCONT)
    assert stopped.stop() == 0  # what it reports now is of an attempt that is over
    assert_each_completed_once(made, {task})


def _if_final(made: Fleet, task: str) -> dict[str, Any] | None:
    view: dict[str, Any] = made.merit("task", "show", task, "--json").json
    return view if view["ended"] else None


def test_a_pool_replaces_its_workers_and_ends_with_them(made: Fleet):
    made.up()
    pool = made.worker("pool", "--count", "2")
    until(lambda: pool.err.count("attached") == 2, "both are attached")
    first = made.merit("submit", "whoami", "--wait", "--json").json
    assert first["worker"] in ("pool-1", "pool-2")
    os.kill(first["result"], signal.SIGKILL)
    until(lambda: pool.err.count("attached") == 3, "another one has come in its place")
    pids = {made.merit("submit", "whoami", "--wait", "--json").json["result"] for _ in range(4)}
    assert first["result"] not in pids
    assert pool.stop() == 0
    assert made.merit("status", "--json").json["fleet"] == []


def test_a_submit_that_was_acknowledged_survives_kill_9(made: Fleet):
    plane = made.up()
    ids = [json.loads(made.merit("submit", "add", "a:=1", f"b:={n}", "--json").out)["id"] for n in range(3)]
    plane.kill()
    made.up()
    made.worker("w1")
    until(lambda: len(made.events("TaskCompleted")) == 3, "all are done")
    assert_each_completed_once(made, set(ids))


def foreign_agent(made: Fleet, name: str) -> Running:
    """An agent that speaks the unary contract and knows nothing else of Merit."""
    program = Path(foreign.__file__)
    agent = Running([str(program), "--registry", made.server, "--name", "foreign"], made.folder, name)
    made.running.append(agent)
    agent.says("registered", "err")
    return agent


async def test_kill_9_of_a_foreign_worker_and_of_the_control_plane_loses_and_doubles_nothing(made: Fleet):
    """The agent begins a task when its stream is opened and looks twice a second how far it is, so that each kill finds it
    with tasks that it has not told the end of."""
    plane, agent = made.up(), foreign_agent(made, "agent-1")
    count = 24
    for number in range(count):
        (made.folder / f"f{number}.txt").write_text("x\n" * number)
    seen: dict[int, int] = {}
    ids = set()
    kills = ["agent", "plane", "both"]
    async with asyncio.timeout(WAIT_S), AsyncClient(made.server) as client:
        places = ({"root": str(made.folder), "directory": ".", "names": [f"f{n}.txt"]} for n in range(count))
        calls = (("text_form", parameters) for parameters in places)
        async for batch in client.batches(calls, options=Options(attempts_max=10)):
            for handle in batch:
                assert handle.tag not in seen
                ids.add(handle.id)
                seen[handle.tag] = (await handle.wait()).value["files"][0]["lf"]
            if kills and len(seen) >= 4 * (4 - len(kills)):
                killed = kills.pop(0)
                if killed in ("agent", "both"):
                    agent.kill()
                if killed in ("plane", "both"):
                    plane.kill()
                    plane = await asyncio.to_thread(made.up)
                if killed in ("agent", "both"):
                    agent = await asyncio.to_thread(foreign_agent, made, f"agent-{killed}")
    assert not kills
    assert seen == {number: number for number in range(count)}
    assert agent.stop() == 0
    assert plane.stop() == 0
    assert_each_completed_once(made, ids)
    assert made.events("AttemptFailed")  # of those that the kills found under way
