"""Peers that do not keep to the rules: raw streams, and raw bytes on them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import grpc
from google.protobuf.message import Message

from merit.model.ids import make_id
from merit.wire.v1 import (
    audits_pb2_grpc,
    dead_letters_pb2_grpc,
    fleet_pb2_grpc,
    queues_pb2_grpc,
    schedules_pb2_grpc,
    supervision_pb2_grpc,
    tasks_pb2,
    tasks_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)

WAIT_S = 20.0
CLIENT, WORKER = "/merit.wire.v1.Tasks/Session", "/merit.wire.v1.Workers/Session"
_ANSWERS: dict[str, type[Message]] = {CLIENT: tasks_pb2.ServerFrame, WORKER: worker_pb2.CellFrame}


def new_id(number: int = 0) -> str:
    return make_id(time.time_ns(), time.perf_counter_ns().to_bytes(8, "big") + number.to_bytes(2, "big"))


_NUMBERS = count(1)


def hello(name: str | None = None, capability: str = "hostile", **fields: Any) -> worker_pb2.WorkerFrame:
    """The first frame of a worker; under a name that nobody else has, unless it is given one."""
    if name is None:
        name = f"hostile-{next(_NUMBERS)}"
    capabilities = fields.pop("capabilities", [worker_pb2.Capability(name=capability, version="1.0.0")])
    message = worker_pb2.Hello(
        **{"worker_id": name, "boot_id": "b", "session": 1, "concurrency": 1, "capabilities": capabilities, **fields}
    )
    return worker_pb2.WorkerFrame(sequence=1, hello=message, credits=1)


def client_hello(**fields: Any) -> tasks_pb2.ClientFrame:
    return tasks_pb2.ClientFrame(sequence=1, hello=tasks_pb2.ClientHello(client_id="hostile"), **fields)


class Stream:
    """One stream on which anything can be written."""

    def __init__(self, call: Any, answer: type[Message]) -> None:
        self._call = call
        self._answer = answer

    async def write(self, *messages: Message | bytes) -> None:
        for message in messages:
            await self._call.write(message if isinstance(message, bytes) else message.SerializeToString())

    async def read(self) -> Any:
        """The next frame, or None at the end of the stream."""
        data = await asyncio.wait_for(self._call.read(), WAIT_S)
        return None if data is grpc.aio.EOF else self._answer.FromString(data)

    async def end(self) -> str:
        """Wait until the server has ended the stream: the reason that it gave in a frame, or gRPC's status."""
        try:
            while (frame := await self.read()) is not None:
                if frame.refused:
                    reason = frame.refused
                    assert await self.read() is None, "a frame after the refusal"
                    return str(reason)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        code = await self._call.code()
        return f"{code.name}: {await self._call.details()}"

    async def refusals(self, count: int) -> list[Any]:
        """At least so many refusals."""
        found: list[Any] = []
        while len(found) < count:
            frame = await self.read()
            assert frame is not None, "the stream ended"
            assert not frame.refused, frame.refused
            found += frame.refusals
        return found

    def cancel(self) -> None:
        self._call.cancel()


class Peer:
    """A connection to a server."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.tasks = tasks_pb2_grpc.TasksStub(channel)
        self.blobs = tasks_pb2_grpc.BlobsStub(channel)
        self.workers = worker_pb2_grpc.WorkersStub(channel)
        self.queues = queues_pb2_grpc.QueuesStub(channel)
        self.dead_letters = dead_letters_pb2_grpc.DeadLettersStub(channel)
        self.schedules = schedules_pb2_grpc.SchedulesStub(channel)
        self.fleet = fleet_pb2_grpc.FleetStub(channel)
        self.audits = audits_pb2_grpc.AuditsStub(channel)
        self.supervision = supervision_pb2_grpc.SupervisionStub(channel)

    def stream(self, method: str) -> Stream:
        return Stream(self.channel.stream_stream(method)(), _ANSWERS[method])

    async def said(self, method: str, *messages: Message | bytes) -> str:
        """Write these on a new stream; why the server ended it."""
        stream = self.stream(method)
        try:
            await stream.write(*messages)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the server ended it before all was written
        return await stream.end()

    async def refused(self, specs: Sequence[Any] = (), groups: Sequence[Any] = (), **fields: Any) -> list[Any]:
        """Submit on a new stream; the refusals, one for each task."""
        stream = self.stream(CLIENT)
        groups = [tasks_pb2.TaskGroup(tasks=group) for group in groups]
        await stream.write(client_hello(tasks=specs, groups=groups, **fields))
        try:
            return await stream.refusals(len(specs) + sum(len(group.tasks) for group in groups))
        finally:
            stream.cancel()


@asynccontextmanager
async def peer(address: str) -> AsyncIterator[Peer]:
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield Peer(channel)
