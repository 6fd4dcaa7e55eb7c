"""`merit status`: the control plane and its workers in a few numbers."""

from __future__ import annotations

from typing import Any, Final

import click

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import MeritCommand, connect_option, json_option, server_option
from merit.cli.output import table, write_json, write_lines
from merit.cli.present import visited
from merit.sdk.client import AsyncClient

_OF_NOW: Final = (
    "store",
    "journal_bytes",
    "journal_first",
    "snapshot",
    "follower",
    "follower_lag_events",
    "follower_lag_s",
    "started",
    "alarms",
)
"""What is told of the machinery, which stands in no journal."""
_IF_ANY: Final = ("workers_punished", "workers_paused", "breakers_open")


@click.command(cls=MeritCommand, example="merit status --server 127.0.0.1:50051", codes=(output.UNREACHABLE,))
@server_option
@connect_option
@json_option
def status(server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Show the control plane and its workers.

    With --json the numbers of the control plane, and the workers under "fleet". Of the past (merit at) only what the
    journal tells.
    """

    async def work(client: AsyncClient) -> dict[str, Any]:
        return {**await client.status(), "fleet": await client.workers()}

    answer = ask(server, work, connect_timeout_s)
    if visited() is not None:
        answer = {name: value for name, value in answer.items() if name not in _OF_NOW}
    if as_json:
        write_json(answer)
        return
    fleet, alarms = answer.pop("fleet"), answer.pop("alarms", ())
    answer = {name: value for name, value in answer.items() if value or name not in _IF_ANY}
    width = max(len(name) for name in answer)
    write_lines(
        f"{name.replace('_', ' '):{width}}  {format(value, ',') if isinstance(value, int) else value}"
        for name, value in answer.items()
    )
    columns = ("id", "state", "attempts", "concurrency", "joined", "capabilities")
    rows = [[*(row[name] for name in columns[:-1]), ", ".join(row["capabilities"])] for row in fleet]
    if rows:
        write_lines(["", *table(("worker", *columns[1:]), rows)])
    if visited() is not None:
        write_lines(["", f"not known of then: {', '.join(_OF_NOW).replace('_', ' ')}"])
    if alarms:
        write_lines(["", *(f"ALARM: {alarm}" for alarm in alarms)])
