"""`merit dead`: tasks that failed for good, kept until somebody tries them again or lets them go."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from typing import Any, Final

import click
from msgspec.structs import replace

from merit.cli import output
from merit.cli.client import ask, checked_id, refusal_view
from merit.cli.command import (
    Function,
    MeritCommand,
    MeritGroup,
    again,
    connect_option,
    json_option,
    server_option,
    tenant_option,
    yes_option,
)
from merit.cli.output import CliError, note, printable, table, write_json, write_lines
from merit.cli.reviewed import whole
from merit.cli.task_filter import PAGE, ask_before, check_chosen, counted, filter_options, words
from merit.cli.task_story import story
from merit.cli.task_table import cut, terminal_width
from merit.model.tasks import TaskState
from merit.sdk.client import AsyncClient
from merit.sdk.operations import Where
from merit.sdk.views import Page

_ENDS: Final = (output.FAILED, output.UNREACHABLE)
_REASON_LENGTH_MIN: Final = 20


@click.group(cls=MeritGroup, example="merit dead list")
def dead() -> None:
    """Tasks that failed for good: look, try again, purge."""


@dead.command(
    "list",
    cls=MeritCommand,
    example="""
    merit dead list
    merit dead list --capability render --text 'out of memory' --since 1d
    """,
    codes=_ENDS,
)
@filter_options(tenant=True)
@click.option("--limit", type=click.IntRange(1, PAGE), default=50, show_default=True, help="So many at most.")
@click.option("--cursor", default="", help="Where to go on, as the page before it said.")
@server_option
@connect_option
@json_option
def list_dead(where: Where, limit: int, cursor: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Dead letters, those that died last first, with the reason of the last attempt."""

    async def work(client: AsyncClient) -> Page:
        return await client.operations.dead(where, limit=limit, cursor=cursor)

    page = ask(server, work, connect_timeout_s)
    said = words(where)
    if as_json:
        write_json({"tasks": page.tasks, "next_cursor": page.next_cursor})
    elif page.tasks:
        write_lines(_rows(page.tasks, terminal_width()))
        if page.next_cursor:
            more = again(["dead", "list", *said, "--limit", str(limit), "--cursor", page.next_cursor], server)
            note(f"more: {shlex.join(more)}")
    else:
        note(f"merit: no {'more ' if cursor else ''}dead letters{' with ' if said else ''}{shlex.join(said)}")


def _rows(views: list[dict[str, Any]], width: int | None) -> list[str]:
    columns = ("id", "capability", "tenant", "died", "attempts", "reason")
    rows = [
        [
            *(view[name] for name in ("id", "capability", "tenant", "ended")),
            len(view["attempts"]),
            printable(_reason(view)).replace("\t", " "),
        ]
        for view in views
    ]
    if width is not None:
        # Only the reason is shortened: what is before it is for the next command.
        before = max(map(len, table(columns[:-1], [row[:-1] for row in rows]))) + len("  ")
        for row in rows:
            row[-1] = cut(row[-1], max(_REASON_LENGTH_MIN, width - before))
    return table(columns, rows)


def _reason(view: dict[str, Any]) -> str:
    """Of its last attempt, or why it died without one."""
    errors = [attempt["error"] for attempt in view["attempts"] if attempt["error"]]
    error = errors[-1] if errors else view["error"]
    return f"({error['kind']}) {error['message']}" if error else ""


