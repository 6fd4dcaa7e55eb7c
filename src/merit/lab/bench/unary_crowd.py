"""Foreign workers in one process: ``python -m merit.lab.bench.unary_crowd SERVER COUNT NAME``.

Each is a server of its own that keeps to the unary contract as it stands and knows nothing of Merit: it registers, says
that it lives, does four tasks at a time, and pushes what becomes of each on the stream that is opened for it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
from google.protobuf.empty_pb2 import Empty

from merit.pools.tether import tether
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from merit.wire.worker_abstraction import worker_abstraction_pb2_grpc

CAPABILITY: Final = "bench.unary"
CONCURRENCY: Final = 4
"""What a worker does at a time that says nothing else."""
_BEAT_S: Final = 5.0

_Context = grpc.aio.ServicerContext[Any, Any]


class ForeignWorker(worker_abstraction_pb2_grpc.WorkerServiceServicer):
    """One worker. A task waits for as long as its parameter ``wait_s`` says, and gives that back."""

    def __init__(self, name: str) -> None:
        self._info = unary.WorkerInfo(
            worker_id=name,
            name=name,
            version="1.0.0",
            capabilities=[
                unary.ToolCapability(
                    name=CAPABILITY,
                    description="Wait.",
                    parameters=[unary.ToolParameter(name="wait_s", type="number", required=True)],
                )
            ],
        )
        self._free = asyncio.Semaphore(CONCURRENCY)
        self._running: dict[str, asyncio.Task[str]] = {}

    async def serve(self, server: str) -> None:
        """Until it is canceled; ``server`` has the registry."""
        own = grpc.aio.server()
        worker_abstraction_pb2_grpc.add_WorkerServiceServicer_to_server(self, own)
        self._info.address = f"127.0.0.1:{own.add_insecure_port('127.0.0.1:0')}"
        await own.start()
        async with grpc.aio.insecure_channel(server) as channel:
            registry = worker_abstraction_pb2_grpc.RegistryServiceStub(channel)
            answer = await registry.RegisterWorker(unary.RegisterWorkerRequest(worker_info=self._info))
            if not answer.success:
                raise SystemExit(f"{self._info.worker_id}: the registry refuses it: {answer.message}")
            while True:
                await asyncio.sleep(_BEAT_S)
                beat = unary.HeartbeatRequest(worker_id=self._info.worker_id, current_load=len(self._running))
                await registry.WorkerHeartbeat(beat)

    async def ExecuteTask(  # noqa: N802  (the contract's name)
        self, request: unary.ExecuteTaskRequest, context: _Context
    ) -> unary.ExecuteTaskResponse:
        """Begin, or wait for others to end."""
        del context
        task = request.task
        if task.capability_name != CAPABILITY:
            return unary.ExecuteTaskResponse(task_id=task.task_id, message=f"there is no {task.capability_name} here")
        wait_s = json.loads(task.parameters[0].value_json)
        self._running[task.task_id] = asyncio.create_task(self._work(wait_s))
        return unary.ExecuteTaskResponse(task_id=task.task_id, accepted=True)

    async def _work(self, wait_s: float) -> str:
        async with self._free:
            await asyncio.sleep(wait_s)
        return json.dumps(wait_s)

    async def StreamTaskStatus(  # noqa: N802  (the contract's name)
        self, request: unary.GetTaskStatusRequest, context: _Context
    ) -> AsyncIterator[unary.StreamTaskStatusResponse]:
        """That it runs, and that it has ended."""
        task_id = request.task_id
        running = self._running.get(task_id)
        if running is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no task {task_id} here")
        yield _said(task_id, unary.TASK_STATUS_RUNNING)
        yield _said(task_id, unary.TASK_STATUS_COMPLETED, await asyncio.shield(running))
        self._running.pop(task_id, None)

    async def GetWorkerInfo(self, request: Empty, context: _Context) -> unary.WorkerInfo:  # noqa: N802  (the contract's)
        """What it has registered."""
        del request, context
        return self._info

    async def CancelTask(self, request: unary.GetTaskStatusRequest, context: _Context) -> Empty:  # noqa: N802  (as above)
        """There is no such method in the contract."""
        del request
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "there is no cancel here")


def _said(task_id: str, status: unary.TaskStatus.ValueType, output_json: str = "") -> unary.StreamTaskStatusResponse:
    result = unary.TaskResult(task_id=task_id, status=status, output_json=output_json)
    result.completed_at.GetCurrentTime()
    return unary.StreamTaskStatusResponse(result=result)


async def _main(server: str, count: int, name: str) -> None:
    await asyncio.gather(*(ForeignWorker(f"{name}-{number}").serve(server) for number in range(count)))


if __name__ == "__main__":
    tether()
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
