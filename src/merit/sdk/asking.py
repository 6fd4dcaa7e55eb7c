"""Questions and orders to the control plane, outside of the stream: how they are made, and what can become of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, Final, TypeVar

import grpc

from merit.model.tasks import Refusal
from merit.sdk.channel import Backoff
from merit.sdk.results import MeritError, Refused, Unreachable
from merit.wire.calls import calling

T = TypeVar("T")

_REFUSED: Final = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)


class Asker:
    """Makes calls over whatever channel there is at the time.

    Args:
        server: for messages.
        patience_s: how long a call is made again while the control plane is away.
        check: raises when no call can be made at all, any more or yet.
    """

    def __init__(self, server: str, patience_s: float, check: Callable[[], None]) -> None:
        self.channel: grpc.aio.Channel | None = None
        """The client sets it when the control plane has answered on a stream, and takes it away when that breaks."""
        self._server = server
        self._patience_s = patience_s
        self._check = check

    async def ask(self, call: Callable[[grpc.aio.Channel], Awaitable[T]], patience_s: float | None = None) -> T:
        """Make a call that may be made twice; while the control plane is away it is made again.

        Args:
            call: with the channel that there is at the time.
            patience_s: how long, by default as long as for the first connection.

        Raises:
            Unreachable: it was away all the time.
            Refused: what was asked for does not exist, or cannot be.
            MeritError: it cannot answer this, or the client was closed.
        """
        self._check()
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (self._patience_s if patience_s is None else patience_s)
        backoff = Backoff()
        while True:
            try:
                with _asking(self._server):
                    if self.channel is None:
                        raise ConnectionError("it is not back yet")
                    return await call(self.channel)
            except Unreachable:
                wait_s = backoff.next_s()
                if loop.time() + wait_s >= until_s:
                    raise
                await asyncio.sleep(wait_s)
                self._check()

    async def order(self, call: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
        """Make a call that must not be made twice: once there is a channel, it is made once.

        Raises:
            Unreachable: there was no channel for all the time, or it broke before the answer came: whether the order
                was carried out is not known then.
            Refused, MeritError: as for ``ask``.
        """

        async def there(channel: grpc.aio.Channel) -> grpc.aio.Channel:
            return channel

        channel = await self.ask(there)
        with _asking(self._server):
            return await call(channel)

    async def stream(
        self, call: Callable[[grpc.aio.Channel], grpc.aio.UnaryStreamCall[Any, T]]
    ) -> AsyncGenerator[T, None]:
        """Make a call that has many answers: once there is a channel, it is made once. Raises as ``order``, also when it
        breaks between two answers."""

        async def there(channel: grpc.aio.Channel) -> grpc.aio.Channel:
            return channel

        answers = call(await self.ask(there))
        try:
            with _asking(self._server):
                async for answer in answers:
                    yield answer
        finally:
            answers.cancel()

    async def ask_for_ever(self, call: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
        """As ``ask``, with patience that does not end."""
        return await self.ask(call, math.inf)


@contextlib.contextmanager
def _asking(server: str) -> Iterator[None]:
    """Around a call: what goes wrong is raised as ``Refused`` or ``Unreachable``."""
    try:
        with calling():
            yield
    except grpc.aio.AioRpcError as error:
        raise _translated(error, server) from error
    except ConnectionError as error:
        raise Unreachable(f"the control plane at {server} went away: {error}; try again") from error


def _translated(error: grpc.aio.AioRpcError, server: str) -> MeritError:
    code = error.code()
    if code in _REFUSED:
        field, _, reason = (error.details() or "").partition(": ")
        return Refused(Refusal("", code.name.lower(), field, reason))
    if code is grpc.StatusCode.DATA_LOSS:
        return MeritError(error.details() or "a stored content is damaged")  # asking again cannot help
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return MeritError(f"the control plane at {server} is older than this client: {error.details()}")
    return Unreachable(f"the control plane at {server} did not answer: {code.name}: {error.details()}")
