"""What workers that are dialled hear when something ends: the control plane, a drain, an attempt, the wait for a command."""

import asyncio
import contextlib
from functools import partial
from typing import ClassVar

import grpc
import msgspec
import pytest
from google.protobuf.empty_pb2 import Empty

from merit import AsyncClient, Retry
from merit.gateway.unary import attempt, roster
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import TaskState
from merit.testing.plane import PlaneFaults
from merit.testing.processes import PlaneProgram, free_port, running
from merit.wire.v1 import fleet_pb2
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from tests.gateway.foreign import COMPLETED, QUICK, RUNNING, Foreign, Registry, info, planed, serving, status, until

pytestmark = pytest.mark.timeout(60)


class Patient(Foreign):
    """Works until it is let go; knows CancelTask."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        """Ends of attempts as it hears them: of CancelTask, and of streams that are closed."""

    async def run(self, task):
        yield status(task.task_id, RUNNING)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.heard.append("closed")
            raise
        yield status(task.task_id, COMPLETED, output_json="1")

    async def CancelTask(self, request, context):
        self.heard.append("canceled")
        return Empty()


async def joined(plane: Registry, worker: str) -> fleet_pb2.FleetWorker:
    """The worker, when it has room."""
    async with asyncio.timeout(10):
        while not (seen := await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id=worker))).room:
            await asyncio.sleep(0.02)
    return seen


async def test_the_end_of_the_control_plane_stops_no_worker(tmp_path, monkeypatch):
    said: list[list[str]] = []
    close = roster.UnaryWorkers.close

    async def beats(plane, worker):
        with contextlib.suppress(grpc.aio.AioRpcError):
            while True:
                said.append(list((await plane.beat(worker)).commands))

    async def close_slowly(workers):
        """The cell has stopped, and the server still takes calls; so it does when the drivers are gone."""
        before = len(said)
        await until(lambda: len(said) > before + 8, "some are answered")
        await close(workers)
        before = len(said)
        await until(lambda: len(said) > before + 8, "some are answered")

    monkeypatch.setattr(roster.UnaryWorkers, "close", close_slowly)
    foreign, where = Patient(), f"127.0.0.1:{free_port()}"
    async with serving(foreign) as address, grpc.aio.insecure_channel(where) as channel:
        async with planed(tmp_path / "state", where) as plane, AsyncClient(where) as merit:
            worker = await plane.register(info(address))
            await merit.submit("work")
            await until(lambda: foreign.open, "it runs")
            beating = [asyncio.create_task(beats(Registry(channel, where), worker)) for _ in range(4)]
        await asyncio.wait_for(asyncio.gather(*beating), 10)
    assert not any(said)
    assert foreign.heard == ["closed"], "what it does goes on there"


async def test_a_command_is_told_again_until_the_worker_has_said_something_else(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    async with serving(Foreign()) as worker_address:
        async with planed(tmp_path / "state", address) as plane:
            worker = await plane.register(info(worker_address))
            await joined(plane, worker)
            for word in ("RESET", "RETRAIN"):
                await plane.fleet.TellWorker(fleet_pb2.TellWorkerRequest(id=worker, word=word))
            async with AsyncClient(plane.address) as merit:
                # With the report of this one the session of the driver acknowledges what came on it before.
                assert await (await merit.submit("work")).result(10) == {}
            seen = await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id=worker))
            assert list(seen.words) == ["RESET", "RETRAIN"], "nobody has heard them"
            assert list((await plane.beat(worker)).commands) == ["RESET", "RETRAIN"]
        async with planed(tmp_path / "state", address) as plane:
            assert list((await plane.beat(worker)).commands) == ["RESUME", "RESET", "RETRAIN"], "the answer may be lost"
            await plane.fleet.TellWorker(fleet_pb2.TellWorkerRequest(id=worker, word="RESET"))
            assert list((await plane.beat(worker)).commands) == ["RESET"]
            assert list((await plane.beat(worker)).commands) == []
            assert not (await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id=worker))).words


async def test_one_that_is_told_to_stop_and_comes_back_is_not_told_again(tmp_path):
    async with serving(Foreign()) as address, planed(tmp_path / "state") as plane:
        worker = await plane.register(info(address))
        await joined(plane, worker)
        await plane.fleet.TellWorker(fleet_pb2.TellWorkerRequest(id=worker, word="STOP"))
        assert list((await plane.beat(worker)).commands) == ["STOP"]
        assert await plane.register(info(address)) == worker
        assert list((await plane.beat(worker)).commands) == []


@pytest.mark.parametrize("tags", [(), ("reopen=true",)])
async def test_a_drain_outlives_a_kill_of_the_control_plane(tmp_path, tags):
    foreign = Patient()
    limits = msgspec.structs.replace(QUICK, stale_ns=30 * SECOND_NS)  # it does not beat while the plane comes up again
    async with (
        serving(foreign) as address,
        running(PlaneProgram(tmp_path / "state", PlaneFaults(limits=limits))) as program,
        grpc.aio.insecure_channel(program.address) as channel,
        AsyncClient(program.address) as merit,
    ):
        plane = Registry(channel, program.address)
        worker = await plane.register(info(address, tags=tags))
        await merit.submit("work", retry=Retry(backoff_s=0.01))
        await until(lambda: foreign.open, "it runs")
        await plane.fleet.DrainWorker(fleet_pb2.DrainWorkerRequest(id=worker))
        await program.kill()
        await program.start()
        waiting = [await merit.submit("work") for _ in range(3)]
        foreign.go.set()
        async with asyncio.timeout(15):
            while "STOP" not in (await plane.beat(worker)).commands:
                await asyncio.sleep(0.02)
        assert len(foreign.tasks) == 1, "it gets nothing more"
        assert await plane.register(info(address, tags=tags)) == worker
        async with plane.beating(worker):
            assert all(result.ok for result in await merit.wait(waiting, 15)), "it has come back"


async def test_one_that_ends_before_it_is_here_does_not_join(tmp_path):
    async with (
        serving(Foreign()) as address,
        planed(tmp_path / "state") as plane,
        AsyncClient(plane.address) as merit,
    ):
        worker = await plane.register(info(address))
        asked = fleet_pb2.GetWorkerRequest(id=worker)
        async with asyncio.timeout(15):
            while (await plane.fleet.GetWorker(asked)).standing != fleet_pb2.STANDING_GONE:
                await asyncio.sleep(0.05)
        assert await plane.register(info(address, tags=["draining=true"])) == worker
        handle = await merit.submit("work")
        async with asyncio.timeout(10):
            while "STOP" not in (await plane.beat(worker)).commands:
                await asyncio.sleep(0.02)
        assert (await merit.task(handle.id))["attempts"] == []


async def test_what_is_abandoned_is_canceled_before_its_stream_is_closed(tmp_path):
    async with planed(tmp_path / "state") as plane, AsyncClient(plane.address) as merit:
        for ends in ("cancel", "move", "remove"):
            foreign, other = Patient(), Foreign()
            async with serving(foreign) as address, serving(other) as elsewhere:
                worker = await plane.register(info(address, worker_id=f"w-{ends}"))
                async with plane.beating(worker):
                    handle = await merit.submit("work")
                    await until(partial(getattr, foreign, "open"), "it runs")
                    if ends == "cancel":
                        handle.cancel()
                    elif ends == "move":
                        await plane.register(info(elsewhere, worker_id=worker))
                        assert (await handle.wait(20)).ok
                    else:
                        await plane.fleet.RemoveWorker(fleet_pb2.RemoveWorkerRequest(id=worker, reason="for a test"))
                    await until(partial(foreign.heard.count, "closed"), "its stream is closed")
                    assert foreign.heard == ["canceled", "closed"], ends
                    if ends != "remove":
                        await plane.fleet.RemoveWorker(fleet_pb2.RemoveWorkerRequest(id=worker, reason="the next one"))


async def test_one_that_may_have_begun_is_told_that_nobody_waits_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(attempt, "EXECUTE_S", 0.3)

    class Slow(Foreign):
        canceled: ClassVar[list[str]] = []

        async def ExecuteTask(self, request, context):
            await asyncio.sleep(3600)
            return unary.ExecuteTaskResponse(accepted=True)

        async def CancelTask(self, request, context):
            self.canceled.append(request.task_id)
            return Empty()

    limits = Limits(stale_ns=10 * SECOND_NS, reconnect_ns=SECOND_NS, grace_ns=SECOND_NS, beat_ns=SECOND_NS)
    slow = Slow()
    async with (
        serving(slow) as address,
        planed(tmp_path / "state", limits=limits) as plane,
        AsyncClient(plane.address) as merit,
    ):
        await plane.register(info(address))
        handle = await merit.submit("work", attempts_max=1)
        assert (await handle.wait(10)).state is TaskState.DEAD
        await until(lambda: slow.canceled == [f"{handle.id}.1"], "it has heard of it")
