"""An agent behind an HTTP endpoint, a worker in front of it, a control plane and a client."""

import asyncio

import pytest

from merit import AsyncClient, Permanent, http_capability
from merit.app.control_plane import ControlPlane, Settings
from merit.model.tasks import TaskState
from merit.sdk.options import Retry
from merit.sdk.worker import WorkerProcess
from tests.sdk.http_endpoint import answered, endpoint, hangs

pytestmark = pytest.mark.timeout(60)


async def test_tasks_become_requests(tmp_path):
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    plane = ControlPlane(Settings(state=tmp_path / "state", grpc="127.0.0.1:0"))
    running = asyncio.create_task(plane.run(lambda where, _epoch: ready.set_result(where)))
    address = await asyncio.wait_for(ready, 10)
    async with endpoint() as there, AsyncClient(address) as merit:
        schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
        made = http_capability(there.url, "double", path="/double/{n}", input=schema, result="/twice")
        worker = WorkerProcess([made], address, name="w", concurrency=8)
        working = asyncio.create_task(worker.run())

        async def doubles(asked, _writer):
            return answered(200, {"twice": 2 * asked.json["n"]})

        there.behave = doubles
        results = [result.value async for result in merit.map("double", ({"n": n} for n in range(50)))]
        assert sorted(results) == [2 * n for n in range(50)]
        assert there.connections <= 8

        # A failure that may pass is the control plane's to try again, as another attempt.
        there.asked.clear()
        there.answers = [answered(503, b"busy"), doubles]
        handle = await merit.submit("double", {"n": 4}, retry=Retry(backoff_s=0.01))
        result = await handle.wait(20)
        assert (result.value, result.attempts) == (8, 2)
        keys = [asked.headers["idempotency-key"] for asked in there.asked]
        assert keys == [f"{handle.id}.1", f"{handle.id}.2"]
        assert {asked.headers["merit-task"] for asked in there.asked} == {handle.id}

        # One that will not pass is not tried again.
        there.answers = [answered(422, b"odd")]
        result = await (await merit.submit("double", {"n": 4})).wait(20)
        assert result.failure is not None
        assert (result.state, result.attempts, result.failure.kind) == (TaskState.DEAD, 1, "permanent")
        assert result.failure.message.endswith("/double/{n} answered 422 Unprocessable Entity; it says: odd")
        assert Permanent.__name__ not in result.failure.message

        # A cancel closes the request.
        there.answers = [hangs]
        there.asked.clear()
        there.gone.clear()
        handle = await merit.submit("double", {"n": 4})
        async with asyncio.timeout(20):
            while not there.asked:
                await asyncio.sleep(0.005)
            handle.cancel()
            await there.gone.wait()
        assert (await handle.wait(20)).state is TaskState.CANCELED

        worker.drain()
        await asyncio.wait_for(working, 15)
    plane.stop()
    await asyncio.wait_for(running, 10)
