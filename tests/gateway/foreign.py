"""Workers and a control plane as the unary contract knows them: agents that were never built against Merit."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent import futures
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from merit.app.control_plane import ControlPlane, Settings
from merit.model.limits import SECOND_NS, Limits
from merit.wire.v1 import fleet_pb2_grpc
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from merit.wire.worker_abstraction import worker_abstraction_pb2_grpc

WAIT_S = 20.0
QUICK = Limits(stale_ns=2 * SECOND_NS, reconnect_ns=SECOND_NS, grace_ns=SECOND_NS, beat_ns=SECOND_NS // 2)

PENDING, RUNNING = unary.TASK_STATUS_PENDING, unary.TASK_STATUS_RUNNING
COMPLETED, FAILED, CANCELED = unary.TASK_STATUS_COMPLETED, unary.TASK_STATUS_FAILED, unary.TASK_STATUS_CANCELED


async def until(condition: Callable[[], Any], what: str) -> Any:
    end_s = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < end_s, f"in {WAIT_S:g} s it did not come about that {what}"
        await asyncio.sleep(0.01)
    return found


def status(task_id: str, state: Any, **more: Any) -> unary.StreamTaskStatusResponse:
    """As agents in the field say it: with completed_at on every status."""
    result = unary.TaskResult(task_id=task_id, status=state, **more)
    result.completed_at.GetCurrentTime()
    return unary.StreamTaskStatusResponse(result=result)


def parameters(task: unary.Task) -> dict[str, Any]:
    return {one.key: json.loads(one.value_json) for one in task.parameters}


class Foreign(worker_abstraction_pb2_grpc.WorkerServiceServicer):
    """Takes everything; ``run`` says what comes of it. Knows no CancelTask, as most."""

    def __init__(self) -> None:
        self.tasks: dict[str, unary.Task] = {}
        self.streams: list[str] = []
        """Of which task each stream was that was opened, in order."""
        self.open = 0
        self.open_max = 0
        self.closed: list[str] = []
        """Tasks whose streams were closed before they ended by themselves."""
        self.go = asyncio.Event()
        self.address = ""

    async def ExecuteTask(self, request, context):
        self.tasks[request.task.task_id] = request.task
        return unary.ExecuteTaskResponse(task_id=request.task.task_id, accepted=True)

    async def StreamTaskStatus(self, request, context):
        if request.task_id not in self.tasks:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such task")
        task = self.tasks[request.task_id]
        self.streams.append(request.task_id)
        self.open += 1
        self.open_max = max(self.open, self.open_max)
        try:
            async for said in self.run(task):
                yield said
        except asyncio.CancelledError:
            self.closed.append(request.task_id)
            raise
        finally:
            self.open -= 1

    async def GetWorkerInfo(self, request, context):
        return unary.WorkerInfo(name="foreign")

    async def CancelTask(self, request, context):
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "an agent that was built before there was such a thing")

    async def run(self, task: unary.Task) -> AsyncIterator[unary.StreamTaskStatusResponse]:
        yield status(task.task_id, PENDING)
        yield status(task.task_id, RUNNING)
        yield status(task.task_id, COMPLETED, output_json=json.dumps(parameters(task)))


class Polling(worker_abstraction_pb2_grpc.WorkerServiceServicer):
    """As it is written in many a guide: threads; it begins when the stream is opened, and looks at its own state twice a
    second."""

    def __init__(self) -> None:
        self.tasks: dict[str, unary.Task] = {}
        self.states: dict[str, tuple[Any, str]] = {}
        self.executions = 0
        self.address = ""

    def ExecuteTask(self, request, context):
        self.tasks[request.task.task_id] = request.task
        self.states[request.task.task_id] = (PENDING, "")
        return unary.ExecuteTaskResponse(task_id=request.task.task_id, accepted=True)

    def GetWorkerInfo(self, request, context):
        return unary.WorkerInfo()

    def CancelTask(self, request, context):
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "an agent that was built before there was such a thing")

    def StreamTaskStatus(self, request, context):
        task_id = request.task_id
        if self.states[task_id][0] == PENDING:
            self.states[task_id] = (RUNNING, "")
            threading.Thread(target=self._execute, args=(self.tasks[task_id],), daemon=True).start()
        while context.is_active():
            state, output = self.states[task_id]
            yield status(task_id, state, output_json=output)
            if state == COMPLETED:
                return
            time.sleep(0.5)

    def _execute(self, task: unary.Task) -> None:
        self.executions += 1
        time.sleep(0.7)
        self.states[task.task_id] = (COMPLETED, json.dumps(parameters(task)))


@asynccontextmanager
async def serving(servicer: Any, port: int = 0) -> AsyncIterator[str]:
    """A worker's server; its address."""
    threads = isinstance(servicer, Polling)
    server: Any = grpc.server(futures.ThreadPoolExecutor(10)) if threads else grpc.aio.server()
    worker_abstraction_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    servicer.address = f"127.0.0.1:{port}"
    started = server.start()
    if not threads:
        await started
    try:
        yield servicer.address
    finally:
        stopped = server.stop(0)
        if not threads:
            await stopped


