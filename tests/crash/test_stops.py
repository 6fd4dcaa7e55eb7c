"""Processes that stand still for longer than anybody waits for them, and contents that are lost."""

import asyncio

import pytest
from msgspec import structs

from merit import AsyncClient, MeritError, Unreachable
from merit.model.limits import SECOND_NS
from merit.model.tasks import TaskState
from merit.testing.plane import PlaneFaults
from tests.crash.campaign import LIMITS
from tests.crash.evidence import check, read_executions, read_journal

SHORT = structs.replace(LIMITS, stale_ns=SECOND_NS, beat_ns=SECOND_NS // 4)


async def until(condition, wait_s=30.0):
    """Wait for a condition, with a bound."""
    async with asyncio.timeout(wait_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def settled(site, handles):
    """The outcomes of all, once they are known; and a look at the journal."""
    results = [await handle.wait(60) for handle in handles]
    return check(site.state, site.executions, {handle.id for handle in handles}, {r.task: r for r in results}), results


async def test_a_control_plane_that_stands_still_for_long(site):
    plane = await site.plane(PlaneFaults(limits=SHORT))
    for name in ("w1", "w2"):
        await site.worker(plane.address, name)
    async with AsyncClient(plane.address) as merit:
        handles = [await merit.submit("nap", {"seconds": 0.2}) for _ in range(40)]
        await handles[0].wait(30)
        plane.pause()
        await asyncio.sleep(4)  # four times what makes a worker stale
        submitting = asyncio.create_task(merit.submit("double", {"n": 1}))
        await asyncio.sleep(0.1)
        assert not submitting.done(), "acknowledged by nobody"
        plane.resume()
        handles.append(await asyncio.wait_for(submitting, 30))
        _, results = await settled(site, handles)
    assert all(result.ok for result in results)


async def test_a_worker_that_stands_still_is_replaced_and_changes_nothing_when_it_wakes(site):
    plane = await site.plane(PlaneFaults(limits=SHORT))
    sleeper = await site.worker(plane.address, "sleeper")
    async with AsyncClient(plane.address) as merit:
        handles = [await merit.submit("nap", {"seconds": 0.5}) for _ in range(8)]

        async def begun():
            return len(read_executions(site.executions)) == 8

        await until(begun)
        sleeper.pause()
        await site.worker(plane.address, "other")
        results = [await handle.wait(30) for handle in handles]
        assert all(result.ok and result.worker == "other" and result.attempts == 2 for result in results)
        sequence = (await merit.status())["sequence"]
        assert sequence > 0
        sleeper.resume()

        async def back():
            return {worker["state"] for worker in await merit.workers() if worker["id"] == "sleeper"} == {"ACTIVE"}

        await until(back)
        more = [await merit.submit("nap", {"seconds": 0.1}) for _ in range(40)]
        _, after = await settled(site, more)
        assert {result.worker for result in after} == {"sleeper", "other"}
    journalled = read_journal(site.state)
    for handle in handles:
        trail = journalled.tasks[handle.id]
        assert trail.finals == [TaskState.COMPLETED]
        assert trail.completed_by == [2]


async def test_a_blob_that_is_damaged_fails_its_task_and_no_other(site):
    plane = await site.plane()
    async with AsyncClient(plane.address) as merit:
        broken = await merit.submit("measure", {"text": "x" * 100_000})
        missing = await merit.submit("measure", {"text": "y" * 100_000})
        whole = await merit.submit("measure", {"text": "z" * 100_000})
        first, second = (read_journal(site.state).tasks[task.id].spec.parameters_blob for task in (broken, missing))
        blobs = {path.name: path for path in (site.state / "blobs").rglob("*") if path.is_file()}
        blobs[first].write_bytes(blobs[first].read_bytes()[:-1] + b"!")
        blobs[second].unlink()
        await site.worker(plane.address, "w1")
        assert await whole.result(30) == 100_000
        for handle, words in ((broken, "does not have its digest"), (missing, "has no blob")):
            result = await handle.wait(30)
            assert result.state is TaskState.DEAD
            assert result.failure is not None
            assert words in result.failure.message
            assert 1 <= result.attempts <= 4
        assert await (await merit.submit("double", {"n": 4})).result(30) == 8
        result = await (await merit.submit("lengthen", {"text": "ab", "times": 50_000})).wait(30)
        assert result.ok
        handle = await merit.submit("lengthen", {"text": "cd", "times": 50_000})
        while not handle.done:
            await asyncio.sleep(0.01)
        digest = read_journal(site.state).tasks[handle.id].result_blob
        (path,) = (site.state / "blobs").rglob(digest)
        path.write_bytes(b"")
        with pytest.raises(MeritError, match="does not have its digest") as raised:
            await handle.wait(30)
        assert not isinstance(raised.value, Unreachable), "asking again cannot help"


async def test_large_contents_while_the_control_plane_is_killed(site):
    """gRPC cancels the calls of a connection that is lost: that must not look as if somebody had canceled the task."""
    plane = await site.plane()
    await site.worker(plane.address, "w1")
    async with AsyncClient(plane.address) as merit:
        handles = [await merit.submit("lengthen", {"text": "x" * 1_000, "times": 2_000}) for _ in range(12)]
        for _ in range(3):
            await asyncio.sleep(0.15)
            await plane.kill()
            await plane.start()
        for handle in handles:
            while not handle.done:
                await asyncio.sleep(0.01)
        _, results = await settled(site, handles)
    assert all(result.ok for result in results)
