"""`merit explain`: why a task went to whom, or what it waits for; why something was decided about a worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import click

from merit.cli import output
from merit.cli.client import ask, checked_id
from merit.cli.command import MeritCommand, connect_option, json_option, server_option
from merit.cli.conduct import decision_story
from merit.cli.output import note, table, write_json, write_lines
from merit.sdk.client import AsyncClient

_SAY_S: Final = 2.0
_WORKERS_MAX: Final = 10_000


@click.command(
    cls=MeritCommand,
    example="""
    merit explain ID
    merit explain ID --attempt 1 --workers 1000
    merit explain 4711
    """,
    codes=(output.FAILED, output.UNREACHABLE),
)
@click.argument("about", metavar="ID|DECISION")
@click.option(
    "--attempt", type=click.IntRange(1), help="Which one.  [default: the last; of a task that waits, what it waits for]"
)
@click.option(
    "--workers",
    "workers_max",
    type=click.IntRange(1, _WORKERS_MAX),
    default=100,
    show_default=True,
    help="So many are told of at most.",
)
@server_option
@connect_option
@json_option
def explain(
    about: str, attempt: int | None, workers_max: int, server: str, connect_timeout_s: float, as_json: bool
) -> None:
    """Which workers were looked at for a task, why each was ruled out, and the figures of the rest.

    For a task that waits it is asked now. For one that was given to a worker the journal is replayed to just before that,
    and the rules are asked again: exit code 1 if they choose differently.

    A number is that of a decision about a worker, as `merit worker show` and the journal have it: what it went by, and what
    followed.
    """
    if about.isascii() and about.isdecimal():
        _explain_decision(int(about), server, connect_timeout_s, as_json=as_json)
        return
    checked_id(about)
    progress = _ReplayNotes()

    async def work(client: AsyncClient) -> dict[str, Any]:
        return await client.operations.fleet.explain(
            about, attempt=attempt or 0, workers_max=workers_max, progress=progress
        )

    view = ask(server, work, connect_timeout_s)
    if as_json:
        write_json(view)
    else:
        write_lines(_story(view))
    if view["chosen"] and not view["agrees"]:
        note(
            "merit: THE REPLAY DECIDES DIFFERENTLY: asked again, the rules do not choose the worker that the journal names. "
            "The journal was written by another version of Merit or of a strategy, or this is a defect: please report it"
        )
        raise click.exceptions.Exit(output.FAILED)


def _explain_decision(decision: int, server: str, connect_timeout_s: float, *, as_json: bool) -> None:
    async def work(client: AsyncClient) -> dict[str, Any]:
        return await client.operations.fleet.decision(decision)

    view = ask(server, work, connect_timeout_s)
    if as_json:
        write_json(view)
    else:
        write_lines(decision_story(view))


class _ReplayNotes:
    """Says on stderr how far the replay is, when it takes long."""

    def __init__(self) -> None:
        self._said_s = time.monotonic()

    def __call__(self, reached: int, last: int) -> None:
        if time.monotonic() - self._said_s >= _SAY_S:
            self._said_s = time.monotonic()
            note(f"merit: the journal is replayed: {reached:,} of {last:,} events")


def _story(view: dict[str, Any]) -> Iterator[str]:
    for name in ("task", "attempt", "capability", "demand", "strategy", "at", "chosen", "why"):
        if view[name]:
            yield f"{name:12}{view[name]}"
    if view["chosen"]:
        yield f"{'replay':12}{'decides the same' if view['agrees'] else 'DECIDES DIFFERENTLY'}"
    fitting = [ruling for ruling in view["workers"] if ruling["fits"]]
    others = [ruling for ruling in view["workers"] if not ruling["fits"]]
    if fitting:
        yield ""
        yield from _figures(fitting)
    if others:
        yield ""
        yield from table(("ruled out", "because it"), [[one["worker"], "; ".join(one["reasons"])] for one in others])
    if view["left_out"]:
        yield ""
        yield f"and {view['left_out']:,} more workers; see --workers"


def _figures(rulings: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for ruling in rulings for name in ruling["figures"]))
    columns = ("rank", "worker", *names, "but")
    rows = [
        [one["rank"], one["worker"], *(one["figures"].get(name) for name in names), "; ".join(one["reasons"])]
        for one in rulings
    ]
    return table(columns, rows) if any(row[-1] for row in rows) else table(columns[:-1], [row[:-1] for row in rows])
