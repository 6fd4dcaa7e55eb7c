"""The client against a control plane in the same process."""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import pytest
import pytest_asyncio

from merit import AsyncClient, Client, MeritError, Refused, TaskRequest, Unreachable
from merit.app.control_plane import ControlPlane, Settings
from merit.model.frames import Settled
from merit.model.limits import Limits
from merit.model.tasks import TaskState
from merit.sdk.capability import capability
from merit.sdk.handles import TaskHandle
from merit.sdk.worker import WorkerProcess


@capability
async def same(n: int) -> int:
    return n


@capability
async def slow_first(n: int) -> int:
    await asyncio.sleep(1.0 if n == 0 else 0)
    return n


@contextlib.asynccontextmanager
async def a_control_plane(state, address="127.0.0.1:0"):
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    plane = ControlPlane(Settings(state=state, grpc=address, limits=Limits(live_tasks_max=50)))
    running = asyncio.create_task(plane.run(lambda where, _epoch: ready.set_result(where)))
    yield await asyncio.wait_for(ready, 10)
    plane.stop()
    await asyncio.wait_for(running, 10)


@pytest_asyncio.fixture
async def address(tmp_path):
    async with a_control_plane(tmp_path / "state") as address:
        yield address


@contextlib.asynccontextmanager
async def a_worker(address, *capabilities):
    worker = WorkerProcess(capabilities, address, name="w", concurrency=4)
    running = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        worker.drain()
        await asyncio.wait_for(running, 10)


@pytest.mark.parametrize(
    "fields",
    [
        {"attempts_max": -1},
        {"attempts_max": 2**40},
        {"attempts_max": 1.5},
        {"run_timeout_s": 1e12},
        {"run_timeout_s": float("inf")},
        {"priority": 9},
        {"description": "\ud800"},
        {"after": [5]},
    ],
)
async def test_what_no_frame_can_carry_is_refused_at_once_and_disturbs_nobody(address, fields):
    async with AsyncClient(address) as merit:
        with pytest.raises(ValueError, match=next(iter(fields))):
            await asyncio.wait_for(merit.submit("same", {"n": 1}, **fields), 5)
        with pytest.raises(ValueError, match="id: "):
            merit.watch("\ud800")
        await asyncio.wait_for(merit.submit("same", {"n": 1}), 5)


def done_by_the_client(name, monkeypatch):
    """Set as soon as a client has done this."""
    done, real = asyncio.Event(), getattr(AsyncClient, name)

    def does(client, given):
        real(client, given)
        done.set()

    monkeypatch.setattr(AsyncClient, name, does)
    return done


async def test_a_group_for_which_there_is_no_room_comes_again_as_a_whole(address, monkeypatch):
    refused = done_by_the_client("_refuse", monkeypatch)
    async with AsyncClient(address) as merit:
        before = [await merit.submit("same", {"n": n}) for n in range(30)]
        many = asyncio.gather(merit.submit_many([TaskRequest(capability="same") for _ in range(40)]))
        await asyncio.wait_for(refused.wait(), 10)
        assert not many.done(), "there was no room"
        assert (await merit.status())["sequence"] < 40, "a part of it was taken"
        await merit.cancel([handle.id for handle in before])
        (handles,) = await asyncio.wait_for(many, 10)
        assert len(handles) == 40


async def test_what_was_called_off_while_there_was_no_room_for_it_does_not_come_again(address, monkeypatch):
    refused, again = done_by_the_client("_refuse", monkeypatch), done_by_the_client("_again", monkeypatch)
    async with AsyncClient(address) as merit:
        before = [await merit.submit("same", {"n": n}) for n in range(50)]
        late = merit.start([merit._specs_of.make("same", b"{}")])[0]
        await asyncio.wait_for(refused.wait(), 10)
        late.cancel()
        with pytest.raises(Refused):
            await late.wait(5)
        await merit.cancel([handle.id for handle in before])
        await asyncio.wait_for(again.wait(), 10)
        await merit.submit("same")  # whatever was said on the stream before has been heard
        assert (await merit.status())["pending"] == 1


