"""From end to end: results that others are asked about, by copies, by a judge, and by tasks with known results."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from merit import AsyncClient, Audit, GoldExample, TaskFailedError, WorkerProcess, capability
from merit.sdk.handles import TaskHandle
from merit.sdk.operations import Where
from tests.gateway.foreign import planed

pytestmark = pytest.mark.timeout(60)

COPIES = Audit(copies=3, floor=1.0, newcomer_tasks=1_000)


def adding(wrong=False):
    @capability(name="add")
    def add(a: int, b: int) -> int:
        return a + b + (1 if wrong and a % 2 else 0)

    return add


@capability
def review(task: str, capability: str, parameters: dict, result: int) -> dict:
    right = parameters["a"] + parameters["b"]
    return {"ok": result == right, "reason": f"{capability} of these is {right}"}


@asynccontextmanager
async def working(plane, **capabilities):
    """Workers, by name, each with one capability."""
    async with AsyncExitStack() as stack:
        for name, one in capabilities.items():
            process = WorkerProcess([one], plane.address, name=name)
            running = asyncio.create_task(process.run())
            stack.push_async_callback(asyncio.wait_for, running, 15)
            stack.callback(process.drain)
        yield


async def here(merit, count):
    while len(await merit.workers()) < count:
        await asyncio.sleep(0.01)


async def test_of_three_workers_the_one_that_lies_deceives_nobody(tmp_path):
    async with planed(tmp_path / "state") as plane, AsyncClient(plane.address) as merit:
        await merit.operations.fleet.set_audit("add", COPIES)
        await merit.operations.fleet.set_supervision(every_s=0.1, circuit_open_s=0.2)
        async with working(plane, liar=adding(wrong=True), ann=adding(), bob=adding()):
            await here(merit, 3)
            handles: list[TaskHandle] = []
            caught: list[dict[str, Any]] = []
            while not caught:  # it is not always the liar who gets one first
                more = [await merit.submit("add", {"a": n, "b": 1}) for n in range(20)]
                assert await asyncio.gather(*(handle.result(30) for handle in more)) == [n + 1 for n in range(20)]
                handles += more
                views = [await merit.task(handle.id) for handle in handles]
                caught = [view for view in views if view["attempts"][0]["state"] == "REJECTED"]
            for view in caught:
                assert view["attempts"][0]["worker"] == "liar"
                error = view["attempts"][0]["error"]
                assert error["kind"] == "audit"
                assert "said otherwise" in error["message"]
            listed = await merit.tasks(limit=1_000)
            assert {one["id"] for one in listed.tasks} == {handle.id for handle in handles}
            everything = await merit.tasks(where=Where(reviews=True), limit=1_000)
            copies = [one for one in everything.tasks if "review" in one["terms"]]
            assert len(copies) == len(everything.tasks) - len(handles) >= 2 * len(handles)
            mine = await merit.tasks(where=Where(reviews=True, labels={"merit.review-of": handles[7].id}))
            assert len(mine.tasks) >= 2
            assert {one["terms"]["review"]["of"] for one in mine.tasks} == {handles[7].id}
            status = await merit.status()
            assert (status["auditing"], status["waiting"]) == (0, 0)
            while (liar := await merit.operations.fleet.worker("liar"))["capabilities"][0]["reputation"] is None:
                await asyncio.sleep(0.01)
            ann = await merit.operations.fleet.worker("ann")
            assert liar["failed"] == len(caught)
            assert liar["reputation"]["value"] < ann["reputation"]["value"]


async def test_what_a_judge_refuses_is_tried_elsewhere_and_at_last_told_as_such(tmp_path):
    async with planed(tmp_path / "state") as plane, AsyncClient(plane.address) as merit:
        await merit.operations.fleet.set_audit("add", Audit(judge="review", floor=1.0))
        async with working(plane, liar=adding(wrong=True), ann=adding(), judge=review):
            await here(merit, 3)
            handles = [await merit.submit("add", {"a": n, "b": 1}, attempts_max=20) for n in range(20)]
            assert await asyncio.gather(*(handle.result(30) for handle in handles)) == [n + 1 for n in range(20)]
        async with working(plane, cheat=adding(wrong=True), judge=review):
            await here(merit, 2)
            handle = await merit.submit("add", {"a": 1, "b": 1}, attempts_max=1)
            with pytest.raises(TaskFailedError, match="judge, who was asked to judge it: add of these is 2") as failed:
                await handle.result(30)
            assert failed.value.failure.kind == "audit"
            dead = await merit.operations.dead()
            assert [one["id"] for one in dead.tasks] == [handle.id]


async def test_a_judge_that_is_not_there_leaves_the_result_alone(tmp_path):
    async with planed(tmp_path / "state") as plane, AsyncClient(plane.address) as merit:
        await merit.operations.fleet.set_audit("add", Audit(judge="review", floor=1.0))
        async with working(plane, ann=adding()):
            await here(merit, 1)
            assert await (await merit.submit("add", {"a": 1, "b": 1})).result(30) == 2


async def test_tasks_with_known_results_are_among_the_others_and_in_no_list(tmp_path):
    gold = tuple(GoldExample(parameters={"a": n, "b": 5}, expected=n + 5) for n in range(1, 20, 2))
    async with planed(tmp_path / "state") as plane, AsyncClient(plane.address) as merit:
        await merit.operations.fleet.set_audit("add", Audit(gold=gold, gold_share=1.0))
        async with working(plane, liar=adding(wrong=True), ann=adding()):
            await here(merit, 2)
            ids = set()
            for n in range(0, 40, 2):
                handle = await merit.submit("add", {"a": n, "b": 1})
                assert await handle.result(30) == n + 1
                ids.add(handle.id)
            assert {one["id"] for one in (await merit.tasks(limit=1_000)).tasks} == ids
            shown = (await merit.tasks(where=Where(reviews=True, tenant="merit.gold"), limit=1_000)).tasks
            assert shown
            assert {one["terms"]["review"]["kind"] for one in shown} == {"GOLD"}
            assert {one["state"] for one in shown if one["ended"]} == {"COMPLETED"}
