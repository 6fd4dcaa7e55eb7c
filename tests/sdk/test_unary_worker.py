"""SDK workers that are dialled: by orchestrators and registries of others, and by Merit."""

import asyncio
import contextlib
import json
import time
from collections import Counter
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2, health_pb2_grpc

from merit import AsyncClient, Context, Permanent, Retry, UnaryWorker, capability, on_command
from merit.model.tasks import TaskState
from merit.testing.processes import free_port
from merit.wire.v1 import fleet_pb2
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from merit.wire.worker_abstraction import worker_abstraction_pb2_grpc
from tests.gateway.foreign import CANCELED, COMPLETED, FAILED, PENDING, RUNNING, planed, until

pytestmark = pytest.mark.timeout(60)
calls: Counter[str] = Counter()


@capability
def add(a: int, b: int = 0) -> int:
    """Adds."""
    calls["add"] += 1
    return a + b


@capability(version="2.1.0")
async def waits(wait_s: float, context: Context) -> str:
    calls["waits"] += 1
    until_s = time.monotonic() + wait_s
    while time.monotonic() < until_s:
        await asyncio.sleep(0.02)
    return "waited"


@capability
def holds(wait_s: float) -> str:
    """Heeds no cancel."""
    time.sleep(wait_s)
    return "held"


@capability
def fails(for_good: bool) -> None:
    if for_good:
        raise Permanent("no use")
    raise ValueError("not this time")


@on_command("RETRAIN")
async def retrain() -> None:
    calls["retrained"] += 1


ALL: list[Any] = [add, waits, holds, fails]


