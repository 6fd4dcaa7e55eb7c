"""Runs what a command wants of a control plane, and translates what can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, TypeVar

from merit.cli import output, present
from merit.cli.output import CliError
from merit.model.ids import is_task_id
from merit.model.tasks import Refusal
from merit.model.tenancy import DEFAULT_TENANT
from merit.sdk.client import AsyncClient
from merit.sdk.results import MeritError, Refused, Unreachable

Answer = TypeVar("Answer")


def ask(
    server: str,
    work: Callable[[AsyncClient], Awaitable[Answer]],
    connect_timeout_s: float,
    timeout_s: float | None = None,
    tenant: str = DEFAULT_TENANT,
) -> Answer:
    """Connect, do the work, and disconnect. With ``merit at`` the past answers in place of the control plane.

    Args:
        server: ``HOST:PORT`` of the control plane.
        work: what to do with the client.
        connect_timeout_s: how long to try to connect.
        timeout_s: how long the work may take.
        tenant: whose work it is.

    Raises:
        CliError: whatever was refused, could not be reached, or took too long.
        KeyboardInterrupt: Ctrl-C.
    """

    async def run() -> Answer:
        there = present.visited()
        answering = nullcontext(server) if there is None else there.server()
        async with (
            answering as address,
            AsyncClient(address, connect_timeout_s=connect_timeout_s, tenant=tenant) as client,
            asyncio.timeout(timeout_s),
        ):
            return await work(client)

    try:
        return asyncio.run(run())
    except Refused as error:
        raise refusal_of(error) from error
    except Unreachable as error:
        raise CliError("unreachable", str(error), output.UNREACHABLE) from error
    except MeritError as error:
        raise CliError("failed", str(error), output.FAILED) from error
    except ValueError as error:
        raise CliError("invalid", str(error), output.USAGE) from error
    except TimeoutError as error:
        raise CliError("timeout", f"not done within {timeout_s:g} s", output.TIMED_OUT) from error


def refusal_of(error: Refused) -> CliError:
    """What was refused, as the command says it."""
    refusal = error.refusal
    details = {"id": refusal.task, "field": refusal.field} if refusal.task else {"field": refusal.field}
    return CliError(refusal.code, str(error), output.FAILED, **details)


def refusal_view(refusal: Refusal) -> dict[str, Any]:
    """One of several refusals, as JSON has it."""
    return {"id": refusal.task, "kind": refusal.code, "field": refusal.field, "message": refusal.reason}


def checked_id(task_id: str) -> str:
    """The id, if it is one.

    Raises:
        CliError: it is none.
    """
    if not is_task_id(task_id):
        raise CliError("invalid", f"{task_id!r} is no task id (a UUID version 7 in lower case)", output.USAGE)
    return task_id
