"""What clients ask: their session, and single questions and orders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc

from merit.core.recollect import NotRemembered
from merit.core.why import why
from merit.gateway.answers import carry_out, refuse
from merit.gateway.door import Door
from merit.gateway.fields import BadField, check_text
from merit.gateway.identity import tenant_of
from merit.gateway.memory import Memory
from merit.gateway.streams import converse_with_client
from merit.gateway.task_pages import Beyond, NotYet, TaskPages, read_place
from merit.gateway.task_search import TaskSearch, select
from merit.gateway.task_view import view_task
from merit.model.commands import CancelTasks
from merit.model.ids import is_task_id
from merit.model.limits import DESCRIPTION_LENGTH_MAX, SECOND_NS
from merit.model.record import JournalError
from merit.model.supervision import FACTOR_ONE, CircuitState, Stage
from merit.model.tasks import CONTENTS_GONE, Task
from merit.model.tenancy import LOCAL_PRINCIPAL
from merit.ports.cell import Cell
from merit.ports.following import FollowerStanding
from merit.wire.frames import encode_refusal
from merit.wire.v1 import tasks_pb2, tasks_pb2_grpc

FindTask = Callable[[str], Awaitable[Task]]
"""Raises ``NotRemembered``, and ``JournalError`` when that cannot be told."""


class TasksService(tasks_pb2_grpc.TasksServicer):
    """See the module.

    Args:
        cell: answers for live tasks and recent ones.
        door: checks what clients send.
        find: finds a task that the cell has forgotten, with what the journal has of it.
        journal_bytes: size of the journal, as it is known without waiting.
        memory: answers for tasks that the cell has forgotten; None: there is no follower.
        store: the kind of database in which the journal is, for people.
    """

    def __init__(
        self,
        cell: Cell,
        door: Door,
        find: FindTask,
        journal_bytes: Callable[[], int],
        memory: Memory | None = None,
        store: str = "",
    ) -> None:
        self._cell = cell
        self._door = door
        self._find = find
        self._journal_bytes = journal_bytes
        self._memory = memory
        self._pages = TaskPages(cell, memory)
        self._store = store

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
            try:
                task = await self._find(request.id)
            except JournalError as error:
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"the journal could not be searched: {error}")
            except NotRemembered as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"id: {error}")
        message = view_task(self._cell, task)
        message.parameters = task.parameters
        message.parameters_blob = task.parameters_blob
        message.result = task.result
        message.result_blob = task.result_blob
        message.why = why(self._cell.desk, task)
        if task.contents_gone:
            message.why += f"; {CONTENTS_GONE}"
        for entry, attempt in zip(message.attempts, task.attempts, strict=True):
            entry.trail = attempt.trail
        return message

    async def ListTasks(  # noqa: N802  (the contract's name)
        self,
        request: tasks_pb2.ListTasksRequest,
        context: grpc.aio.ServicerContext[tasks_pb2.ListTasksRequest, tasks_pb2.ListTasksResponse],
    ) -> tasks_pb2.ListTasksResponse:
        """Tasks, newest first; a page at a time: live ones and recent final ones as the cell has them, older ones as the read
        model remembers them."""
        try:
            search = TaskSearch(request.filter)
            below, waits = read_place(request.cursor) if request.cursor else (None, True)
        except BadField as refused:
            await refuse(context, refused)
        try:
            return await self._pages.page(search, request.limit, below, request.at_least, waits=waits)
        except Beyond as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except NotYet as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def CancelTasks(  # noqa: N802  (the contract's name)
        self,
        request: tasks_pb2.CancelTasksRequest,
        context: grpc.aio.ServicerContext[tasks_pb2.CancelTasksRequest, tasks_pb2.CancelTasksResponse],
    ) -> tasks_pb2.CancelTasksResponse:
        """Call tasks off; durable when it answers."""
        tenant = await tenant_of(context)
        try:
            check_text("reason", request.reason, 0, DESCRIPTION_LENGTH_MAX)
            wanted = request.filter if request.HasField("filter") else None
            selection = await select(
                self._cell, request.ids, wanted, tenant, self._cell.state.tasks.values(), final=False
            )
        except BadField as refused:
            await refuse(context, refused)
        reason = request.reason or "canceled on request"
        response = tasks_pb2.CancelTasksResponse(
            refusals=[encode_refusal(refusal) for refusal in selection.refusals], more=selection.more
        )
        for ids in selection.portions():
            refusals = await carry_out(self._cell, context, CancelTasks(selection.tenant, LOCAL_PRINCIPAL, ids, reason))
            refused_ids = {refusal.task for refusal in refusals}
            response.canceled.extend(task_id for task_id in ids if task_id not in refused_ids)
            response.refusals.extend(encode_refusal(refusal) for refusal in selection.worth_saying(refusals))
        return response

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
        pending = self._cell.desk.backlog.size
        assigned = sum(len(worker.attempts) for worker in state.workers.values())
        standing = self._memory.following.standing() if self._memory is not None else FollowerStanding()
        conducts = [state.profiles[name].conduct for name in state.workers if name in state.profiles]
        return tasks_pb2.Status(
            cell=self._cell.name,
            epoch=state.epoch,
            sequence=state.sequence,
            waiting=state.live - pending - assigned - len(state.cases),
            pending=pending,
            assigned=assigned,
            completed=state.completed,
            dead=state.dead,
            canceled=state.canceled,
            workers=len(self._cell.attached),
            journal_bytes=self._journal_bytes(),
            started_ns=self._cell.started_ns,
            dead_letters=len(state.dead_letters),
            follower_sequence=standing.sequence,
            follower_lag_events=standing.lag_events,
            follower_lag_ns=round(standing.lag_s * SECOND_NS),
            snapshot_sequence=standing.snapshot,
            journal_first=standing.journal_first,
            alarms=standing.alarms,
            store=self._store,
            workers_punished=sum(1 for one in conducts if one.factor < FACTOR_ONE),
            workers_paused=sum(1 for one in conducts if one.stage is Stage.PAUSED),
            breakers_open=sum(1 for one in conducts if one.circuit.state is CircuitState.OPEN),
            auditing=len(state.cases),
        )
