"""`merit task`: tasks that were submitted, by anybody."""

from __future__ import annotations

import asyncio
import shlex
from typing import Any, Final

import click
from msgspec.structs import replace

from merit.cli import output
from merit.cli.at import at_option
from merit.cli.client import ask, checked_id, refusal_view
from merit.cli.command import (
    MeritCommand,
    MeritGroup,
    again,
    connect_option,
    json_option,
    server_option,
    tenant_option,
    yes_option,
)
from merit.cli.following import NOT_RUNNING, explained, follow
from merit.cli.output import CliError, add_item, begin_list, note, write_json, write_lines
from merit.cli.present import now
from merit.cli.reviewed import whole
from merit.cli.submit import result_view, write_result
from merit.cli.task_filter import PAGE, ask_before, check_chosen, counted, filter_options, words
from merit.cli.task_story import story
from merit.cli.task_table import rows, terminal_width
from merit.cli.terminal_bar import seen
from merit.cli.values import Duration
from merit.model.tasks import TaskState
from merit.sdk.client import AsyncClient
from merit.sdk.operations import Where
from merit.sdk.views import Page

_LIVE: Final = tuple(state for state in TaskState if not state.final)


@click.group(cls=MeritGroup, example="merit task list --state pending")
def task() -> None:
    """List, show, follow and cancel tasks."""


