"""A client's stream without a wire: a service of the gateway submits and watches as any client does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from merit.gateway.door import Door
from merit.model.frames import ServerFrame, Settled, Update
from merit.model.tasks import Refusal, TaskSpec
from merit.ports.cell import Cell, CellStopped
from merit.session.client_end import ClientEnd, News
from merit.session.link import ProtocolViolation
from merit.session.server_end import ServerEnd


class NotTaken(Exception):
    """What was asked for is not done."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(f"{refusal.field}: {refusal.reason}")


class InnerClient:
    """One stream, for one thing; used as a context manager.

    Args:
        cell: to which it speaks.
        door: checks what it says.
        tenant: whose things it is about.
    """

    def __init__(self, cell: Cell, door: Door, tenant: str) -> None:
        self._cell = cell
        self._door = door
        self._server = ServerEnd(tenant=tenant)
        self._end = ClientEnd("gateway")
        self._frames: list[ServerFrame] = []
        self._some = asyncio.Event()
        self._over = False

    def __enter__(self) -> Self:
        self._cell.open_client(self._server, self)
        self._end.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cell.close_client(self._server)

    def deliver(self, frame: ServerFrame) -> None:
        """What the cell says; taken in later."""
        self._frames.append(frame)
        self._some.set()

    def end(self) -> None:
        """The cell has stopped."""
        self._over = True
        self._some.set()

    async def submit(self, spec: TaskSpec) -> str:
        """Have a task taken in; the id of the task that it is, by its idempotency key. Durable on return.

        Raises:
            NotTaken: by the door or the cell.
            CellStopped: whether it was taken is not known.
        """
        self._end.submit([spec])
        while True:
            for news in await self._news():
                if news.known:
                    return news.known[0][1]
                if spec.id in news.accepted:
                    return spec.id

    async def follow(self, task_id: str) -> AsyncIterator[Update | Settled]:
        """The steps of a task as they come, and at last its outcome.

        Raises:
            NotTaken: the tenant has no such task.
            CellStopped: the control plane is going.
        """
        self._end.follow(task_id)
        self._end.watch(task_id)
        while True:
            for news in await self._news():
                for update in news.updates:
                    yield update
                for outcome in news.outcomes:
                    yield outcome
                    return

    async def _news(self) -> list[News]:
        """What has come since this was called last, or comes next. Raises ``NotTaken`` and ``CellStopped``."""
        await self._pump()
        await self._some.wait()
        self._some.clear()
        frames, self._frames = self._frames, []
        found: list[News] = []
        for frame in frames:
            if frame.refused:
                raise CellStopped(frame.refused)
            try:
                news = self._end.take(frame)
            except ProtocolViolation as violation:
                raise CellStopped(str(violation)) from violation
            for refusal in news.refusals:
                raise NotTaken(refusal)
            found.append(news)
        if self._over and not found:
            raise CellStopped("the control plane is shutting down")
        return found

    async def _pump(self) -> None:
        while (frame := self._end.frame()) is not None:
            if any(spec.parameters_blob for spec in frame.tasks):
                refusals = await asyncio.to_thread(self._door.client_frame, frame)  # it reads them from disk
            else:
                refusals = self._door.client_frame(frame)
            self._cell.client_frame(self._server, frame, refusals)
