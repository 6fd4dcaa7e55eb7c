"""How single calls end: orders that are carried out, and what is refused of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

import grpc

from merit.gateway.fields import BadField
from merit.model.commands import Command
from merit.model.tasks import Refusal
from merit.ports.cell import Cell, CellStopped

_STATUS: Final[Mapping[str, grpc.StatusCode]] = {
    "invalid": grpc.StatusCode.INVALID_ARGUMENT,
    "not_found": grpc.StatusCode.NOT_FOUND,
    "conflict": grpc.StatusCode.FAILED_PRECONDITION,
    "exhausted": grpc.StatusCode.RESOURCE_EXHAUSTED,
}

Context = grpc.aio.ServicerContext[Any, Any]


async def refuse(context: Context, error: BadField | ValueError) -> NoReturn:
    """End the call: a field cannot be, as the error says."""
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))


async def carry_out(cell: Cell, context: Context, command: Command) -> list[Refusal]:
    """Have the command carried out; what is refused of it. Ends the call when the cell has stopped."""
    try:
        return await cell.command(command)
    except CellStopped as stopped:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(stopped))


async def obey(cell: Cell, context: Context, command: Command) -> None:
    """Have the command carried out, which is one thing: ends the call when it is refused."""
    for refusal in await carry_out(cell, context, command):
        status = _STATUS.get(refusal.code, grpc.StatusCode.FAILED_PRECONDITION)
        if refusal.code == "exhausted" and not refusal.retry_after_ns:
            status = grpc.StatusCode.FAILED_PRECONDITION  # asking again does not help before something is removed
        await context.abort(status, f"{refusal.field}: {refusal.reason}")
