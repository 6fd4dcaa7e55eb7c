"""Tasks that come again and again: set, looked at, run at once, ended."""

from __future__ import annotations

import asyncio
import os
import time

import grpc
from msgspec.structs import replace

from merit.gateway.answers import obey, refuse
from merit.gateway.door import Door
from merit.gateway.fields import BadField, check_name, check_text
from merit.gateway.identity import tenant_of
from merit.gateway.settings_check import check_schedule
from merit.gateway.task_search import LIST_BYTES_MAX, page_size
from merit.model.commands import RemoveSchedule, RunSchedule, SetSchedule
from merit.model.ids import make_id
from merit.model.limits import NAME_LENGTH_MAX
from merit.model.schedules import Planned
from merit.model.tenancy import LOCAL_PRINCIPAL
from merit.ports.cell import Cell
from merit.wire.settings import decode_schedule, encode_schedule
from merit.wire.v1 import schedules_pb2, schedules_pb2_grpc


class SchedulesService(schedules_pb2_grpc.SchedulesServicer):
    """See the module."""

    def __init__(self, cell: Cell, door: Door) -> None:
        self._cell = cell
        self._door = door

    async def SetSchedule(  # noqa: N802  (the contract's name)
        self,
        request: schedules_pb2.SetScheduleRequest,
        context: grpc.aio.ServicerContext[schedules_pb2.SetScheduleRequest, schedules_pb2.SetScheduleResponse],
    ) -> schedules_pb2.SetScheduleResponse:
        """A schedule, new or in place of the one of its name; when it is due next."""
        tenant = await tenant_of(context)
        message = schedules_pb2.Schedule()
        message.CopyFrom(request.schedule)
        message.tenant = message.tenant or tenant
        try:
            schedule = decode_schedule(message)
            if schedule.tenant != tenant:
                raise BadField("schedule.tenant", "is not that of the caller; leave it empty")
            times_ns = check_schedule(schedule, time.time_ns())
            # In a thread, since its parameters may be a blob.
            template = await asyncio.to_thread(self._door.template, schedule.template)
        except (BadField, ValueError) as error:
            await refuse(context, error)
        await obey(self._cell, context, SetSchedule(tenant, LOCAL_PRINCIPAL, replace(schedule, template=template)))
        return schedules_pb2.SetScheduleResponse(next_ns=times_ns)

    async def ListSchedules(  # noqa: N802  (the contract's name)
        self,
        request: schedules_pb2.ListSchedulesRequest,
        context: grpc.aio.ServicerContext[schedules_pb2.ListSchedulesRequest, schedules_pb2.ListSchedulesResponse],
    ) -> schedules_pb2.ListSchedulesResponse:
        """The schedules by name; a page at a time."""
        try:
            check_text("cursor", request.cursor, 0, NAME_LENGTH_MAX)
        except BadField as refused:
            await refuse(context, refused)
        schedules = self._cell.state.schedules
        names = sorted(name for name in schedules if name > request.cursor)
        response = schedules_pb2.ListSchedulesResponse()
        size_bytes = 0
        for number, name in enumerate(names, 1):
            message = _view(schedules[name])
            response.schedules.append(message)
            size_bytes += message.ByteSize()
            if number < len(names) and (number == page_size(request.limit) or size_bytes >= LIST_BYTES_MAX):
                response.next_cursor = name
                break
        return response

    async def RemoveSchedule(  # noqa: N802  (the contract's name)
        self,
        request: schedules_pb2.RemoveScheduleRequest,
        context: grpc.aio.ServicerContext[schedules_pb2.RemoveScheduleRequest, schedules_pb2.RemoveScheduleResponse],
    ) -> schedules_pb2.RemoveScheduleResponse:
        """It makes no more tasks; those that it has made go on."""
        tenant = await tenant_of(context)
        try:
            check_name("name", request.name)
        except BadField as refused:
            await refuse(context, refused)
        await obey(self._cell, context, RemoveSchedule(tenant, LOCAL_PRINCIPAL, request.name))
        return schedules_pb2.RemoveScheduleResponse()

    async def RunSchedule(  # noqa: N802  (the contract's name)
        self,
        request: schedules_pb2.RunScheduleRequest,
        context: grpc.aio.ServicerContext[schedules_pb2.RunScheduleRequest, schedules_pb2.RunScheduleResponse],
    ) -> schedules_pb2.RunScheduleResponse:
        """Make its task now, beside its times; the task's id."""
        tenant = await tenant_of(context)
        try:
            check_name("name", request.name)
        except BadField as refused:
            await refuse(context, refused)
        task_id = make_id(time.time_ns(), os.urandom(10))
        await obey(self._cell, context, RunSchedule(tenant, LOCAL_PRINCIPAL, request.name, task_id))
        return schedules_pb2.RunScheduleResponse(task_id=task_id)


def _view(planned: Planned) -> schedules_pb2.PlannedSchedule:
    return schedules_pb2.PlannedSchedule(
        schedule=encode_schedule(planned.schedule),
        next_ns=planned.times_ns,
        last_task_id=planned.last,
        made=planned.made,
        passed_over=planned.passed_over,
    )