def info(address: str, *capabilities: str, **more: Any) -> unary.WorkerInfo:
    tools = [unary.ToolCapability(name=name) for name in capabilities or ("work",)]
    return unary.WorkerInfo(
        **{"name": "foreign", "version": "1.0.0", "address": address, "capabilities": tools, **more}
    )


class Registry:
    """A connection to a control plane, as foreign workers, orchestrators and operators have it."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self.address = address
        self.stub = worker_abstraction_pb2_grpc.RegistryServiceStub(channel)
        self.worker = worker_abstraction_pb2_grpc.WorkerServiceStub(channel)
        self.fleet = fleet_pb2_grpc.FleetStub(channel)
        self.channel = channel

    async def register(self, said: unary.WorkerInfo) -> str:
        answer = await self.stub.RegisterWorker(unary.RegisterWorkerRequest(worker_info=said))
        assert answer.success, answer.message
        return answer.message

    async def refused(self, said: unary.WorkerInfo) -> str:
        answer = await self.stub.RegisterWorker(unary.RegisterWorkerRequest(worker_info=said))
        assert not answer.success
        return answer.message

    async def beat(self, worker: str, load: int = 0) -> unary.HeartbeatResponse:
        return await self.stub.WorkerHeartbeat(unary.HeartbeatRequest(worker_id=worker, current_load=load))

    async def available(self) -> dict[str, unary.WorkerInfo]:
        return {one.worker_id: one async for one in self.stub.GetAvailableWorkers(Empty())}

    async def by_id(self, worker: str) -> unary.WorkerInfo:
        return await self.stub.GetWorkerById(unary.GetWorkerByIdRequest(worker_id=worker))

    @asynccontextmanager
    async def beating(self, *workers: str) -> AsyncIterator[None]:
        """These workers live as long as this lasts."""

        async def beat() -> None:
            while True:
                for worker in workers:
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await self.beat(worker)
                await asyncio.sleep(0.2)

        heart = asyncio.create_task(beat())
        try:
            yield
        finally:
            heart.cancel()
            await asyncio.wait((heart,))


@asynccontextmanager
async def planed(state: Path, grpc_address: str = "127.0.0.1:0", limits: Limits = QUICK) -> AsyncIterator[Registry]:
    """A control plane in this process, and a connection to it."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    plane = ControlPlane(Settings(state=state, grpc=grpc_address, limits=limits))
    running = asyncio.create_task(plane.run(lambda where, _epoch: ready.set_result(where)))
    await asyncio.wait((ready, running), return_when=asyncio.FIRST_COMPLETED, timeout=10)
    if running.done():
        running.result()
    try:
        async with grpc.aio.insecure_channel(await ready) as channel:
            yield Registry(channel, await ready)
    finally:
        plane.stop()
        await asyncio.wait_for(running, 20)
