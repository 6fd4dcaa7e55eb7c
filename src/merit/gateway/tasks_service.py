"""What clients ask: their session, and single questions and orders."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Final

import grpc

from merit.core.why import why
from merit.gateway.door import Door
from merit.gateway.streams import converse_with_client
from merit.model.commands import CancelTasks
from merit.model.ids import is_task_id
from merit.model.limits import DESCRIPTION_LENGTH_MAX, SUBMIT_TASKS_MAX
from merit.model.tasks import Attempt, Progress, Refusal, Task, TaskState
from merit.ports.cell import Cell, CellStopped
from merit.wire.frames import encode_failure, encode_refusal
from merit.wire.v1 import tasks_pb2, tasks_pb2_grpc

LIST_DEFAULT: Final = 100
LIST_MAX: Final = 1_000
LIST_BYTES_MAX: Final = 4 * 1024 * 1024
"""A page that has come to this ends: a thousand tasks, each with its stack traces, would be more than a message holds."""
_CURSOR_LENGTH_MAX: Final = 20
_SCAN_MAX: Final = 20_000
"""Tasks that one turn of the loop looks at when it lists."""

TENANT: Final = "default"
PRINCIPAL: Final = "local"

FindTasks = Callable[[Sequence[str]], Awaitable[list[Task]]]


class TasksService(tasks_pb2_grpc.TasksServicer):
    """See the module.

    Args:
        cell: answers for live tasks and recent ones.
        door: checks what clients send.
        find: reads older tasks from the journal.
        journal_bytes: size of the journal.
    """

    def __init__(self, cell: Cell, door: Door, find: FindTasks, journal_bytes: Callable[[], int]) -> None:
        self._cell = cell
        self._door = door
        self._find = find
        self._journal_bytes = journal_bytes

    async def Session(  # type: ignore[override]  # noqa: N802  (a coroutine that writes is as good as a generator)
        self,
        request_iterator: object,
        context: grpc.aio.ServicerContext[tasks_pb2.ClientFrame, tasks_pb2.ServerFrame],
    ) -> None:
        """One stream of one client."""
        del request_iterator  # read through the context, which costs less
        await converse_with_client(self._cell, self._door, context)

    async def GetTask(  # noqa: N802  (the contract's name)
        self,
        request: tasks_pb2.GetTaskRequest,
        context: grpc.aio.ServicerContext[tasks_pb2.GetTaskRequest, tasks_pb2.Task],
    ) -> tasks_pb2.Task:
        """One task, whole; an older one from the journal."""
        if not is_task_id(request.id):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "id: must be a UUID version 7 in lower case")
        task = self._cell.state.tasks.get(request.id)
        if task is None:
            found = await self._find([request.id])
            if not found:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"id: there is no task {request.id} in this cell")
            task = found[0]
        message = _encode_task(task, self._cell.progress.get(task.id))
        message.parameters = task.parameters
        message.parameters_blob = task.parameters_blob
        message.result = task.result
        message.result_blob = task.result_blob
        message.why = why(self._cell.state, self._cell.attached, task)
        for entry, attempt in zip(message.attempts, task.attempts, strict=True):
            entry.trail = attempt.trail
        return message

    async def ListTasks(  # noqa: N802  (the contract's name)
        self,
        request: tasks_pb2.ListTasksRequest,
        context: grpc.aio.ServicerContext[tasks_pb2.ListTasksRequest, tasks_pb2.ListTasksResponse],
    ) -> tasks_pb2.ListTasksResponse:
        """Live tasks and recent final ones, newest first; a page at a time."""
        limit = min(request.limit or LIST_DEFAULT, LIST_MAX)
        if request.cursor and not (request.cursor.isdecimal() and len(request.cursor) < _CURSOR_LENGTH_MAX):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "cursor: must be the next_cursor of a page before")
        below = int(request.cursor) if request.cursor else None
        size_bytes = 0
        response = tasks_pb2.ListTasksResponse()
        # A copy, since the state changes between two turns of the loop; a few ms for a million tasks.
        newest_first = reversed(list(self._cell.state.tasks.values()))
        while portion := list(islice(newest_first, _SCAN_MAX)):
            for task in portion:
                if (
                    (below is not None and task.order >= below)
                    or (request.state and int(task.state) != request.state)
                    or (request.capability and task.capability != request.capability)
                ):
                    continue
                message = _encode_task(task, self._cell.progress.get(task.id))
                response.tasks.append(message)
                size_bytes += message.ByteSize()
                if len(response.tasks) == limit or size_bytes >= LIST_BYTES_MAX:
                    response.next_cursor = str(task.order)
                    return response
            await asyncio.sleep(0)  # looking through a million takes a while: others have their turn in between
        return response

    async def CancelTasks(  # noqa: N802  (the contract's name)
        self,
        request: tasks_pb2.CancelTasksRequest,
        context: grpc.aio.ServicerContext[tasks_pb2.CancelTasksRequest, tasks_pb2.CancelTasksResponse],
    ) -> tasks_pb2.CancelTasksResponse:
        """Call tasks off; durable when it answers."""
        ids = list(dict.fromkeys(request.ids))
        if not 1 <= len(ids) <= SUBMIT_TASKS_MAX:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"ids: {len(ids):,}; 1 to {SUBMIT_TASKS_MAX:,} are allowed"
            )
        if len(request.reason) > DESCRIPTION_LENGTH_MAX:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"reason: {len(request.reason):,} characters; {DESCRIPTION_LENGTH_MAX:,} at most",
            )
        bad = [Refusal(name[:200], "invalid", "ids", "is no task id") for name in ids if not is_task_id(name)]
        good = [name for name in ids if is_task_id(name)]
        try:
            refusals = await self._cell.command(
                CancelTasks(TENANT, PRINCIPAL, good, request.reason or "canceled on request")
            )
        except CellStopped as stopped:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(stopped))
        refused = {refusal.task for refusal in refusals}
        return tasks_pb2.CancelTasksResponse(
            canceled=[name for name in good if name not in refused],
            refusals=[encode_refusal(refusal) for refusal in bad + refusals],
        )

    async def ListWorkers(  # noqa: N802  (the contract's name)
        self,
        request: tasks_pb2.ListWorkersRequest,
        context: grpc.aio.ServicerContext[tasks_pb2.ListWorkersRequest, tasks_pb2.ListWorkersResponse],
    ) -> tasks_pb2.ListWorkersResponse:
        """The workers that this cell knows."""
        del request, context
        attached = self._cell.attached
        return tasks_pb2.ListWorkersResponse(
            workers=[
                tasks_pb2.Worker(
                    id=worker.id,
                    boot_id=worker.boot,
                    state=worker.state.name if worker.id in attached else "DISCONNECTED",
                    capabilities=[offer.name for offer in worker.offers],
                    concurrency=worker.concurrency,
                    attempts=len(worker.attempts),
                    joined_ns=worker.joined_ns,
                )
                for worker in self._cell.state.workers.values()
            ]
        )

    async def GetStatus(  # noqa: N802  (the contract's name)
        self,
        request: tasks_pb2.GetStatusRequest,
        context: grpc.aio.ServicerContext[tasks_pb2.GetStatusRequest, tasks_pb2.Status],
    ) -> tasks_pb2.Status:
        """The cell in a few numbers."""
        del request, context
        state = self._cell.state
        pending = sum(queue.size for queue in state.queues.values())
        assigned = sum(len(worker.attempts) for worker in state.workers.values())
        return tasks_pb2.Status(
            cell=self._cell.name,
            epoch=state.epoch,
            sequence=state.sequence,
            waiting=state.live - pending - assigned,
            pending=pending,
            assigned=assigned,
            completed=state.completed,
            dead=state.dead,
            canceled=state.canceled,
            workers=len(self._cell.attached),
            journal_bytes=self._journal_bytes(),
            started_ns=self._cell.started_ns,
        )


def _encode_task(task: Task, progress: Progress | None) -> tasks_pb2.Task:
    message = tasks_pb2.Task(
        id=task.id,
        capability=task.capability,
        state=_STATE[task.state],
        priority=task.priority,
        tenant=task.tenant,
        principal=task.principal,
        description=task.description,
        run_timeout_ns=task.run_timeout_ns,
        attempts_max=task.attempts_max,
        after=task.after,
        submitted_ns=task.submitted_ns,
        ended_ns=task.ended_ns,
        attempts=[_encode_attempt(attempt, progress) for attempt in task.attempts],
    )
    if task.failure is not None:
        message.failure.CopyFrom(encode_failure(task.failure))
    return message


def _encode_attempt(attempt: Attempt, progress: Progress | None) -> tasks_pb2.Attempt:
    message = tasks_pb2.Attempt(
        number=attempt.number,
        worker_id=attempt.worker,
        state=attempt.state.name,
        assigned_ns=attempt.assigned_ns,
        started_ns=attempt.started_ns,
        ended_ns=attempt.ended_ns,
        wall_ns=attempt.wall_ns,
        cpu_ns=attempt.cpu_ns,
        memory_bytes=attempt.memory_bytes,
    )
    if attempt.failure is not None:
        message.failure.CopyFrom(encode_failure(attempt.failure))
    if progress is not None and progress.number == attempt.number:
        message.progress = progress.fraction
        message.progress_message = progress.message
    return message


_STATE = {state: tasks_pb2.TaskState.Value(f"TASK_STATE_{state.name}") for state in TaskState}
