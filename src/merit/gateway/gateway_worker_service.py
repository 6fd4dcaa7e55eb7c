"""The gateway as a worker of the unary contract: orchestrators of others call it, and the fleet behind it does the work.

What they ask for are tasks like all others. Their ids live in a namespace of their own: that of idempotency keys which
begin with ``unary/``. So the same id is the same task, also after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from heapq import nsmallest
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import grpc
import msgspec
from google.protobuf.empty_pb2 import Empty

from merit.core.state import KeyEntry
from merit.gateway.answers import Context, obey
from merit.gateway.door import Door
from merit.gateway.fields import BadField, check_text
from merit.gateway.identity import tenant_of
from merit.gateway.portions import portions
from merit.gateway.terms_check import check_labels
from merit.gateway.unary.client import InnerClient, NotTaken
from merit.gateway.worker_view import TURN_WORKERS
from merit.model.commands import CancelTasks
from merit.model.frames import Settled
from merit.model.ids import make_id
from merit.model.limits import (
    LABELS_MAX,
    MESSAGE_BYTES_MAX,
    NAME_LENGTH_MAX,
    PAYLOAD_INLINE_BYTES_MAX,
    RUN_TIMEOUT_NS_DEFAULT,
    RUN_TIMEOUT_NS_MAX,
    SECOND_NS,
    TIMEOUT_NS_DEFAULT,
)
from merit.model.record import JournalError
from merit.model.tasks import Demand, TaskSpec, TaskState, Terms
from merit.model.tenancy import DEFAULT_TENANT, LOCAL_PRINCIPAL
from merit.ports.blobs import BlobError, Blobs
from merit.ports.cell import Cell, CellStopped
from merit.wire.unary import (
    ATTEMPTS_KEY,
    KIND_KEY,
    PERMANENT_KEY,
    TASK_KEY,
    TENANT_KEY,
    WORKER_KEY,
    BadParameter,
    describe,
    parameters_of,
)
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from merit.wire.worker_abstraction import worker_abstraction_pb2_grpc

FindKeys = Callable[[list[tuple[str, str]]], Awaitable[dict[tuple[str, str], KeyEntry]]]

NAMESPACE: Final = "unary/"
_TASK_ID_LENGTH_MAX: Final = NAME_LENGTH_MAX - len(NAMESPACE)
_METADATA_MAX: Final = 1_000
"""Of more, only so many are looked at for labels."""
_OUTPUT_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 64 * 1024
_TOOL_FRAME_BYTES: Final = 8
"""What a capability takes in a message beside itself, at most."""
_TURN_OFFERS: Final = 50
"""Capabilities that are described in one turn of the loop: their schemas are read for it."""
_STATUS: Final[Mapping[TaskState, unary.TaskStatus.ValueType]] = {
    TaskState.COMPLETED: unary.TASK_STATUS_COMPLETED,
    TaskState.DEAD: unary.TASK_STATUS_FAILED,
    TaskState.CANCELED: unary.TASK_STATUS_CANCELED,
}


class GatewayWorkerService(worker_abstraction_pb2_grpc.WorkerServiceServicer):
    """See the module.

    Args:
        cell: has the tasks.
        door: checks what is asked for.
        blobs: takes large parameters, and has large results.
        find_keys: looks for old idempotency keys in the journal.
        address: at which this gateway is reached.
    """

    def __init__(self, cell: Cell, door: Door, blobs: Blobs, find_keys: FindKeys, address: Callable[[], str]) -> None:
        self._cell = cell
        self._door = door
        self._blobs = blobs
        self._find_keys = find_keys
        self._address = address

    @property
    def worker_id(self) -> str:
        """Of the gateway as a worker; in ``Task.worker_id`` it means: any."""
        return f"merit-gateway-{self._cell.name}"

    async def ExecuteTask(  # noqa: N802  (the contract's name)
        self, request: unary.ExecuteTaskRequest, context: Context
    ) -> unary.ExecuteTaskResponse:
        """Take a task; durable when it is accepted. The same id with the same content is the same task."""
        tenant = await tenant_of(context)
        task = request.task
        try:
            spec = await self._spec(task, tenant)
            with InnerClient(self._cell, self._door, tenant) as client:
                await client.submit(spec)
        except (BadField, NotTaken) as refused:
            return unary.ExecuteTaskResponse(task_id=task.task_id, message=str(refused))
        except (CellStopped, BlobError) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return unary.ExecuteTaskResponse(task_id=task.task_id, accepted=True)

    async def StreamTaskStatus(  # noqa: N802  (the contract's name)
        self, request: unary.GetTaskStatusRequest, context: Context
    ) -> AsyncIterator[unary.StreamTaskStatusResponse]:
        """Where a task is, each time that this changes, to its end. Waiting to be tried again still counts as running."""
        tenant = await tenant_of(context)
        task_id = await self._task_of(tenant, request.task_id, context)
        shown = unary.TASK_STATUS_UNKNOWN
        try:
            with InnerClient(self._cell, self._door, tenant) as client:
                async for step in client.follow(task_id):
                    if isinstance(step, Settled):
                        result = await self._final(step)
                        result.task_id = request.task_id
                        yield unary.StreamTaskStatusResponse(result=result)
                        return
                    running = step.state is TaskState.RUNNING or shown == unary.TASK_STATUS_RUNNING
                    status = unary.TASK_STATUS_RUNNING if running else unary.TASK_STATUS_PENDING
                    if status != shown and not step.state.final:
                        shown = status
                        result = unary.TaskResult(task_id=request.task_id, status=status)
                        yield unary.StreamTaskStatusResponse(result=result)
        except NotTaken as refused:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(refused))
        except ValueError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except (CellStopped, BlobError) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def GetWorkerInfo(  # noqa: N802  (the contract's name)
        self, request: Empty, context: Context
    ) -> unary.WorkerInfo:
        """The gateway, and the capabilities that some worker behind it has now, as far as one message holds them."""
        del request, context
        state = self._cell.state
        names: dict[str, None] = {}
        async for workers in portions(state.workers.values(), TURN_WORKERS):
            names.update(dict.fromkeys(offer.name for worker in workers for offer in worker.offers))
        info = unary.WorkerInfo(
            worker_id=self.worker_id,
            name="Merit",
            version=_version(),
            address=self._address(),
        )
        size_bytes = 0
        async for some in portions(names, _TURN_OFFERS):
            for offer in filter(None, map(state.offers.get, some)):
                tool = describe(offer)
                size_bytes += tool.ByteSize() + _TOOL_FRAME_BYTES
                if size_bytes > _OUTPUT_BYTES_MAX:
                    break  # what is left out can be had all the same
                info.capabilities.append(tool)
        info.last_heartbeat.FromNanoseconds(time.time_ns())
        return info

    async def CancelTask(  # noqa: N802  (the contract's name)
        self, request: unary.GetTaskStatusRequest, context: Context
    ) -> Empty:
        """Call a task off; durable when it answers. One that has ended stays as it is."""
        tenant = await tenant_of(context)
        task_id = await self._task_of(tenant, request.task_id, context)
        task = self._cell.state.tasks.get(task_id)
        if task is not None and not task.state.final:
            await obey(self._cell, context, CancelTasks(tenant, LOCAL_PRINCIPAL, [task_id]))
        return Empty()

    # What is asked for

    async def _spec(self, task: unary.Task, tenant: str) -> TaskSpec:
        """The task as Merit has it. Raises ``BadField``, and ``BlobError``."""
        check_text("task.task_id", task.task_id, 1, _TASK_ID_LENGTH_MAX)
        worker = "" if task.worker_id == self.worker_id else task.worker_id
        self._check_capability(task.capability_name, worker)
        claimed = task.metadata.get(TENANT_KEY, tenant)
        if claimed != tenant:
            # The stream of the task, which has its id alone, would not find it.
            reason = (
                f"say {claimed!r} in the metadata of the call, under the same name, and of all that are about the task"
            )
            raise BadField(f"task.metadata.{TENANT_KEY}", reason)
        if not 0 <= task.timeout_seconds <= RUN_TIMEOUT_NS_MAX // SECOND_NS:
            raise BadField("task.timeout_seconds", f"{task.timeout_seconds:,} is not between 0 and a year")
        run_timeout_ns = task.timeout_seconds * SECOND_NS or RUN_TIMEOUT_NS_DEFAULT
        try:
            parameters = parameters_of(task)
        except BadParameter as error:
            raise BadField(error.field, error.reason) from None
        blob = ""
        if len(parameters) > PAYLOAD_INLINE_BYTES_MAX:
            blob = await asyncio.to_thread(self._blobs.put, DEFAULT_TENANT, parameters)
        return TaskSpec(
            make_id(time.time_ns(), os.urandom(10)),
            task.capability_name,
            b"" if blob else parameters,
            blob,
            run_timeout_ns=run_timeout_ns,
            timeout_ns=max(TIMEOUT_NS_DEFAULT, run_timeout_ns),
            terms=Terms(
                idempotency_key=f"{NAMESPACE}{task.task_id}",
                labels=_labels(task.metadata),
                demand=Demand(worker=worker) if worker else None,
            ),
        )

    def _check_capability(self, capability: str, worker_id: str) -> None:
        state = self._cell.state
        if worker_id:
            worker = state.workers.get(worker_id)
            if worker is None:
                raise BadField("task.worker_id", f"there is no worker {worker_id[:NAME_LENGTH_MAX]!r} here now")
            able = worker.offer(capability) is not None
        else:
            able = capability in state.offers and any(
                worker.offer(capability) is not None for worker in state.workers.values()
            )
        if not able:
            who = worker_id or "no worker behind this gateway"
            has = "has not" if worker_id else "has"
            raise BadField("task.capability_name", f"{who} {has} the capability {capability[:NAME_LENGTH_MAX]!r}")

    async def _task_of(self, tenant: str, unary_id: str, context: Context) -> str:
        """Merit's id of a task; ends the call with NOT_FOUND when there is none."""
        at = (tenant, f"{NAMESPACE}{unary_id}")
        entry = self._cell.state.keys.get(at)
        if entry is None and self._cell.state.keys_forgotten and 0 < len(unary_id) <= _TASK_ID_LENGTH_MAX:
            try:
                entry = (await self._find_keys([at])).get(at)
            except JournalError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"the journal could not be searched: {error}")
        if entry is None:
            reason = f"task_id: there is no task {unary_id[:NAME_LENGTH_MAX]!r} of tenant {tenant}"
            await context.abort(grpc.StatusCode.NOT_FOUND, reason)
        return entry.task

    async def _final(self, outcome: Settled) -> unary.TaskResult:
        """The end of a task. Raises ``BlobError``, and ``ValueError`` for a result that no message holds."""
        failure = outcome.failure
        metadata = {TASK_KEY: outcome.task, ATTEMPTS_KEY: str(outcome.attempts), WORKER_KEY: outcome.worker}
        result = unary.TaskResult(status=_STATUS[outcome.state], metadata=metadata)
        if outcome.state is TaskState.COMPLETED:
            if failure is not None:  # it was completed so long ago that its result is kept no longer
                raise ValueError(f"output_json: {failure.message}")
            data = outcome.result
            if outcome.result_blob:
                data = await asyncio.to_thread(self._blobs.get, DEFAULT_TENANT, outcome.result_blob)
            if len(data) > _OUTPUT_BYTES_MAX:
                raise ValueError(
                    f"output_json: the task is COMPLETED, but its result has {len(data):,} bytes; one message holds "
                    f"{_OUTPUT_BYTES_MAX:,}: get it by merit task show {outcome.task}"
                )
            result.output_json = data.decode()
        else:
            task = self._cell.state.tasks.get(outcome.task)
            failure = failure or (task.failure if task is not None else None)
            result.error_message = failure.message if failure is not None else f"the task is {outcome.state.name}"
            result.output_json = msgspec.json.encode({"error": result.error_message}).decode()
            if failure is not None:
                result.metadata[KIND_KEY] = failure.kind
                result.metadata[PERMANENT_KEY] = "true"  # it has been tried again as often as made sense
        task = self._cell.state.tasks.get(outcome.task)
        if task is not None and task.ended_ns:
            result.completed_at.FromNanoseconds(task.ended_ns)
        return result


def _labels(metadata: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What of it can be a label. Orchestrators say there what they like, and are to work unchanged."""
    labels: list[tuple[str, str]] = []
    for label in nsmallest(_METADATA_MAX, metadata.items()):
        if label[0] != TENANT_KEY and len(labels) < LABELS_MAX:
            with contextlib.suppress(BadField):
                check_labels("task.metadata", (label,))
                labels.append(label)
    return tuple(labels)


def _version() -> str:
    try:
        return version("merit-fleet")
    except PackageNotFoundError:
        return ""  # it runs from a source tree that is not installed
