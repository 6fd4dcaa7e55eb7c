"""What failed for good: looked at, tried again, let go."""

from __future__ import annotations

import os
import time
from heapq import nlargest

import grpc

from merit.gateway.answers import Context, carry_out, refuse
from merit.gateway.fields import BadField
from merit.gateway.identity import tenant_of
from merit.gateway.portions import portions
from merit.gateway.task_search import LIST_BYTES_MAX, Selection, TaskSearch, page_size, read_cursor, select
from merit.gateway.task_view import view_task
from merit.model.commands import PurgeDead, RetryDead
from merit.model.ids import make_id
from merit.model.tasks import Task
from merit.model.tenancy import LOCAL_PRINCIPAL
from merit.ports.cell import Cell
from merit.wire.frames import encode_refusal
from merit.wire.v1 import dead_letters_pb2, dead_letters_pb2_grpc, tasks_pb2


class DeadLettersService(dead_letters_pb2_grpc.DeadLettersServicer):
    """See the module."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    async def ListDead(  # noqa: N802  (the contract's name)
        self,
        request: dead_letters_pb2.ListDeadRequest,
        context: grpc.aio.ServicerContext[dead_letters_pb2.ListDeadRequest, tasks_pb2.ListTasksResponse],
    ) -> tasks_pb2.ListTasksResponse:
        """Dead letters, those that died last first; a page at a time."""
        try:
            matches = TaskSearch(request.filter).among(self._cell)
            before = _read_place(request.cursor) if request.cursor else None
        except BadField as refused:
            await refuse(context, refused)
        found: list[Task] = []
        async for portion in portions(self._cell.state.dead_letters.values()):
            found += [task for task in portion if (before is None or _place(task) < before) and matches(task)]
            # One more than the page has, which says whether there is another page.
            found = nlargest(page_size(request.limit) + 1, found, key=_place)
        response = tasks_pb2.ListTasksResponse()
        size_bytes = 0
        for number, task in enumerate(found, 1):
            message = view_task(self._cell, task)
            response.tasks.append(message)
            size_bytes += message.ByteSize()
            if number < len(found) and (number == page_size(request.limit) or size_bytes >= LIST_BYTES_MAX):
                response.next_cursor = "-".join(map(str, _place(task)))
                break
        return response

    async def RetryDead(  # noqa: N802  (the contract's name)
        self,
        request: dead_letters_pb2.RetryDeadRequest,
        context: grpc.aio.ServicerContext[dead_letters_pb2.RetryDeadRequest, dead_letters_pb2.RetryDeadResponse],
    ) -> dead_letters_pb2.RetryDeadResponse:
        """Each by a new task; durable when it answers."""
        selection = await self._selected(request, context)
        response = dead_letters_pb2.RetryDeadResponse(
            refusals=[encode_refusal(refusal) for refusal in selection.refusals], more=selection.more
        )
        for ids in selection.portions():
            pairs = [(dead_id, make_id(time.time_ns(), os.urandom(10))) for dead_id in ids]
            refusals = await carry_out(self._cell, context, RetryDead(selection.tenant, LOCAL_PRINCIPAL, pairs))
            refused_ids = {refusal.task for refusal in refusals}
            response.retried.extend(
                dead_letters_pb2.Retried(dead_id=dead_id, task_id=task_id)
                for dead_id, task_id in pairs
                if dead_id not in refused_ids
            )
            response.refusals.extend(encode_refusal(refusal) for refusal in selection.worth_saying(refusals))
            if any(refusal.code == "exhausted" for refusal in refusals):
                break  # there is no room for the rest either
        return response

    async def PurgeDead(  # noqa: N802  (the contract's name)
        self,
        request: dead_letters_pb2.PurgeDeadRequest,
        context: grpc.aio.ServicerContext[dead_letters_pb2.PurgeDeadRequest, dead_letters_pb2.PurgeDeadResponse],
    ) -> dead_letters_pb2.PurgeDeadResponse:
        """They are dead letters no more; as tasks they stay what they are. Durable when it answers."""
        selection = await self._selected(request, context)
        response = dead_letters_pb2.PurgeDeadResponse(
            refusals=[encode_refusal(refusal) for refusal in selection.refusals], more=selection.more
        )
        for ids in selection.portions():
            refusals = await carry_out(self._cell, context, PurgeDead(selection.tenant, LOCAL_PRINCIPAL, ids))
            refused_ids = {refusal.task for refusal in refusals}
            response.purged.extend(task_id for task_id in ids if task_id not in refused_ids)
            response.refusals.extend(encode_refusal(refusal) for refusal in selection.worth_saying(refusals))
        return response

    async def _selected(
        self, request: dead_letters_pb2.RetryDeadRequest | dead_letters_pb2.PurgeDeadRequest, context: Context
    ) -> Selection:
        """Which ones an order means; ends the call when it does not say that rightly."""
        tenant = await tenant_of(context)
        wanted = request.filter if request.HasField("filter") else None
        try:
            return await select(
                self._cell, request.ids, wanted, tenant, self._cell.state.dead_letters.values(), final=True
            )
        except BadField as refused:
            await refuse(context, refused)


def _place(task: Task) -> tuple[int, int]:
    """When it died, and which it is of those that died at once."""
    return task.ended_ns, task.order


def _read_place(cursor: str) -> tuple[int, int]:
    ended, _, order = cursor.partition("-")
    return read_cursor(ended), read_cursor(order)
