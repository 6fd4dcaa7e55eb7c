"""Following tasks, tasks that are known by their keys, tenants, and waiting for many: over a scripted control plane."""

import asyncio
import contextlib

import pytest
import pytest_asyncio

from merit import AsyncClient, Client, MeritError
from merit.model.frames import Settled
from merit.model.tasks import TaskState
from merit.sdk.following import Follower, Step
from merit.wire.v1 import tasks_pb2
from tests.sdk.scripted_plane import a_scripted_plane

pytestmark = pytest.mark.timeout(30)


@pytest_asyncio.fixture
async def scripted():
    async with a_scripted_plane() as (plane, address):
        yield plane, address


async def collect(handle, steps: list[Step] | None = None) -> list[Step]:
    """Into ``steps``, as they come."""
    steps = [] if steps is None else steps
    async for step in handle.follow():
        steps.append(step)
    return steps


async def test_a_task_is_followed_until_it_has_ended(scripted):
    plane, address = scripted
    async with AsyncClient(address) as merit:
        handle = await merit.submit("c")
        steps: list[Step] = []
        following = asyncio.create_task(collect(handle, steps))
        await plane.until(lambda: plane.followed == [handle.id])
        (guest,) = plane.guests
        await guest.update(handle.id, TaskState.RUNNING, 1, "w", 0.5, "half", ("a", "b"))
        other = asyncio.create_task(collect(handle))
        async with asyncio.timeout(10):
            while not steps or len(handle._followers or ()) < 2:
                await asyncio.sleep(0.005)
        await guest.update(handle.id, TaskState.RUNNING, 2, "v")
        await guest.update("unknown", TaskState.RUNNING)
        await guest.settle(handle.id)
        await following
        assert [(step.state, step.attempt, step.worker) for step in steps][-2:] == [
            (TaskState.RUNNING, 2, "v"),
            (TaskState.COMPLETED, 1, "w"),
        ]
        assert steps[0] == Step(handle.id, TaskState.RUNNING, 1, "w", 0.5, "half", ("a", "b"))
        assert steps[1].fraction is None
        assert steps[-1].final
        assert (await other)[-1] == steps[-1]
        assert [step.state for step in await collect(handle)] == [TaskState.COMPLETED], "also when it is over"
        assert plane.followed == [handle.id], "once is enough for all"


async def test_what_is_followed_is_followed_again_on_a_new_stream(scripted):
    plane, address = scripted
    async with AsyncClient(address) as merit:
        handle = await merit.submit("c")
        given_up = await merit.submit("c")
        async with contextlib.aclosing(given_up.follow()) as steps:
            waiting = asyncio.ensure_future(anext(steps))
            await plane.until(lambda: given_up.id in plane.followed)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        following = asyncio.create_task(collect(handle))
        await plane.until(lambda: handle.id in plane.followed)
        plane.followed.clear()
        plane.guests[0].hang_up()
        await plane.until(lambda: len(plane.guests) == 2 and handle.id in plane.followed)
        assert plane.followed == [handle.id], "what nobody follows any more is not"
        await plane.guests[1].settle(handle.id)
        assert (await following)[-1].final


async def test_whoever_follows_hears_that_the_client_was_closed(scripted):
    plane, address = scripted
    async with AsyncClient(address) as merit:
        handle = await merit.submit("c")
        following = asyncio.create_task(collect(handle))
        await plane.until(lambda: plane.followed == [handle.id])
    with pytest.raises(MeritError, match="closed"):
        await following
    with pytest.raises(MeritError, match="closed"):
        await collect(handle)


async def test_a_follower_that_is_slow_gets_the_newest_and_the_end():
    follower = Follower()
    settled = Settled("t", TaskState.DEAD, attempts=2, worker="w")
    follower.settle(settled)
    assert (await follower.take(), await follower.take()) == (
        Step("t", TaskState.DEAD, 2, "w", None, "", ()),
        None,
    )