@dead.command("show", cls=MeritCommand, example="merit dead show ID", codes=_ENDS)
@click.argument("task_id", metavar="ID")
@server_option
@connect_option
@json_option
def show_dead(task_id: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """One task that failed for good, with the reasons of all its attempts."""
    checked_id(task_id)

    async def work(client: AsyncClient) -> dict[str, Any]:
        view = await whole(client, task_id)
        if view["state"] != TaskState.DEAD.name:
            message = f"task {task_id} is {view['state']}, not dead: merit task show {task_id}"
            raise CliError("not_dead", message, output.FAILED, id=task_id)
        return view

    view = ask(server, work, connect_timeout_s)
    if as_json:
        write_json(view)
    else:
        write_lines(story(view, server))


def _chosen_ones(function: Function) -> Function:
    """What an order about dead letters takes: ids, or which ones by their properties."""
    for option in (
        json_option,
        connect_option,
        server_option,
        tenant_option,
        yes_option,
        click.option("--all", "whole", is_flag=True, help="All of the tenant's."),
        filter_options(),
        click.argument("ids", metavar="[ID]...", nargs=-1),
    ):
        function = option(function)
    return function


@dead.command(
    "retry",
    cls=MeritCommand,
    example="""
    merit dead retry ID
    merit dead retry --capability render --text 'connection refused' --yes
    """,
    codes=_ENDS,
)
@_chosen_ones
def retry_dead(
    ids: tuple[str, ...],
    where: Where,
    whole: bool,
    yes: bool,
    tenant: str,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Try dead letters again, each by a new task that names it as its origin: these IDs, or all that fit the options.

    By options it is said first how many they are, and asked whether to go on. Exit code 1 if one could not be tried
    again.
    """
    meant = _meant(ids, where, whole, tenant)
    if meant is not None and not (yes or as_json):
        _ask_first(meant, "tried again", server, connect_timeout_s)

    async def work(client: AsyncClient) -> dict[str, Any]:
        retried = await client.operations.retry_dead(ids, meant)
        return {
            "retried": [{"dead": old, "task": new} for old, new in retried.pairs],
            "refused": [refusal_view(refusal) for refusal in retried.refusals],
        }

    _answer(ask(server, work, connect_timeout_s, tenant=tenant), _retried_line, "retried", as_json=as_json)


def _retried_line(pair: dict[str, str]) -> str:
    return f"{pair['dead']} is tried again as {pair['task']}"


@dead.command(
    "purge",
    cls=MeritCommand,
    example="""
    merit dead purge ID
    merit dead purge --capability render --until 30d --yes
    """,
    codes=_ENDS,
)
@_chosen_ones
def purge_dead(
    ids: tuple[str, ...],
    where: Where,
    whole: bool,
    yes: bool,
    tenant: str,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Let dead letters go: these IDs, or all that fit the options. They stay in the journal, as tasks that are dead.

    By options it is said first how many they are, and asked whether to go on. Exit code 1 if one could not be purged.
    """
    meant = _meant(ids, where, whole, tenant)
    if meant is not None and not (yes or as_json):
        _ask_first(meant, "purged", server, connect_timeout_s)

    async def work(client: AsyncClient) -> dict[str, Any]:
        purged = await client.operations.purge_dead(ids, meant)
        return {"purged": purged.tasks, "refused": [refusal_view(refusal) for refusal in purged.refusals]}

    _answer(ask(server, work, connect_timeout_s, tenant=tenant), "{} purged".format, "purged", as_json=as_json)


def _meant(ids: tuple[str, ...], where: Where, whole: bool, tenant: str) -> Where | None:
    """What the filter is, if not IDs are given; of the tenant that gives the order."""
    check_chosen(ids, where, all_of_them=whole)
    for one in ids:
        checked_id(one)
    return None if ids else replace(where, states=[TaskState.DEAD.name], tenant=tenant)


def _ask_first(where: Where, done: str, server: str, connect_timeout_s: float) -> None:
    async def look(client: AsyncClient) -> int:
        def page(cursor: str) -> Awaitable[Page]:
            return client.operations.dead(where, limit=PAGE, cursor=cursor)

        return await counted(page)

    ask_before(ask(server, look, connect_timeout_s), "dead letter", done)


def _answer(answer: dict[str, Any], line: Callable[[Any], str], done: str, *, as_json: bool) -> None:
    if as_json:
        write_json(answer)
    else:
        write_lines(line(item) for item in answer[done])
        for refused in answer["refused"]:
            note(f"merit: {refused['id']}: {refused['message']}")
        if not answer[done] and not answer["refused"]:
            note("merit: no dead letter fits")
    if answer["refused"]:
        raise click.exceptions.Exit(output.FAILED)
