"""Single calls are answered when what the answer tells is durable, and while it is sure that nobody else leads: also when the
answer is that something is not there, or cannot be."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias, cast

import grpc

from merit.gateway.answers import Context
from merit.ports.blobs import BlobUnavailable
from merit.ports.cell import CellStopped, Settling

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs only


class _SettledContext:
    """That of one call; what a handler ends the call with waits like an answer."""

    def __init__(self, context: Context, cell: Settling) -> None:
        self._context = context
        self._cell = cell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """See ``grpc.aio.ServicerContext``."""
        try:
            await self._cell.settled()
        except CellStopped as stopped:
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, str(stopped))
        await self._context.abort(code, details, trailing_metadata)


class SettledAnswers(grpc.aio.ServerInterceptor):
    """Stands around every call but those whose requests are streams: sessions hold back by themselves what is not durable,
    and what is put into the blob store is in no state.

    Args:
        cell: of whose state the answers tell.
    """

    def __init__(self, cell: Settling) -> None:
        self._cell = cell

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """See ``grpc.aio.ServerInterceptor``."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        coders = handler.request_deserializer, handler.response_serializer
        if not handler.response_streaming:
            return grpc.unary_unary_rpc_method_handler(self._one(cast("Any", handler.unary_unary)), *coders)
        if not inspect.isasyncgenfunction(handler.unary_stream):
            return handler  # the watch of health, which is no word of the cell
        return grpc.unary_stream_rpc_method_handler(self._many(cast("Any", handler.unary_stream)), *coders)

    def _one(self, answer: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        async def settled(request: Any, context: Context) -> Any:
            try:
                self._cell.check_lease()
                message = await answer(request, cast("Context", _SettledContext(context, self._cell)))
                await self._cell.settled()
            except (CellStopped, BlobUnavailable) as stopped:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(stopped))
            return message

        return settled

    def _many(self, answers: Callable[[Any, Context], AsyncGenerator[Any, None]]) -> Any:
        async def settled(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                self._cell.check_lease()
                settling = cast("Context", _SettledContext(context, self._cell))
                async with aclosing(answers(request, settling)) as messages:
                    async for message in messages:
                        await self._cell.settled()
                        yield message
            except (CellStopped, BlobUnavailable) as stopped:
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(stopped))

        return settled
