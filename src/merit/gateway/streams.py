"""The control plane's side of the two kinds of stream, over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError

from merit.gateway.door import Door
from merit.gateway.identity import claimed_tenant
from merit.gateway.report_check import ReportCheck
from merit.model.frames import CellFrame, ClientFrame, ServerFrame, WorkerFrame
from merit.ports.blobs import BlobUnavailable
from merit.ports.cell import Cell, CellStopped
from merit.session.cell_end import CellEnd
from merit.session.link import ProtocolViolation
from merit.session.server_end import ServerEnd
from merit.wire.frames import (
    decode_client_frame,
    decode_worker_frame,
    encode_cell_frame,
    encode_server_frame,
)
from merit.wire.v1 import tasks_pb2, worker_pb2, worker_pb2_grpc

Frame = TypeVar("Frame", CellFrame, ServerFrame)


class _Sender(Generic[Frame]):
    """Frames on their way to one stream; the link's window bounds how many there can be."""

    def __init__(self, encode: Callable[[Frame], Any]) -> None:
        self._encode: Callable[[Frame], Any] = encode
        self._frames: list[Frame] = []
        self._some = asyncio.Event()
        self._ended = False

    def deliver(self, frame: Frame) -> None:
        """Send this frame, in the order of the calls."""
        frames = self._frames
        if frames and not (frame.sequence or frame.refused or frames[-1].sequence or frames[-1].refused):
            # Acknowledgements are no content, so that no window bounds them; the newest says all.
            frames[-1] = frame
        else:
            frames.append(frame)
        self._some.set()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._some.set()

    async def run(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Write until there is nothing more to come, or until the frame that says that the stream is refused."""
        while True:
            await self._some.wait()
            self._some.clear()
            frames, self._frames = self._frames, []
            for frame in frames:
                await context.write(self._encode(frame))
                if frame.refused:
                    return
            if self._ended and not self._frames:
                return


async def _converse(
    context: grpc.aio.ServicerContext[Any, Any],
    sender: _Sender[Any],
    take: Callable[[Any], Any],
    refuse: Callable[[str, bool], Any],
) -> None:
    """Read and write at the same time until one of the two ends."""

    async def read() -> None:
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                pause = take(message)
                if pause is not None:
                    await pause
        except ProtocolViolation as violation:
            sender.deliver(refuse(str(violation), violation.permanent))
        except ValueError as error:
            sender.deliver(refuse(str(error), False))
        except DecodeError:
            sender.deliver(refuse("this is no message of this protocol; is the peer's version another one?", False))
        except CellStopped as stopped:
            sender.deliver(refuse(f"the cell has stopped: {stopped}", False))
        except BlobUnavailable as error:
            sender.deliver(refuse(f"large contents cannot be had just now: {error}", False))
        finally:
            sender.end()  # whatever happened, or the stream would stay open and be read by nobody

    reader = asyncio.create_task(read())
    try:
        await sender.run(context)
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError, DecodeError, grpc.aio.AioRpcError):
            await reader


class WorkersService(worker_pb2_grpc.WorkersServicer):
    """The worker's session."""

    def __init__(self, cell: Cell, door: Door, check: ReportCheck) -> None:
        self._cell = cell
        self._door = door
        self._check = check

    async def Session(  # type: ignore[override]  # noqa: N802  (a coroutine that writes is as good as a generator)
        self,
        request_iterator: object,
        context: grpc.aio.ServicerContext[worker_pb2.WorkerFrame, worker_pb2.CellFrame],
    ) -> None:
        """One stream of one worker, from its hello to its end."""
        del request_iterator  # read through the context, which costs less
        cell, door, check, end = self._cell, self._door, self._check, CellEnd()
        sender: _Sender[CellFrame] = _Sender(encode_cell_frame)

        def take(message: worker_pb2.WorkerFrame) -> Any:
            frame = decode_worker_frame(message)
            door.worker_frame(frame)
            if any(report.result_blob for report in frame.reports) or check.is_due(sender_of(frame), frame):
                return take_slowly(frame)
            cell.worker_frame(end, frame)
            return None

        async def take_slowly(frame: WorkerFrame) -> None:
            if any(report.result_blob for report in frame.reports):
                await asyncio.to_thread(door.large_results, frame)
            if check.is_due(sender_of(frame), frame):
                await check.check(sender_of(frame), frame)
            cell.worker_frame(end, frame)

        def sender_of(frame: WorkerFrame) -> str:
            hello = end.hello or frame.hello
            return hello.worker if hello is not None else ""

        cell.open_worker(end, sender)
        try:
            await _converse(context, sender, take, lambda reason, final: CellFrame(refused=reason, permanent=final))
        finally:
            cell.close_worker(end)


async def converse_with_client(
    cell: Cell, door: Door, context: grpc.aio.ServicerContext[tasks_pb2.ClientFrame, tasks_pb2.ServerFrame]
) -> None:
    """One stream of one client, from its hello to its end."""
    try:
        end = ServerEnd(tenant=claimed_tenant(context))
    except ValueError as error:
        await context.write(encode_server_frame(ServerFrame(refused=str(error), permanent=True)))
        return
    sender: _Sender[ServerFrame] = _Sender(encode_server_frame)

    def take(message: tasks_pb2.ClientFrame) -> Any:
        frame = decode_client_frame(message)
        if any(spec.parameters_blob for spec in frame.tasks) or any(
            spec.parameters_blob for group in frame.groups for spec in group
        ):
            return take_slowly(frame)
        cell.client_frame(end, frame, door.client_frame(frame))
        return None

    async def take_slowly(frame: ClientFrame) -> None:
        """Blobs are read from disk to be checked; in a thread, since that may take a while."""
        refusals = await asyncio.to_thread(door.client_frame, frame)
        cell.client_frame(end, frame, refusals)

    cell.open_client(end, sender)
    try:
        await _converse(context, sender, take, lambda reason, final: ServerFrame(refused=reason, permanent=final))
    finally:
        cell.close_client(end)
