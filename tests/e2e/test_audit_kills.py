"""Results that others are asked about, with a control plane that is killed while they are: with real processes."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from merit import AsyncClient, Audit
from tests.merit_command import WAIT_S, Fleet, fleet, until

COUNT = 120
LIAR = "from merit import capability\n\n\n@capability\ndef add(a: int, b: int) -> int:\n    return a + b + a % 2\n"
JUDGE = """
import time
from pathlib import Path

from merit import capability


@capability
def review(task: str, capability: str, parameters: dict, result: int) -> dict:
    while not Path("go").exists():
        time.sleep(0.01)
    return {"ok": result == parameters["a"] + parameters["b"], "reason": "reckoned again"}
"""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path) as running:
        (running.folder / "liar.py").write_text(LIAR)
        (running.folder / "judge.py").write_text(JUDGE)
        yield running


async def audit(made: Fleet, policy: Audit) -> None:
    async with AsyncClient(made.server) as client:
        await client.operations.fleet.set_audit("add", policy)
        # Others wait for what the liar has to say, also while its breaker is open.
        await client.operations.fleet.set_supervision(circuit_open_s=0.2)


def auditing(made: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made.merit("task", "list", "--state", "auditing", "--json").json["tasks"]
    return found


async def test_copies_find_the_liar_whatever_is_killed(made: Fleet):
    plane = made.up()
    await audit(made, Audit(copies=3, floor=1.0, newcomer_tasks=1_000))
    for name, module in (("ann", "capabilities"), ("bob", "capabilities"), ("liar", "liar")):
        made.worker(name, "--concurrency", "8", module=module)
    seen: dict[int, int] = {}
    ids = set()
    kills = [COUNT // 4, COUNT // 2]
    async with asyncio.timeout(WAIT_S), AsyncClient(made.server) as client:
        calls = (("add", {"a": n, "b": 1}) for n in range(COUNT))
        async for batch in client.batches(calls, window=40):
            for handle in batch:
                ids.add(handle.id)
                seen[handle.tag] = (await handle.wait()).value
            if kills and len(seen) >= kills[0]:
                del kills[0]
                plane.kill()
                plane = await asyncio.to_thread(made.up)
    assert not kills
    assert seen == {n: n + 1 for n in range(COUNT)}
    assert [worker.stop() for worker in made.running[1:4]] == [0, 0, 0]
    assert plane.stop() == 0
    completed = Counter(event["task"] for event in made.events("TaskCompleted"))
    assert {task: count for task, count in completed.items() if task in ids} == dict.fromkeys(ids, 1)
    judged = made.events("ResultJudged")
    assert {event["worker"] for event in judged if not event["right"]} == {"liar"}


async def test_a_control_plane_that_is_killed_while_a_judge_thinks_waits_for_what_it_says(made: Fleet):
    plane = made.up()
    await audit(made, Audit(judge="review", floor=1.0))
    made.worker("ann")
    made.worker("judge", "--concurrency", "8", module="judge")
    tasks = [made.merit("submit", "add", f"a:={n}", "b:=1", "--json").json["id"] for n in range(3)]
    until(lambda: len(auditing(made)) == 3, "all of them are looked at")
    assert made.merit("status", "--json").json["auditing"] == 3
    (queue,) = [one for one in made.merit("queue", "list", "--json").json["queues"] if one["capability"] == "add"]
    assert (queue["auditing"], queue["running"], queue["pending"]) == (3, 0, 0)
    shown = made.merit("task", "show", tasks[0]).out
    assert "AUDITING" in shown
    assert "the result of ann is being looked at by others" in shown
    assert "a verdict" in shown
    plane.kill()
    made.up()
    assert {one["id"] for one in auditing(made)} == set(tasks)
    (made.folder / "go").touch()
    views = [until(partial(_if_final, made, task), "it is judged") for task in tasks]
    assert [view["result"] for view in views] == [1, 2, 3]
    assert [[one["state"] for one in view["attempts"]] for view in views] == [["COMPLETED"]] * 3
    assert [[one["result"]["ok"] for one in view["reviews"]] for view in views] == [[True]] * 3


def _if_final(made: Fleet, task: str) -> dict[str, Any] | None:
    view: dict[str, Any] = made.merit("task", "show", task, "--json").json
    return view if view["ended"] else None