async def test_a_client_that_was_closed_says_of_no_task_that_it_is_durable(address):
    async with AsyncClient(address) as merit:
        handle = merit.start([merit._specs_of.make("same", b"{}")])[0]
        merit._conversation = None  # it never gets out
    with pytest.raises(MeritError, match="closed"):
        await handle.accepted()


async def test_whoever_gives_up_connecting_leaves_nothing_behind():
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), AsyncClient("127.0.0.1:1"):
            pass
    async with asyncio.timeout(5):  # gRPC ends a call of its own a moment later
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0.01)


async def test_an_ordered_map_holds_no_more_back_than_its_window(address):
    taken = 0

    def inputs():
        nonlocal taken
        for n in range(200):
            taken = n
            yield {"n": n}

    async with a_worker(address, slow_first), AsyncClient(address) as merit:
        results: list[int] = []
        async for result in merit.map("slow_first", inputs(), window=10):
            if not results:
                assert taken <= 10, "the first was not done yet"
            results.append(result.value)
        assert results == list(range(200))


class Endless:
    """Stands in for the client within the synchronous one: everything is done at once."""

    def __init__(self):
        self.made = 0

    async def batches(self, _calls, **_options):
        while True:
            handle = TaskHandle(self, "", tag=self.made)  # type: ignore[arg-type]
            handle.settle(Settled("", TaskState.COMPLETED, b"1", "", None, 1, "w"))
            self.made += 1
            yield [handle]
            await asyncio.sleep(0)


def test_a_synchronous_map_does_not_run_ahead_of_the_one_who_reads_it():
    client, endless = Client(), Endless()
    client._client = endless  # type: ignore[assignment]
    calls = client.calls([])
    assert [next(calls)[0] for _ in range(100)] == list(range(100))
    time.sleep(0.3)
    assert endless.made <= 104, "it went on for nobody"
    del calls  # which ends what makes more


async def test_a_worker_whose_run_is_cancelled_leaves_nothing_behind(address):
    before = asyncio.all_tasks()
    async with AsyncClient(address) as merit:
        running = asyncio.create_task(WorkerProcess([same], address, name="w").run())

        async def states() -> Mapping[str, Any]:
            return {worker["id"]: worker["state"] for worker in await merit.workers()}

        async with asyncio.timeout(10):
            while (await states()).get("w") != "ACTIVE":
                await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        async with asyncio.timeout(5):
            while (await states()).get("w") == "ACTIVE":
                await asyncio.sleep(0.02)
    own = {task for task in asyncio.all_tasks() - before if "merit/sdk/worker" in repr(task)}
    assert not own


@pytest.mark.parametrize(
    "question",
    [
        lambda client: client.tasks(),
        lambda client: client.workers(),
        lambda client: client.status(),
        lambda client: client.submit("same", {"large": "x" * 300_000}),
    ],
    ids=["tasks", "workers", "status", "large content"],
)
async def test_what_is_asked_while_the_control_plane_is_away_is_answered_when_it_is_back(tmp_path, question):
    async with a_control_plane(tmp_path / "state") as address:
        client = await AsyncClient(address, connect_timeout_s=30).__aenter__()
    try:
        asked = asyncio.create_task(question(client))
        await asyncio.sleep(0)  # it asks before anybody is there to answer
        async with a_control_plane(tmp_path / "state", address):
            assert await asyncio.wait_for(asked, 30) is not None
    finally:
        await client.aclose()


async def test_a_question_to_a_control_plane_that_stays_away_is_given_up(tmp_path):
    async with a_control_plane(tmp_path / "state") as address:
        client = await AsyncClient(address).__aenter__()
    client._asker._patience_s = 0.3
    try:
        with pytest.raises(Unreachable, match=address):
            await asyncio.wait_for(client.tasks(), 20)
    finally:
        await client.aclose()


def test_a_client_that_was_never_connected_says_how_to_use_it():
    with pytest.raises(MeritError, match="with Client"):
        Client().tasks()
