"""`merit schedule`: tasks that come again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import click

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import MeritCommand, MeritGroup, connect_option, json_option, server_option, tenant_option
from merit.cli.output import CliError, note, table, write_json, write_lines
from merit.cli.parameters import parameter_words, parameters_of, with_hint
from merit.cli.task_options import REPEATED, task_options
from merit.cli.task_story import content, terms_lines
from merit.model.schedules import Missed, Overlap
from merit.sdk.client import AsyncClient
from merit.sdk.options import OptionArguments, TaskRequest
from merit.sdk.results import Refused

_ENDS: Final = (output.FAILED, output.UNREACHABLE)


@click.group(cls=MeritGroup, example="merit schedule list")
def schedule() -> None:
    """Tasks that come again and again, by cron expressions in time zones."""


@schedule.command(
    "add",
    cls=MeritCommand,
    example="""
    merit schedule add nightly '0 3 * * *' report day=yesterday --zone Europe/Berlin
    merit schedule add poll '*/10 * * * * *' poll_feed url=https://example.org/feed --overlap skip --missed skip
    """,
    codes=_ENDS,
)
@click.argument("name")
@click.argument("cron")
@parameter_words
@task_options(REPEATED)
@click.option("--zone", default="UTC", show_default=True, help="Time zone in which the times are meant.")
@click.option(
    "--missed",
    type=click.Choice([item.name.lower() for item in Missed], case_sensitive=False),
    default="one",
    show_default=True,
    help="What becomes of times that passed while no control plane was there: no task, one for all, or all of them.",
)
@click.option(
    "--overlap",
    type=click.Choice([item.name.lower() for item in Overlap], case_sensitive=False),
    default="skip",
    show_default=True,
    help="When the task before has not ended: skip this time, allow both, or cancel the one before.",
)
@click.option("--paused", is_flag=True, help="Make no tasks until it is resumed.")
@tenant_option
@server_option
@connect_option
@json_option
def add_schedule(
    name: str,
    cron: str,
    capability: str,
    values: tuple[str, ...],
    params: str | None,
    options: OptionArguments,
    zone: str,
    missed: str,
    overlap: str,
    paused: bool,
    tenant: str,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Make a task by a schedule: new, or in place of the one of this NAME.

    CRON has five fields as in crontab (minute, hour, day of the month, month, day of the week), or six with seconds first.
    """
    request = TaskRequest(capability=capability, parameters=parameters_of(params, values), **options)

    async def work(client: AsyncClient) -> list[str]:
        try:
            return await client.operations.set_schedule(
                name, cron, request, zone=zone, missed=missed, overlap=overlap, paused=paused
            )
        except Refused as error:
            raise with_hint(error, values) from error

    due = ask(server, work, connect_timeout_s, tenant=tenant)
    if as_json:
        write_json({"name": name, "next": due, "paused": paused})
    else:
        write_lines([f"{name}: {'paused' if paused else f'next at {due[0]}'}"])


@schedule.command("list", cls=MeritCommand, example="merit schedule list", codes=_ENDS)
@server_option
@connect_option
@json_option
def list_schedules(server: str, connect_timeout_s: float, as_json: bool) -> None:
    """All schedules, and when they are due next."""

    async def work(client: AsyncClient) -> list[dict[str, Any]]:
        return await client.operations.schedules()

    schedules = ask(server, work, connect_timeout_s)
    if as_json:
        write_json({"schedules": schedules})
    elif schedules:
        columns = ("name", "capability", "cron", "zone", "next", "made", "passed over", "last task")
        rows = [
            [
                *(view[name] for name in columns[:4]),
                _next(view),
                view["made"],
                view["passed_over"],
                view["last_task"],
            ]
            for view in schedules
        ]
        write_lines(table(columns, rows))
    else:
        note("merit: no schedules; make one with: merit schedule add")


@schedule.command("show", cls=MeritCommand, example="merit schedule show nightly", codes=_ENDS)
@click.argument("name")
@server_option
@connect_option
@json_option
def show_schedule(name: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Everything about one schedule."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        for view in await client.operations.schedules():
            if view["name"] == name:
                return view
        message = f"there is no schedule {name}; all of them: merit schedule list"
        raise CliError("not_found", message, output.FAILED, field="name")

    view = ask(server, work, connect_timeout_s)
    if as_json:
        write_json(view)
    else:
        write_lines(_story(view))


def _next(view: dict[str, Any]) -> str | None:
    return "paused" if view["paused"] else next(iter(view["next"]), None)


def _story(view: dict[str, Any]) -> Iterator[str]:
    for name in ("name", "tenant", "cron", "zone"):
        yield f"{name:12}{view[name]}"
    yield f"{'missed':12}{view['missed'].lower()}, overlap {view['overlap'].lower()}"
    yield f"{'next':12}{'paused' if view['paused'] else ', '.join(view['next'])}"
    yield f"{'made':12}{view['made']:,} tasks; {view['passed_over']:,} times passed over"
    if view["last_task"]:
        yield f"{'last task':12}{view['last_task']}"
    for name in ("capability", "description"):
        if view[name]:
            yield f"{name:12}{view[name]}"
    yield f"{'parameters':12}{content(view['parameters'])}"
    yield f"{'priority':12}{view['priority']}"
    yield from terms_lines(view)


def _order(
    name: str,
    summary: str,
    example: str,
    carry_out: Callable[[AsyncClient, str], Awaitable[dict[str, Any]]],
    line: Callable[[dict[str, Any]], str],
) -> None:
    """A command that has a schedule do something.

    Args:
        name: of the command.
        summary: for its help.
        example: for its help.
        carry_out: gives the answer for programs, beside the name.
        line: the answer for people.
    """

    @schedule.command(name, cls=MeritCommand, help=summary, example=example, codes=_ENDS)
    @click.argument("name")
    @tenant_option
    @server_option
    @connect_option
    @json_option
    def order(name: str, tenant: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
        async def work(client: AsyncClient) -> dict[str, Any]:
            return await carry_out(client, name)

        answer = {"name": name, **ask(server, work, connect_timeout_s, tenant=tenant)}
        if as_json:
            write_json(answer)
        else:
            write_lines([line(answer)])


async def _pause(client: AsyncClient, name: str) -> dict[str, Any]:
    await client.operations.pause_schedule(name)
    return {"paused": True}


async def _resume(client: AsyncClient, name: str) -> dict[str, Any]:
    return {"paused": False, "next": await client.operations.resume_schedule(name)}


async def _remove(client: AsyncClient, name: str) -> dict[str, Any]:
    await client.operations.remove_schedule(name)
    return {"removed": True}


async def _run(client: AsyncClient, name: str) -> dict[str, Any]:
    return {"task": await client.operations.run_schedule(name)}


_order(
    "pause",
    "No more tasks for now. Times that pass meanwhile are not made up for.",
    "merit schedule pause nightly",
    _pause,
    lambda answer: f"{answer['name']} paused",
)
_order(
    "resume",
    "Make tasks again, from now on.",
    "merit schedule resume nightly",
    _resume,
    lambda answer: f"{answer['name']}: next at {answer['next'][0]}",
)
_order(
    "remove",
    "Remove a schedule; the tasks that it has made go on.",
    "merit schedule remove nightly",
    _remove,
    lambda answer: f"{answer['name']} removed",
)
_order(
    "run",
    "Make the task of a schedule now, beside its times; its id. The overlap policy holds.",
    "merit schedule run nightly",
    _run,
    lambda answer: answer["task"],
)
