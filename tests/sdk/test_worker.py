"""The worker's process against a control plane in the same process."""

import asyncio

from merit import AsyncClient
from merit.app.control_plane import ControlPlane, Settings
from merit.sdk import client as client_module
from merit.sdk import worker as worker_module
from merit.sdk.capability import capability
from merit.sdk.channel import get_blob
from merit.sdk.worker import WorkerProcess

ran: list[int] = []


@capability
async def long_word(text: str) -> int:
    ran.append(len(text))
    return len(text)


@capability
async def long_answer(length: int) -> str:
    return "y" * length


async def test_contents_are_asked_for_again_when_the_control_plane_was_away(tmp_path, monkeypatch):
    """Of parameters, where it costs no attempt, and of results."""
    away = {"worker": 1, "client": 2}

    def flaky(who):
        async def get(channel, digest):
            if away[who]:
                away[who] -= 1
                raise ConnectionError("planned: the stream is gone")
            return await get_blob(channel, digest)

        return get

    monkeypatch.setattr(worker_module, "get_blob", flaky("worker"))
    monkeypatch.setattr(client_module, "get_blob", flaky("client"))
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    plane = ControlPlane(Settings(state=tmp_path / "state", grpc="127.0.0.1:0"))
    planning = asyncio.create_task(plane.run(lambda where, _epoch: ready.set_result(where)))
    address = await asyncio.wait_for(ready, 10)
    worker = WorkerProcess([long_word, long_answer], address, name="w")
    working = asyncio.create_task(worker.run())
    async with AsyncClient(address) as merit:
        counted = await merit.submit("long_word", {"text": "x" * 100_000}, attempts_max=1)
        assert await counted.result(10) == 100_000
        answer = await merit.submit("long_answer", {"length": 100_000})
        assert await answer.result(10) == "y" * 100_000
    assert away == {"worker": 0, "client": 0}
    worker.drain()
    await asyncio.wait_for(working, 10)
    plane.stop()
    await asyncio.wait_for(planning, 10)


async def test_an_attempt_that_is_canceled_while_its_parameters_are_fetched_does_not_begin(tmp_path, monkeypatch):
    fetching, go_on = asyncio.Event(), asyncio.Event()

    async def slow(channel, digest):
        fetching.set()
        await go_on.wait()
        return await get_blob(channel, digest)

    monkeypatch.setattr(worker_module, "get_blob", slow)
    ran.clear()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    plane = ControlPlane(Settings(state=tmp_path / "state", grpc="127.0.0.1:0"))
    planning = asyncio.create_task(plane.run(lambda where, _epoch: ready.set_result(where)))
    address = await asyncio.wait_for(ready, 10)
    worker = WorkerProcess([long_word], address, name="w")
    working = asyncio.create_task(worker.run())
    async with AsyncClient(address) as merit:
        handle = await merit.submit("long_word", {"text": "x" * 100_000})
        await asyncio.wait_for(fetching.wait(), 10)
        assert await merit.cancel([handle.id]) == []
        async with asyncio.timeout(10):
            while worker._end.held:
                await asyncio.sleep(0.01)
        go_on.set()
        # Fetched, begun and counted, if it goes on.
        other = await merit.submit("long_word", {"text": "x" * 200_000})
        assert await other.result(10) == 200_000
    assert ran == [200_000]
    worker.drain()
    await asyncio.wait_for(working, 10)
    plane.stop()
    await asyncio.wait_for(planning, 10)