@contextlib.asynccontextmanager
async def serving(registry=None, **more):
    """A worker, ready."""
    settings = {"name": "w", "concurrency": 4, "processes": 1, "heartbeat_s": 0.1, "registry_s": 0.2, **more}
    worker = UnaryWorker(ALL, "127.0.0.1:0", registry, **settings)
    ready = asyncio.Event()
    running = asyncio.create_task(worker.run(drain_s=5, ready=lambda _: ready.set()))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait((running, waiting), timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert ready.is_set()
    try:
        yield worker
    finally:
        worker.drain()
        await asyncio.wait_for(running, 20)


class Orchestrator:
    """As somebody writes it by hand."""

    def __init__(self, address):
        self.channel = grpc.aio.insecure_channel(address)
        self.stub = worker_abstraction_pb2_grpc.WorkerServiceStub(self.channel)

    async def execute(self, task_id, name, timeout_s=0, **given):
        parameters = [unary.TaskParameter(key=key, value_json=json.dumps(value)) for key, value in given.items()]
        task = unary.Task(task_id=task_id, capability_name=name, parameters=parameters, timeout_seconds=timeout_s)
        return await self.stub.ExecuteTask(unary.ExecuteTaskRequest(task=task))

    async def results(self, task_id):
        call = self.stub.StreamTaskStatus(unary.GetTaskStatusRequest(task_id=task_id), timeout=20)
        return [message.result async for message in call]

    async def cancel(self, task_id):
        await self.stub.CancelTask(unary.GetTaskStatusRequest(task_id=task_id))


@pytest_asyncio.fixture
async def served():
    async with serving() as worker:
        orchestrator = Orchestrator(worker.address)
        yield orchestrator
        await orchestrator.channel.close()


async def test_a_foreign_orchestrator_has_work_done(served):
    assert (await served.execute("1", "add", a=1, b=2)).accepted
    last = (await served.results("1"))[-1]
    assert (last.task_id, last.status, last.output_json) == ("1", COMPLETED, "3")
    assert last.completed_at.seconds
    assert (await served.execute("2", "waits", wait_s=0.5)).accepted
    assert [one.status for one in await served.results("2")] == [PENDING, RUNNING, COMPLETED]
    assert [one.status for one in await served.results("2")] == [COMPLETED]
    info = await served.stub.GetWorkerInfo(Empty())
    assert (info.worker_id, info.version) == ("w", "1.0.0")
    assert set(info.tags) == {"max_concurrency=4", "reopen=true", "version.waits=2.1.0"}
    tool = info.capabilities[0]
    assert [(one.name, one.type, one.required) for one in tool.parameters] == [("a", "int", True), ("b", "int", False)]
    health = await health_pb2_grpc.HealthStub(served.channel).Check(
        health_pb2.HealthCheckRequest(service="worker_abstraction.WorkerService")
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_failure_says_why(served):
    for task_id, given, message, permanent in (
        ("1", {"for_good": False}, "ValueError: not this time", False),
        ("2", {"for_good": True}, "no use", True),
        ("3", {"for_good": "maybe"}, "for_good", True),
    ):
        assert (await served.execute(task_id, "fails", **given)).accepted
        last = (await served.results(task_id))[-1]
        assert last.status == FAILED
        assert message in last.error_message
        assert json.loads(last.output_json) == {"error": last.error_message}
        assert (last.metadata.get("merit-permanent") == "true") is permanent


async def test_the_same_task_said_again_is_the_same_task(served):
    calls.clear()
    for _ in range(3):
        assert (await served.execute("1", "add", a=1)).accepted
        assert (await served.results("1"))[-1].output_json == "1"
    assert calls["add"] == 1
    assert "names another task" in (await served.execute("1", "add", a=2)).message


async def test_what_cannot_be_is_not_accepted(served):
    assert "no 'fly'" in (await served.execute("1", "fly")).message
    assert "0 characters" in (await served.execute("", "add", a=1)).message
    assert "timeout_seconds" in (await served.execute("1", "add", timeout_s=-1, a=1)).message
    task = unary.Task(task_id="1", capability_name="add", parameters=[unary.TaskParameter(key="a", value_json="hello")])
    refused = await served.stub.ExecuteTask(unary.ExecuteTaskRequest(task=task))
    assert not refused.accepted
    assert "parameters.a: value_json is not valid JSON" in refused.message
    task.parameters[0].value_json = "[" * 200_000 + "]" * 200_000
    refused = await served.stub.ExecuteTask(unary.ExecuteTaskRequest(task=task))
    assert not refused.accepted
    assert "parameters.a: value_json is nested deeper than" in refused.message
    for call in (served.results, served.cancel):
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await call("nobody's")
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", ["waits", "holds"])
async def test_a_task_is_called_off_and_times_out_whether_its_function_heeds_it_or_not(served, name):
    assert (await served.execute("1", name, wait_s=3)).accepted
    reading = asyncio.create_task(served.results("1"))
    await served.cancel("1")
    assert (await asyncio.wait_for(reading, 2))[-1].status == CANCELED
    assert (await served.execute("2", name, timeout_s=1, wait_s=3)).accepted
    last = (await served.results("2"))[-1]
    assert (last.status, last.metadata["merit-kind"]) == (FAILED, "timed_out")


class ForeignRegistry(worker_abstraction_pb2_grpc.RegistryServiceServicer):
    """As somebody writes it by hand: forgets everything when it is started again."""

    def __init__(self):
        self.known: dict[str, unary.WorkerInfo] = {}
        self.registered = 0
        self.beats = 0
        self.loads: list[int] = []
        self.commands: list[str] = []

    async def RegisterWorker(self, request, context):
        self.registered += 1
        self.known[request.worker_info.worker_id] = request.worker_info
        return unary.RegisterWorkerResponse(success=True, message="welcome")

    async def WorkerHeartbeat(self, request, context):
        self.beats += 1
        self.loads.append(request.current_load)
        commands, self.commands = self.commands, []
        return unary.HeartbeatResponse(success=request.worker_id in self.known, commands=commands)

    async def GetAvailableWorkers(self, request, context):
        for known in self.known.values():
            yield known

    async def GetWorkerById(self, request, context):
        return self.known[request.worker_id]


@contextlib.asynccontextmanager
async def registering(registry, port=0):
    server = grpc.aio.server()
    worker_abstraction_pb2_grpc.add_RegistryServiceServicer_to_server(registry, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def test_it_is_known_to_a_foreign_registry_whatever_that_does():
    port = free_port()
    first = ForeignRegistry()
    async with serving(f"127.0.0.1:{port}") as worker:
        async with registering(first, port):
            await until(lambda: first.beats >= 2, "it beats")
            assert first.known["w"].address == worker.address
            assert first.registered == 1
            first.known.clear()
            await until(lambda: "w" in first.known, "it registers again, since nobody knows it any more")
        second = ForeignRegistry()
        async with registering(second, port):
            await until(lambda: second.beats >= 2, "it has found the registry again")
            assert second.registered >= 1


async def test_a_registry_that_forgets_at_once_is_not_asked_without_end():
    class Forgetful(ForeignRegistry):
        async def WorkerHeartbeat(self, request, context):
            self.beats += 1
            return unary.HeartbeatResponse(success=False)

    registry = Forgetful()
    async with registering(registry) as address, serving(address, heartbeat_s=0.3):
        await until(lambda: registry.beats >= 3, "it goes on")
        assert registry.registered <= registry.beats + 1
        before, begun_s = registry.registered, time.monotonic()
        await asyncio.sleep(0.6)
        assert registry.registered - before <= (time.monotonic() - begun_s) / 0.3 + 2


async def test_it_obeys():
    calls.clear()
    registry = ForeignRegistry()
    async with registering(registry) as address, serving(address) as worker:
        orchestrator = Orchestrator(worker.address)
        await until(lambda: registry.beats, "it beats")
        assert (await orchestrator.execute("1", "waits", wait_s=1)).accepted
        registry.commands = ["PAUSE", "RETRAIN", "DANCE"]
        await until(lambda: calls["retrained"], "its function was called")
        refused = await orchestrator.execute("2", "add", a=1)
        assert (refused.accepted, refused.message) == (False, "w is paused")
        await until(lambda: 1 in registry.loads, "it says how much it has")
        registry.commands = ["RESUME"]
        async with asyncio.timeout(10):
            while not (await orchestrator.execute("2", "add", a=1)).accepted:
                await asyncio.sleep(0.02)
        registry.commands = ["STOP"]
        await until(lambda: "draining=true" in registry.known["w"].tags, "it drains")
        refused = await orchestrator.execute("3", "add", a=1)
        assert "about to end" in refused.message
        assert (await orchestrator.results("1"))[-1].status == COMPLETED, "what ran is finished"
        await orchestrator.channel.close()


async def test_a_registry_that_comes_back_meanwhile_hears_of_the_drain_too():
    port = free_port()
    first, second = ForeignRegistry(), ForeignRegistry()
    async with serving(f"127.0.0.1:{port}") as worker:
        orchestrator = Orchestrator(worker.address)
        assert (await orchestrator.execute("1", "waits", wait_s=30)).accepted
        async with registering(first, port):
            await until(lambda: first.beats, "it beats")
            worker.drain()
            await until(lambda: "draining=true" in first.known["w"].tags, "it drains")
            first.known.clear()
            first.beats = 0
            await until(lambda: "w" in first.known and first.beats >= 2, "it registers again")
            assert "draining=true" in first.known["w"].tags
        async with registering(second, port):
            await until(lambda: second.beats >= 2, "it has found the registry again")
            assert "draining=true" in second.known["w"].tags
            await orchestrator.cancel("1")
        await orchestrator.channel.close()


async def test_what_it_cannot_be_told_to_be():
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"listen": "0.0.0.0:1"}, "listen: 0.0.0.0:1 is not a loopback address"),
        ({"listen": "here"}, "is no HOST:PORT"),
        ({"registry": "there"}, "is no HOST:PORT"),
        ({"version": "new"}, "version: 'new' is not semantic"),
        ({"capabilities": []}, "capabilities: "),
    ]
    for wrong, reason in wrongs:
        settings: dict[str, Any] = {"capabilities": ALL, "listen": "127.0.0.1:0", **wrong}
        with pytest.raises(ValueError, match=reason):
            UnaryWorker(settings.pop("capabilities"), settings.pop("listen"), **settings)
    async with serving() as worker:
        with pytest.raises(OSError, match="cannot listen"):
            await UnaryWorker(ALL, worker.address).run()


