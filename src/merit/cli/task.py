"""`merit task`: tasks that were submitted, by anybody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click
import msgspec

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import MeritCommand, connect_option, json_option, server_option
from merit.cli.output import CliError, note, table, write_json, write_lines
from merit.model.ids import is_task_id
from merit.model.tasks import TaskState
from merit.sdk.client import AsyncClient

_LIST_MAX: Final = 1_000
_CANCEL_MAX: Final = 1_000


@click.group()
def task() -> None:
    """List, show and cancel tasks."""


@task.command(
    "list",
    cls=MeritCommand,
    example="merit task list --state dead --limit 20",
    codes=(output.FAILED, output.UNREACHABLE),
)
@click.option(
    "--state",
    type=click.Choice([item.name.lower() for item in TaskState], case_sensitive=False),
    help="Only tasks in this state.",
)
@click.option("--capability", default="", help="Only tasks for this one.")
@click.option("--limit", type=click.IntRange(1, _LIST_MAX), default=50, show_default=True, help="So many at most.")
@click.option("--cursor", default="", help="Where to go on, as the page before it said.")
@server_option
@connect_option
@json_option
def list_tasks(
    state: str | None, capability: str, limit: int, cursor: str, server: str, connect_timeout_s: float, as_json: bool
) -> None:
    """Tasks, newest first."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        page = await client.tasks(state=state or "", capability=capability, limit=limit, cursor=cursor)
        return {"tasks": page.tasks, "next_cursor": page.next_cursor}

    answer = ask(server, work, connect_timeout_s)
    if as_json:
        write_json(answer)
        return
    columns = ("id", "capability", "state", "priority", "attempts", "worker", "submitted", "ended")
    write_lines(table(columns, [_row(view) for view in answer["tasks"]]))
    if answer["next_cursor"]:
        note(f"more: --cursor {answer['next_cursor']}")


@task.command("show", cls=MeritCommand, example="merit task show ID", codes=(output.FAILED, output.UNREACHABLE))
@click.argument("task_id", metavar="ID")
@server_option
@connect_option
@json_option
def show_task(task_id: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Everything about one task: what was asked, every attempt, and why it stands where it stands."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        return await client.task(_checked(task_id))

    view = ask(server, work, connect_timeout_s)
    if as_json:
        write_json(view)
    else:
        write_lines(_story(view))


@task.command(
    "cancel",
    cls=MeritCommand,
    example="merit task cancel ID",
    codes=(output.FAILED, output.UNREACHABLE),
)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", default="", help="Is kept with the task.")
@server_option
@connect_option
@json_option
def cancel_tasks(ids: tuple[str, ...], reason: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Call tasks off; a running function is told. Exit code 1 if one could not be (it has ended already, say)."""
    if len(ids) > _CANCEL_MAX:
        raise CliError("usage", f"{len(ids):,} ids; {_CANCEL_MAX:,} at most at a time", output.USAGE)

    async def work(client: AsyncClient) -> list[dict[str, Any]]:
        refusals = await client.cancel([_checked(one) for one in ids], reason)
        return [{"id": one.task, "kind": one.code, "field": one.field, "message": one.reason} for one in refusals]

    refused = ask(server, work, connect_timeout_s)
    bad = {one["id"] for one in refused}
    canceled = [one for one in dict.fromkeys(ids) if one not in bad]
    if as_json:
        write_json({"canceled": canceled, "refused": refused})
    else:
        write_lines(f"{one} canceled" for one in canceled)
        for one in refused:
            note(f"merit: {one['id']}: {one['message']}")
    if refused:
        raise click.exceptions.Exit(output.FAILED)


def _checked(task_id: str) -> str:
    if not is_task_id(task_id):
        raise CliError("invalid", f"{task_id!r} is no task id (a UUID version 7 in lower case)", output.USAGE)
    return task_id


def _row(view: dict[str, Any]) -> list[Any]:
    attempts = view["attempts"]
    worker = attempts[-1]["worker"] if attempts else None
    return [
        view["id"],
        view["capability"],
        view["state"],
        view["priority"],
        len(attempts),
        worker,
        view["submitted"],
        view["ended"],
    ]


def _story(view: dict[str, Any]) -> Iterator[str]:
    plain = ("id", "capability", "state", "why", "priority", "principal", "description", "submitted", "ended")
    for name in plain:
        if view[name]:
            yield f"{name:12}{view[name]}"
    if view["after"]:
        yield f"{'after':12}{', '.join(view['after'])}"
    yield f"{'limits':12}{view['run_timeout_s']:g} s a run, {view['attempts_max']} attempts"
    for name in ("parameters", "result"):
        if view[name] is not None:
            yield f"{name:12}{msgspec.json.encode(view[name]).decode()}"
    if view["error"]:
        yield f"{'error':12}({view['error']['kind']}) {view['error']['message']}"
    if view["attempts"]:
        yield ""
        columns = ("attempt", "worker", "state", "assigned", "started", "ended", "wall_s", "cpu_s", "error")
        yield from table(
            columns,
            [
                [
                    one["number"],
                    *(one[name] for name in columns[1:6]),
                    f"{one['wall_s']:.3f}",
                    f"{one['cpu_s']:.3f}",
                    one["error"]["message"] if one["error"] else None,
                ]
                for one in view["attempts"]
            ],
        )
        for one in view["attempts"]:
            detail = one["error"]["detail"] if one["error"] else ""
            if detail:
                yield ""
                yield f"attempt {one['number']}:"
                yield from (f"  {line}" for line in detail.rstrip().split("\n"))
