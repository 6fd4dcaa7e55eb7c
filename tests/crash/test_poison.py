"""A task that makes the machine raise: the cell stops, sets it aside, and goes on with everything else when it is
started again."""

import asyncio
import sys
from pathlib import Path

import pytest

from merit import AsyncClient, Refused
from merit.model.tasks import TaskState
from merit.testing.plane import EXIT_DEFECT, PlaneFaults
from merit.testing.processes import NodeProgram, running
from tests.crash.campaign import LIMITS
from tests.crash.evidence import check

ENTRY = [sys.executable, str(Path(__file__).with_name("poisoned_plane.py"))]


async def stopped_once(plane):
    assert await plane.ended(30) == EXIT_DEFECT, plane.failure("should have stopped")
    assert any("set aside" in line and "a defect for tests" in line for line in plane.lines)
    await plane.start()


async def goes_on(site, plane, merit, handles):
    """Everything else is done; and a further start finds nothing to stumble over."""
    results = {handle.id: await handle.wait(30) for handle in handles}
    assert all(result.value == 2 for result in results.values())
    assert plane.running, plane.failure("stopped once more")
    await plane.kill()
    await plane.start()
    assert await (await merit.submit("double", {"n": 5})).result(30) == 10
    return results


async def test_a_task_that_cannot_be_submitted(site, monkeypatch):
    monkeypatch.setenv("POISON", "submit")
    plane = await site.plane(PlaneFaults(limits=LIMITS), ENTRY)
    async with AsyncClient(plane.address) as merit:
        before = [await merit.submit("double", {"n": 1}) for _ in range(5)]
        poisonous = asyncio.create_task(merit.submit("poison", {"n": 1}))
        await stopped_once(plane)
        with pytest.raises(Refused, match="set aside"):
            await asyncio.wait_for(poisonous, 30)
        await site.worker(plane.address, "w1")
        after = [await merit.submit("double", {"n": 1}) for _ in range(5)]
        results = await goes_on(site, plane, merit, before + after)
    assert await plane.stop() == 0
    tasks = check(
        site.state,
        site.executions,
        set(results),
        {
            **results,
        },
    ).tasks
    assert all(trail.spec.capability != "poison" for trail in tasks.values())


async def test_nodes_that_share_a_store_do_not_stumble_over_it_one_after_the_other(tmp_path, postgres_url, monkeypatch):
    """It stops the one that leads; whoever leads next knows, and refuses it. Nobody has to start anything."""
    monkeypatch.setenv("POISON", "submit")
    faults = PlaneFaults(store=postgres_url, lease_s=1.5, limits=LIMITS)
    async with running(NodeProgram(tmp_path / "a", faults, ENTRY)) as first:
        await first.leads()
        async with running(NodeProgram(tmp_path / "b", faults, ENTRY)) as second:
            async with AsyncClient(f"{first.address},{second.address}") as merit:
                with pytest.raises(Refused, match="set aside"):
                    await asyncio.wait_for(merit.submit("poison", {"n": 1}), 30)
                await merit.submit("double", {"n": 1})
            stopped = [line for node in (first, second) for line in node.lines if "a defect for tests" in line]
            assert len([line for line in stopped if "stands by" in line]) == 1, stopped
            assert first.running
            assert second.running
            assert await second.stop() == 0
        assert await first.stop() == 0


async def test_a_report_that_cannot_be_taken(site, monkeypatch):
    monkeypatch.setenv("POISON", "complete")
    plane = await site.plane(PlaneFaults(limits=LIMITS), ENTRY)
    await site.worker(plane.address, "w1")
    async with AsyncClient(plane.address) as merit:
        handles = [await merit.submit("double", {"n": 1}) for _ in range(5)]
        poisonous = await merit.submit("poison", {})
        await stopped_once(plane)
        result = await poisonous.wait(30)
        assert result.state in (TaskState.DEAD, TaskState.CANCELED)
        await goes_on(site, plane, merit, handles)


async def test_a_task_whose_worker_is_lost(site, monkeypatch):
    """The machine is then at work on the worker, and has to name the task all the same."""
    monkeypatch.setenv("POISON", "fail")
    plane = await site.plane(PlaneFaults(limits=LIMITS), ENTRY)
    worker = await site.worker(plane.address, "w1")
    async with AsyncClient(plane.address) as merit:
        poisonous = await merit.submit("poison", {"seconds": 60})

        async def assigned():
            return (await merit.task(poisonous.id))["state"] in ("ASSIGNED", "RUNNING")

        async with asyncio.timeout(30):
            while not await assigned():
                await asyncio.sleep(0.02)
        await worker.kill()
        await stopped_once(plane)
        assert (await poisonous.wait(30)).state is TaskState.CANCELED
        await worker.start()
        handles = [await merit.submit("double", {"n": 1}) for _ in range(5)]
        await goes_on(site, plane, merit, handles)