async def test_merit_drives_it_as_any_other(tmp_path):
    async with planed(tmp_path / "state") as plane, AsyncClient(plane.address) as merit:
        async with serving(plane.address, tags=["t"], capacity={"gpu": 1}, version="1.5.0") as worker:
            assert await (await merit.submit("add", {"a": 1, "b": 2}, versions="==1.0.0")).result(10) == 3
            assert await (await merit.submit("waits", {"wait_s": 0}, versions="^2", tags=["t"])).result(10) == "waited"
            assert await (await merit.submit("add", {"a": 1}, resources={"gpu": 0.5})).result(10) == 1
            dead = await (await merit.submit("fails", {"for_good": True})).wait(10)
            assert dead.failure is not None
            assert (dead.state, dead.attempts, dead.failure.kind) == (TaskState.DEAD, 1, "permanent")
            again = await merit.submit("fails", {"for_good": False}, retry=Retry(failed=2, backoff_s=0.01))
            assert (await again.wait(10)).attempts == 3
            called_off = await merit.submit("waits", {"wait_s": 30})
            async with asyncio.timeout(10):
                while (await merit.task(called_off.id))["state"] != "RUNNING":
                    await asyncio.sleep(0.02)
            called_off.cancel()
            assert (await called_off.wait(10)).state is TaskState.CANCELED
            late = await merit.submit("waits", {"wait_s": 0.5})
            async with asyncio.timeout(10):
                while (await merit.task(late.id))["state"] != "RUNNING":
                    await asyncio.sleep(0.02)
            worker.drain()
            assert (await late.wait(10)).attempts == 1, "it finishes what it has"
        seen = await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id="w"))
        assert seen.standing == fleet_pb2.STANDING_GONE
        assert (await plane.by_id("w")).address == worker.address


async def test_what_it_does_goes_on_while_the_control_plane_is_started_again(tmp_path):
    calls.clear()
    address = f"127.0.0.1:{free_port()}"
    async with serving(address):
        async with planed(tmp_path / "state", address) as plane, AsyncClient(address) as merit:
            async with asyncio.timeout(10):
                while "w" not in await plane.available():
                    await asyncio.sleep(0.02)
            handle = await merit.submit("waits", {"wait_s": 3})
            async with asyncio.timeout(10):
                while (await merit.task(handle.id))["state"] != "RUNNING":
                    await asyncio.sleep(0.02)
        async with planed(tmp_path / "state", address), AsyncClient(address) as merit:
            result = await merit.watch(handle.id).wait(20)
            assert (result.ok, result.attempts, result.worker) == (True, 1, "w")
    assert calls["waits"] == 1
