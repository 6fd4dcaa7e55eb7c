"""One stream to the control plane: reading and writing at the same time, over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc


class Conversation:
    """Writes what ``send`` is given, in order, and hands each message that comes to ``take``.

    The session's window bounds how much there is to write.

    Args:
        call: the stream.
        take: what to do with a message.
        welcome_s: how long to wait until ``welcomed`` is called; None: for ever.
    """

    def __init__(
        self, call: grpc.aio.StreamStreamCall[Any, Any], take: Callable[[Any], None], welcome_s: float | None = None
    ) -> None:
        self._call = call
        self._take = take
        self._welcome_s = welcome_s
        self._patience = asyncio.timeout(welcome_s)
        self._messages: list[Any] = []
        self._some = asyncio.Event()
        self._done = False

    def send(self, message: Any) -> None:
        """Write this when its turn comes."""
        self._messages.append(message)
        self._some.set()

    def finish(self) -> None:
        """Write what there is, then end the stream."""
        self._done = True
        self._some.set()

    def welcomed(self) -> None:
        """The other side has answered: there is no hurry any more."""
        self._patience.reschedule(None)

    async def run(self) -> None:
        """Until either side ends the stream.

        Raises:
            grpc.aio.AioRpcError, ConnectionError: it broke, or nobody answered in time.
        """
        writer = asyncio.create_task(self._write())
        try:
            async with self._patience:
                await self._read()
        except TimeoutError:
            raise ConnectionError(f"no answer within {self._welcome_s:g} s") from None
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await writer
            self._call.cancel()

    async def _read(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            self._take(message)
        if not self._done:
            # Ended by the other side: with its reason, if it broke.
            code = await self._call.code()
            if code is not grpc.StatusCode.OK:
                raise ConnectionError(f"{code.name}: {await self._call.details()}")

    async def _write(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            messages, self._messages = self._messages, []
            for message in messages:
                await self._call.write(message)
            if self._done and not self._messages:
                await self._call.done_writing()
                return