async def test_a_submit_that_is_a_task_of_before_is_that_task(scripted):
    plane, address = scripted
    async with AsyncClient(address) as merit:
        first = await merit.submit("c", idempotency_key="k")
        again = await merit.submit("c", idempotency_key="k")
        assert again.id == first.id
        assert len(plane.tasks) == 2
        following = asyncio.create_task(collect(again))
        await plane.until(lambda: plane.followed == [first.id])
        await plane.guests[0].update(first.id, TaskState.RUNNING, 1, "w")
        await plane.guests[0].settle(first.id, b"7")
        assert [await handle.result(5) for handle in (first, again)] == [7, 7]
        assert [step.state for step in await following] == [TaskState.RUNNING, TaskState.COMPLETED]
    async with AsyncClient(address) as other:
        stranger = await other.submit("c", idempotency_key="k")
        assert stranger.id == first.id
        await plane.until(lambda: first.id in plane.watched)
        await plane.guests[1].settle(first.id, b"7")
        assert await stranger.result(5) == 7


async def test_every_call_says_whose_things_it_is_about(scripted):
    plane, address = scripted
    plane.answers["ListWorkers"] = lambda _: tasks_pb2.ListWorkersResponse()
    async with AsyncClient(address, tenant="them") as merit, AsyncClient(address) as usual:
        await merit.workers()
        await usual.workers()
        assert merit.tenant == "them"
    assert plane.tenants == ["them", ""]
    assert [said for _, _, said in plane.asked] == ["them", ""]
    for bad in ("", " ", "ä", "x" * 201, "a\n"):
        with pytest.raises(ValueError, match="tenant"):
            AsyncClient(address, tenant=bad)


async def test_many_are_waited_for_at_once(scripted):
    plane, address = scripted
    async with AsyncClient(address) as merit:
        handles = [await merit.submit("c") for _ in range(3)]
        (guest,) = plane.guests
        with pytest.raises(TimeoutError, match="3 of 3 tasks"):
            await merit.wait(handles, 0.05)
        assert all(not handle._listeners for handle in handles), "nobody listens any more"
        waiting = asyncio.create_task(merit.wait(handles, 10))
        order: list[str] = []

        async def in_order():
            order.extend([handle.id async for handle in merit.as_completed(handles)])

        ordering = asyncio.create_task(in_order())
        await asyncio.sleep(0)
        for handle in reversed(handles):
            await guest.settle(handle.id, b'"%s"' % handle.id.encode())
        assert [result.value for result in await waiting] == [handle.id for handle in handles]
        await ordering
        assert order == [handle.id for handle in reversed(handles)]
        assert [handle.id async for handle in merit.as_completed(handles)] == [handle.id for handle in handles]
        assert await merit.wait([]) == []
        late = await merit.submit("c")
        waiting = asyncio.create_task(merit.wait([late]))
        await asyncio.sleep(0)
    with pytest.raises(MeritError, match="closed"):
        await waiting


async def test_programs_without_a_loop_have_all_that_too(scripted):
    plane, address = scripted

    def work() -> tuple[list[Step], list[int], list[str]]:
        with Client(address, tenant="them") as merit:
            assert merit.tenant == "them"
            first = merit.submit("c", key="k")
            tasks = [first, merit.submit("c", after=[first], inputs={"x": first})]
            steps = list(tasks[0].follow())
            for step in tasks[1].follow():
                assert step.state is TaskState.RUNNING
                break  # which ends the following
            done = [task.id for task in merit.as_completed(tasks, 10)]
            return steps, [result.value for result in merit.wait(tasks, 10)], done

    working = asyncio.create_task(asyncio.to_thread(work))
    await plane.until(lambda: len(plane.followed) == 1)
    (guest,) = plane.guests
    first, second = plane.tasks
    assert plane.tasks[second].after == (first,)
    await guest.update(first, TaskState.RUNNING, 1, "w")
    await guest.settle(first)
    await plane.until(lambda: len(plane.followed) == 2)
    await guest.update(second, TaskState.RUNNING, 1, "w")
    await guest.settle(second)
    steps, values, done = await working
    assert steps[-1].final
    assert values == [1, 1]
    assert sorted(done) == sorted([first, second])
    assert plane.tenants == ["them"]