@task.command(
    "list",
    cls=MeritCommand,
    example="""
    merit task list --state dead --limit 20
    merit task list --state pending --state running --capability render --label user=ada --since 2h
    merit task list --text 'no such file' --all --json
    """,
    codes=(output.FAILED, output.UNREACHABLE),
)
@filter_options(states=tuple(TaskState), tenant=True)
@click.option("--reviews", is_flag=True, help="Also those by which results of others are looked at.")
@click.option("--limit", type=click.IntRange(1, PAGE), default=50, show_default=True, help="So many at most.")
@click.option("--cursor", default="", help="Where to go on, as the page before it said.")
@click.option("--all", "whole", is_flag=True, help="All of them, however many.")
@click.option(
    "--at-least",
    type=click.IntRange(0),
    default=0,
    metavar="SEQUENCE",
    help="Wait until all that happened up to this event can be found; merit status says how far it is.",
)
@at_option
@server_option
@connect_option
@json_option
def list_tasks(
    where: Where,
    reviews: bool,
    limit: int,
    cursor: str,
    whole: bool,
    at_least: int,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Tasks, newest first: those that have not ended, and those that have, as long as they are remembered.

    --since and --until are about when they were submitted. With --json, sequence is the event up to which everything was
    known when the list began, and lacking says why tasks may be missing from any part of it.
    """
    where = replace(where, reviews=reviews)

    async def work(client: AsyncClient) -> tuple[int, Page]:
        count, at, lacking = 0, cursor, ""
        first: Page | None = None
        while True:
            wanted = PAGE if whole else limit - count
            page = await client.tasks(where=where, limit=wanted, cursor=at, at_least=at_least)
            _write_page(page, as_json=as_json, is_first=first is None if as_json else not count)
            first, lacking = first or page, lacking or page.lacking
            count, at = count + len(page.tasks), page.next_cursor
            # A page may be short, and not be the last: the search was long.
            if not at or (count >= limit and not whole):
                return count, Page([], at, first.sequence, lacking)

    count, listed = ask(server, work, connect_timeout_s)
    next_cursor = listed.next_cursor
    said = words(where)
    if listed.lacking:
        note(f"merit: {listed.lacking}")
    if as_json:
        write_json({"next_cursor": next_cursor, "sequence": listed.sequence, "lacking": listed.lacking})
    elif not count:
        note(f"merit: {'no more tasks' if cursor else 'no tasks'}{' with ' if said else ''}{shlex.join(said)}")
    elif next_cursor:
        more = again(["task", "list", *said, "--limit", str(limit), "--cursor", next_cursor], server)
        note(f"more: {shlex.join(more)}")


def _write_page(page: Page, *, as_json: bool, is_first: bool) -> None:
    if as_json:
        if is_first:
            begin_list("tasks")
        for view in page.tasks:
            add_item(view)
    elif page.tasks:
        lines = rows(page.tasks, terminal_width(), now())
        write_lines(lines if is_first else lines[1:])


@task.command("show", cls=MeritCommand, example="merit task show ID", codes=(output.FAILED, output.UNREACHABLE))
@click.argument("task_id", metavar="ID")
@at_option
@server_option
@connect_option
@json_option
def show_task(task_id: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Everything about one task: what was asked, every attempt, and why it stands where it stands."""
    checked_id(task_id)

    async def work(client: AsyncClient) -> dict[str, Any]:
        return await whole(client, task_id)

    view = ask(server, work, connect_timeout_s)
    if as_json:
        write_json(view)
    else:
        write_lines(story(view, server))


@task.command(
    "follow",
    cls=MeritCommand,
    example="merit task follow ID",
    codes=(output.FAILED, output.UNREACHABLE, output.TIMED_OUT),
)
@click.argument("task_id", metavar="ID")
@click.option(
    "--wait-timeout", "wait_s", type=Duration(), help="How long to follow at most; the task goes on after it."
)
@tenant_option
@server_option
@connect_option
@json_option
def follow_task(
    task_id: str, wait_s: float | None, tenant: str, server: str, connect_timeout_s: float, as_json: bool
) -> None:
    """Steps, progress and log lines of a task as they come, and at last its result. Exit code 1 if it has none."""
    checked_id(task_id)

    async def work(client: AsyncClient) -> dict[str, Any]:
        try:
            async with asyncio.timeout(wait_s):
                steps = follow(client.watch(task_id), as_json=as_json, aside=False)
                return result_view(await explained(client, task_id, steps, NOT_RUNNING))
        except TimeoutError:
            message = f"task {task_id} has not ended within {wait_s:g} s; it goes on"
            raise CliError("timeout", message, output.TIMED_OUT, id=task_id) from None

    answer = ask(server, work, connect_timeout_s, tenant=tenant)
    if as_json:
        write_json(answer)
    else:
        write_result(answer)
    if answer["state"] != TaskState.COMPLETED.name or answer["result"] is None:
        raise click.exceptions.Exit(output.FAILED)


@task.command(
    "cancel",
    cls=MeritCommand,
    example="""
    merit task cancel ID
    merit task cancel --capability render --state pending --since 2h
    """,
    codes=(output.FAILED, output.UNREACHABLE),
)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filter_options(states=_LIVE)
@click.option("--reason", default="", help="Is kept with the task.")
@yes_option
@tenant_option
@server_option
@connect_option
@json_option
def cancel_tasks(
    ids: tuple[str, ...],
    where: Where,
    reason: str,
    yes: bool,
    tenant: str,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Call tasks off: these IDs, or all that fit the options and have not ended. A running function is told.

    By options it is said first how many they are, and asked whether to go on. Exit code 1 if one could not be canceled
    (it has ended already, say).
    """
    check_chosen(ids, where)
    for one in ids:
        checked_id(one)
    if not ids:
        meant = replace(where, states=where.states or [state.name for state in _LIVE], tenant=tenant)
        _cancel_all(meant, reason, server, connect_timeout_s, confirmed=yes or as_json, as_json=as_json)
        return

    async def work(client: AsyncClient) -> list[dict[str, Any]]:
        return [refusal_view(refusal) for refusal in await client.cancel(ids, reason)]

    refused = ask(server, work, connect_timeout_s, tenant=tenant)
    bad = {one["id"] for one in refused}
    canceled = [one for one in dict.fromkeys(ids) if one not in bad]
    if as_json:
        write_json({"canceled": canceled, "refused": refused})
    else:
        write_lines(f"{one} canceled" for one in canceled)
        for refusal in refused:
            note(f"merit: {refusal['id']}: {refusal['message']}")
    if refused:
        raise click.exceptions.Exit(output.FAILED)


def _cancel_all(
    where: Where, reason: str, server: str, connect_timeout_s: float, *, confirmed: bool, as_json: bool
) -> None:
    if not confirmed:

        async def look(client: AsyncClient) -> int:
            return await counted(lambda cursor: client.tasks(where=where, limit=PAGE, cursor=cursor))

        ask_before(ask(server, look, connect_timeout_s), "task", "canceled")

    async def work(client: AsyncClient) -> int:
        done = 0
        # A portion at a time, so that it can be seen how far it is, and Ctrl-C ends it.
        async for count in client.operations.canceling(where, reason):
            done += count
            if not as_json and seen():
                note(f"merit: {done:,} canceled")
        return done

    count = ask(server, work, connect_timeout_s, tenant=where.tenant)
    if as_json:
        write_json({"canceled": count})
    else:
        write_lines([f"{count:,} canceled"])
