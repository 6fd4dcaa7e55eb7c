"""Answers of single calls wait for what they tell to be durable."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest

from merit.gateway.settled import SettledAnswers
from merit.ports.blobs import BlobUnavailable
from merit.ports.cell import CellStopped
from merit.wire.v1 import fleet_pb2, fleet_pb2_grpc, tasks_pb2, tasks_pb2_grpc


class Journal:
    """Durable when the test says so."""

    def __init__(self):
        self.lease = True
        self.durable = asyncio.Event()
        self.failure = None
        self.asked = 0

    def check_lease(self):
        if not self.lease:
            raise CellStopped("the lease is over")

    async def settled(self):
        self.asked += 1
        await self.durable.wait()
        if self.failure:
            raise CellStopped(self.failure)


class Tasks(tasks_pb2_grpc.TasksServicer):
    read = 0

    async def GetStatus(self, request, context):
        self.read += 1
        return tasks_pb2.Status(cell="c")

    async def ListTasks(self, request, context):
        raise BlobUnavailable("planned")

    async def GetTask(self, request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "id: no such task")

    async def Session(self, request_iterator, context):
        async for frame in request_iterator:
            yield tasks_pb2.ServerFrame(sequence=frame.sequence)


class Fleet(fleet_pb2_grpc.FleetServicer):
    watching = 0

    async def WatchWorkers(self, request, context):
        self.watching += 1
        try:
            while True:
                yield fleet_pb2.FleetChanges(complete=True)
                await asyncio.sleep(0.01)
        finally:
            self.watching -= 1


def made(servicer):
    """One of them; to the type checker those with calls that no test makes are abstract."""
    return type(servicer.__name__, (servicer,), {})()


@asynccontextmanager
async def served():
    journal, tasks, fleet = Journal(), made(Tasks), made(Fleet)
    server = grpc.aio.server(interceptors=(SettledAnswers(journal),))
    tasks_pb2_grpc.add_TasksServicer_to_server(tasks, server)
    fleet_pb2_grpc.add_FleetServicer_to_server(fleet, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield journal, tasks, fleet, channel
    finally:
        await server.stop(0)


async def waiting_for(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_answer_goes_out_when_what_it_tells_is_durable():
    async with served() as (journal, tasks, _, channel):
        asking = asyncio.ensure_future(tasks_pb2_grpc.TasksStub(channel).GetStatus(tasks_pb2.GetStatusRequest()))
        await waiting_for(lambda: journal.asked)
        await asyncio.sleep(0.05)
        assert (tasks.read, asking.done()) == (1, False)
        journal.durable.set()
        assert (await asyncio.wait_for(asking, 10)).cell == "c"


async def test_what_never_becomes_durable_is_not_told():
    async with served() as (journal, _, _, channel):
        journal.failure = "planned"
        journal.durable.set()
        with pytest.raises(grpc.aio.AioRpcError, match="planned") as refused:
            await tasks_pb2_grpc.TasksStub(channel).GetStatus(tasks_pb2.GetStatusRequest())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_when_somebody_else_may_lead_nothing_is_even_looked_at():
    """Whoever knows no better would say of what he does not know that it is not there."""
    async with served() as (journal, tasks, fleet, channel):
        journal.lease = False
        for call, request in (
            (tasks_pb2_grpc.TasksStub(channel).GetStatus, tasks_pb2.GetStatusRequest()),
            (tasks_pb2_grpc.TasksStub(channel).GetTask, tasks_pb2.GetTaskRequest()),
            (fleet_pb2_grpc.FleetStub(channel).WatchWorkers, fleet_pb2.WatchWorkersRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match="the lease is over") as refused:
                await anything_of(call(request))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert (tasks.read, fleet.watching) == (0, 0)


async def test_a_refusal_keeps_its_own_reason_and_waits_for_what_it_tells_too():
    """That there is no such task, say, while the record in which it was forgotten is on its way."""
    async with served() as (journal, _, _, channel):
        asking = asyncio.ensure_future(tasks_pb2_grpc.TasksStub(channel).GetTask(tasks_pb2.GetTaskRequest()))
        await waiting_for(lambda: journal.asked)
        await asyncio.sleep(0.05)
        assert not asking.done()
        journal.durable.set()
        with pytest.raises(grpc.aio.AioRpcError, match="no such task") as refused:
            await asyncio.wait_for(asking, 10)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_refusal_for_what_never_becomes_durable_is_not_told():
    async with served() as (journal, _, _, channel):
        journal.failure = "planned"
        journal.durable.set()
        with pytest.raises(grpc.aio.AioRpcError, match="planned") as refused:
            await tasks_pb2_grpc.TasksStub(channel).GetTask(tasks_pb2.GetTaskRequest())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_what_needs_contents_that_cannot_be_had_just_now_is_to_be_asked_again():
    async with served() as (_, _, _, channel):
        with pytest.raises(grpc.aio.AioRpcError, match="planned") as refused:
            await tasks_pb2_grpc.TasksStub(channel).ListTasks(tasks_pb2.ListTasksRequest())
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_of_many_answers_each_waits_and_whoever_goes_is_not_answered_any_more():
    async with served() as (journal, _, fleet, channel):
        call = fleet_pb2_grpc.FleetStub(channel).WatchWorkers(fleet_pb2.WatchWorkersRequest())
        reading = asyncio.ensure_future(call.read())
        await waiting_for(lambda: journal.asked)
        assert not reading.done()
        journal.durable.set()
        assert (await asyncio.wait_for(reading, 10)).complete
        assert fleet.watching == 1
        call.cancel()
        await waiting_for(lambda: fleet.watching == 0)


async def test_sessions_are_left_alone():
    async with served() as (_, _, _, channel):
        call = tasks_pb2_grpc.TasksStub(channel).Session()
        await call.write(tasks_pb2.ClientFrame(sequence=1))
        assert (await asyncio.wait_for(call.read(), 10)).sequence == 1
        call.cancel()


async def anything_of(call):
    if isinstance(call, grpc.aio.UnaryStreamCall):
        return await call.read()
    return await call
