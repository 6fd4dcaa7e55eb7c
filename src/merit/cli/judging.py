"""`merit worker pardon`, `pin` and `unpin`: what a person decides about a worker in place of supervision."""

from __future__ import annotations

from typing import Any, Final

import click

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import MeritCommand, connect_option, json_option, server_option
from merit.cli.output import write_json, write_lines
from merit.sdk.client import AsyncClient

_ENDS: Final = (output.FAILED, output.UNREACHABLE)
_reason_option = click.option("--reason", default="", help="Is kept and shown with the decision.")


@click.command(
    "pardon",
    cls=MeritCommand,
    example="""
    merit worker pardon w1 --reason 'its network was down'
    merit worker pardon w1 --decision 4711
    """,
    codes=_ENDS,
)
@click.argument("worker_id", metavar="WORKER")
@click.option(
    "--decision",
    type=click.IntRange(1),
    help="Undo this one of its last decisions: its factor becomes what it would be without it.",
)
@_reason_option
@server_option
@connect_option
@json_option
def pardon_worker(
    worker_id: str, decision: int | None, reason: str, server: str, connect_timeout_s: float, as_json: bool
) -> None:
    """Take a worker back among the others, whatever supervision has decided: its pause, its exclusion, its open breaker end.

    Its decisions, with their numbers, are in `merit worker show`.
    """

    async def work(client: AsyncClient) -> dict[str, Any]:
        fleet = client.operations.fleet
        if decision is None:
            await fleet.pardon_worker(worker_id, reason)
        else:
            await fleet.undo(worker_id, decision, reason)
        return await fleet.worker(worker_id)

    factor = ask(server, work, connect_timeout_s)["factor"]
    if as_json:
        write_json({"worker": worker_id, "pardoned": True, "undone": decision, "factor": factor})
    else:
        undone = f", decision {decision} undone" if decision else ""
        write_lines([f"{worker_id} pardoned{undone}; its factor is {factor:g}"])


@click.command("pin", cls=MeritCommand, example="merit worker pin w1 --factor 1.5", codes=_ENDS)
@click.argument("worker_id", metavar="WORKER")
@click.option("--factor", type=click.FloatRange(0.1, 2.0), help="From now on.  [default: as it is]")
@_reason_option
@server_option
@connect_option
@json_option
def pin_worker(
    worker_id: str, factor: float | None, reason: str, server: str, connect_timeout_s: float, as_json: bool
) -> None:
    """Fix a worker's factor: nothing more is decided about it until it is unpinned."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        await client.operations.fleet.pin_worker(worker_id, factor, reason)
        return await client.operations.fleet.worker(worker_id)

    fixed = ask(server, work, connect_timeout_s)["factor"]
    if as_json:
        write_json({"worker": worker_id, "pinned": True, "factor": fixed})
    else:
        write_lines([f"{worker_id} pinned at {fixed:g}"])


@click.command("unpin", cls=MeritCommand, example="merit worker unpin w1", codes=_ENDS)
@click.argument("worker_id", metavar="WORKER")
@_reason_option
@server_option
@connect_option
@json_option
def unpin_worker(worker_id: str, reason: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Let a worker's factor change again."""

    async def work(client: AsyncClient) -> None:
        await client.operations.fleet.unpin_worker(worker_id, reason)

    ask(server, work, connect_timeout_s)
    if as_json:
        write_json({"worker": worker_id, "pinned": False})
    else:
        write_lines([f"{worker_id} unpinned"])
