"""`merit task`: tasks that were submitted, by anybody."""

from __future__ import annotations

import shlex
import shutil
import sys
from datetime import UTC, datetime
from typing import Any, Final

import click

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import DEFAULT_SERVER, MeritCommand, MeritGroup, connect_option, json_option, server_option
from merit.cli.output import CliError, note, table, write_json, write_lines
from merit.cli.task_story import story
from merit.model.ids import is_task_id
from merit.model.tasks import TaskState
from merit.sdk.client import AsyncClient

_LIST_MAX: Final = 1_000
_CANCEL_MAX: Final = 1_000
_LEFT_OUT: Final = ("priority", "attempts", "worker")
"""Columns that a narrow terminal does without, in this order; `merit task show` has them."""


@click.group(cls=MeritGroup, example="merit task list --state pending")
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
    filters = {"--state": state, "--capability": capability}
    given = [word for name, value in filters.items() if value for word in (name, value)]
    if answer["tasks"]:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        write_lines(rows(answer["tasks"], columns, datetime.now(UTC)))
    else:
        beyond = "no more tasks" if cursor else "no tasks"
        note(f"merit: {beyond}{' with ' if given else ''}{shlex.join(given)}")
    if answer["next_cursor"]:
        given += ["--server", server] if server != DEFAULT_SERVER else []
        words = ["merit", "task", "list", *given, "--limit", str(limit), "--cursor", answer["next_cursor"]]
        note(f"more: {shlex.join(words)}")


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
        write_lines(story(view, server))


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


def rows(views: list[dict[str, Any]], width: int | None, now: datetime) -> list[str]:
    """Tasks as a table.

    Args:
        views: the tasks, as ``AsyncClient.tasks`` gives them; at least one.
        width: of the terminal in characters: what does not fit is shortened, left out or, at last, cut off, since a
            row that wraps cannot be read. None: there is none, everything is shown.
        now: times of its day (UTC) are shortened to the time of day, others to the day.
    """
    names = ["id", "capability", "state", "priority", "attempts", "worker", "submitted", "ended"]
    cells = [_cells(view) for view in views]
    lines = _table(names, cells)
    if width is None or _widest(lines) <= width:
        return lines
    names.remove("ended")
    for row in cells:
        row["submitted"] = _shortened(row["submitted"], now)
    for name in _LEFT_OUT:
        lines = _table(names, cells)
        if _widest(lines) <= width:
            return lines
        names.remove(name)
    lines = _table(names, cells)
    over = _widest(lines) - width
    if over > 0:
        room = max(len("capability"), max(len(row["capability"]) for row in cells) - over)
        for row in cells:
            row["capability"] = _cut(row["capability"], room)
        lines = [_cut(line, width) for line in _table(names, cells)]
    return lines


def _cells(view: dict[str, Any]) -> dict[str, Any]:
    attempts = view["attempts"]
    kept = ("id", "capability", "state", "priority", "submitted", "ended")
    return {
        **{name: view[name] for name in kept},
        "attempts": len(attempts),
        "worker": attempts[-1]["worker"] if attempts else None,
    }


def _table(names: list[str], cells: list[dict[str, Any]]) -> list[str]:
    return table(names, [[row[name] for name in names] for row in cells])


def _widest(lines: list[str]) -> int:
    return max(map(len, lines))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _shortened(time: str, now: datetime) -> str:
    """A time in ISO 8601, UTC: today's as ``HH:MM:SS``, another day's as ``YYYY-MM-DD``."""
    day, _, rest = time.partition("T")
    return rest[: len("HH:MM:SS")] if day == now.date().isoformat() else day
