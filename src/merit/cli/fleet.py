"""`merit worker list`, `show`, `watch`, …: who works, how they are, and what an operator has them do."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Final, TypeVar

import click

from merit.cli import conduct, output, present
from merit.cli.at import at_option
from merit.cli.client import ask
from merit.cli.command import MeritCommand, again, connect_option, json_option, server_option, yes_option
from merit.cli.output import CliError, add_item, begin_list, note, table, write_json, write_lines
from merit.cli.task_filter import PAGE
from merit.cli.task_table import cut
from merit.cli.values import Duration, Moment, span
from merit.core.standing import Standing
from merit.sdk.amounts import quantity
from merit.sdk.client import AsyncClient
from merit.sdk.fleet_operations import WorkerPage, WorkerWhere

Function = TypeVar("Function", bound=Callable[..., Any])

_ENDS: Final = (output.FAILED, output.UNREACHABLE)
WORDS: Final = ("RESET", "RETRAIN", "UPDATE_CONFIG", "STOP")
_OFFERS_LENGTH_MAX: Final = 40


_FILTER: Final = (
    click.option("--capability", default="", help="Only workers that offer this one."),
    click.option("--versions", metavar="RANGE", default="", help="… in one of these, such as '>=1.2,<2'."),
    click.option(
        "--tag", "tags", multiple=True, help="Only with this tag, of theirs or of the offer; may be repeated."
    ),
    click.option(
        "--state",
        "states",
        type=click.Choice([standing.name.lower() for standing in Standing], case_sensitive=False),
        multiple=True,
        help="Only in this; may be repeated.  [default: all but gone]",
    ),
    click.option("--tenant", default="", help="Only those that take its tasks."),
    click.option("--name", default="", help="Only those whose name begins so."),
)
_GONE: Final = (
    click.option("--gone", is_flag=True, help="Those that are gone, as long as they are remembered: --state gone."),
    click.option(
        "--left-since", "left_from", type=Moment(-1), help="Only gone ones that left then or later, such as 2h."
    ),
    click.option("--left-until", "left_to", type=Moment(-1), help="Only gone ones that left before."),
)


def _filter_options(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Which workers, together as the argument ``where`` of the command."""

    def decorate(function: Function) -> Function:
        @wraps(function)
        def command(**given: Any) -> Any:
            if given.pop("gone", False):
                given["states"] = (*given["states"], "gone")
            chosen = {name: given.pop(name) for name in WorkerWhere.__struct_fields__ if name in given}
            return function(where=WorkerWhere(**chosen), **given)

        decorated: Any = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]  # what click.option gives back is the function that it was given

    return decorate


def _words(where: WorkerWhere) -> list[str]:
    """The filter as it would be given on the command line."""
    texts = {"--capability": where.capability, "--versions": where.versions, "--tenant": where.tenant}
    texts |= {"--name": where.name}
    moments = {"--left-since": where.left_from, "--left-until": where.left_to}
    texts |= {option: moment.isoformat() for option, moment in moments.items() if moment}
    said = [word for option, text in texts.items() if text for word in (option, text)]
    said += [word for tag in where.tags for word in ("--tag", tag)]
    return said + [word for state in where.states for word in ("--state", state)]


@click.command(
    "list",
    cls=MeritCommand,
    example="""
    merit worker list
    merit worker list --capability render --versions '>=1.2,<2' --state idle --state busy
    merit worker list --gone --capability render --left-since 7d
    """,
    codes=_ENDS,
)
@_filter_options(*_FILTER, *_GONE)
@click.option("--limit", type=click.IntRange(1), help="So many at most.  [default: all]")
@click.option("--cursor", default="", help="Where to go on, as the page before it said.")
@at_option
@server_option
@connect_option
@json_option
def list_worker(
    where: WorkerWhere, limit: int | None, cursor: str, server: str, connect_timeout_s: float, as_json: bool
) -> None:
    """The workers of the fleet: how they are, what they offer, what they have and have done."""

    async def work(client: AsyncClient) -> WorkerPage:
        workers: list[dict[str, Any]] = []
        lacking, at = "", cursor
        while True:
            wanted = PAGE if limit is None else min(limit - len(workers), PAGE)
            page = await client.operations.fleet.worker_page(where, limit=wanted, cursor=at)
            workers += page.workers
            lacking, at = lacking or page.lacking, page.next_cursor
            if not at or len(workers) == limit:
                return WorkerPage(workers, at, lacking)

    found = ask(server, work, connect_timeout_s)
    if found.lacking:
        note(f"merit: {found.lacking}")
    workers = [present.then(view, "room") for view in found.workers]
    if as_json:
        write_json({"workers": workers, "next_cursor": found.next_cursor, "lacking": found.lacking})
    elif workers:
        write_lines(_table(workers))
    else:
        said = shlex.join(_words(where))
        note(f"merit: no such workers{': ' if said else ''}{said}; start one with: merit worker MODULE")
    if found.next_cursor and not as_json:
        more = again(["worker", "list", *_words(where), "--limit", str(limit), "--cursor", found.next_cursor], server)
        note(f"more: {shlex.join(more)}")


_SHOWN: Final[Mapping[str, Callable[[dict[str, Any]], object]]] = {
    "room": lambda view: present.shown(view["room"]),
    "score": lambda view: conduct.points(view["score"]),
    "factor": lambda view: None if view["factor"] is None else f"{view['factor']:g}",
    "reputation": lambda view: conduct.reputation(view["reputation"]),
    "special": conduct.special,
}


def _table(workers: list[dict[str, Any]]) -> list[str]:
    columns = {"attempts": "attempts", "concurrency": "at once", "room": "room"}
    columns |= {"completed": "completed", "failed": "failed"}
    columns |= {"score": "score", "factor": "factor", "reputation": "reputation"}
    columns |= {"special": "special"} if any(map(conduct.special, workers)) else {}
    columns |= {"left": "left"} if any(view["left"] for view in workers) else {}
    columns |= {"reason": "reason"}
    rows = [
        [
            *(view[name] for name in ("id", "state", "contract")),
            cut(_offers(view), _OFFERS_LENGTH_MAX),
            *(_SHOWN[name](view) if name in _SHOWN else view[name] for name in columns),
        ]
        for view in workers
    ]
    return table(("worker", "state", "contract", "offers", *columns.values()), rows)


@click.command("show", cls=MeritCommand, example="merit worker show w1", codes=_ENDS)
@click.argument("worker_id", metavar="WORKER")
@at_option
@server_option
@connect_option
@json_option
def show_worker(worker_id: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Everything about one worker: what it is, what it offers and how fast, how it stands and why, what it has in hand."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        return await client.operations.fleet.worker(worker_id)

    view = present.then(ask(server, work, connect_timeout_s), "room")
    if as_json:
        write_json(view)
    else:
        write_lines(_story(view))


def _story(view: dict[str, Any]) -> Iterator[str]:
    for name, heading in (("id", "worker"), *((name, name) for name in ("state", "reason", "contract", "address"))):
        if view[name]:
            yield f"{heading:12}{view[name]}"
    for name in ("first", "joined", "seen", "left"):
        if view[name]:
            yield f"{name:12}{view[name]}{', lost' if name == 'left' and view['lost'] else ''}"
    for name in ("tags", "tenants", "words"):
        if view[name]:
            yield f"{name:12}{', '.join(view[name])}"
    if view["capacity"]:
        used = view["in_use"]
        shown = (
            f"{name} {quantity(used.get(name, 0))} of {quantity(amount)}" for name, amount in view["capacity"].items()
        )
        yield f"{'in use':12}{', '.join(shown)}"
    if not view["left"]:
        room = "not known" if view["room"] is None else f"for {view['room']:,} more"
        yield f"{'attempts':12}{view['attempts']:,} of {view['concurrency']:,} at once; room {room}"
    if view["completed"] is not None:
        yield f"{'done':12}{view['completed']:,} completed, {view['failed']:,} failed"
    if view["capabilities"]:
        yield ""
        columns = ("offers", "version", "takes", "measured", "reputation", "cost", "likes it", "needs")
        yield from table(columns, [_offer_row(offer) for offer in view["capabilities"]])
    if view["factor"] is not None:
        yield ""
        yield from conduct.standing_story(view)
    if view["tasks"]:
        yield ""
        yield f"{'tasks':12}{view['tasks'][0]}"
        yield from (f"{'':12}{task}" for task in view["tasks"][1:])


def _offer_row(offer: dict[str, Any]) -> list[Any]:
    needs = [f"{name} {quantity(amount)}" for name, amount in offer["resources"].items()]
    needs += [f"{offer['concurrency_max']} at once at most"] if offer["concurrency_max"] else []
    return [
        offer["name"],
        offer["version"],
        span(offer["took_s"]) if offer["took_s"] is not None else None,
        offer["measured"],
        conduct.reputation(offer["reputation"]),
        f"{offer['cost']:g}" if offer["cost"] else None,
        f"{offer['preference']:g}",
        ", ".join(needs),
    ]


def _offers(view: dict[str, Any]) -> str:
    return " ".join(
        f"{one['name']}@{one['version']}" if one["version"] else one["name"] for one in view["capabilities"]
    )


@click.command(
    "watch",
    cls=MeritCommand,
    example="""
    merit worker watch --capability render
    merit worker watch --for 10s --json
    """,
    codes=_ENDS,
)
@_filter_options(*_FILTER)
@click.option("--for", "for_s", type=Duration(), help="How long to watch.  [default: until Ctrl-C]")
@server_option
@connect_option
@json_option
def watch_worker(where: WorkerWhere, for_s: float | None, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """All workers that fit, and then a line for each in which something has changed.

    A worker that changes faster than it is read is told of once, as it is by then.
    """
    tell = _ChangeLines(as_json=as_json)

    async def work(client: AsyncClient) -> None:
        async with aclosing(client.operations.fleet.watch_workers(where)) as changes:
            async for change in changes:
                for view in change.workers:
                    tell(view)
                for worker_id in change.left:
                    tell({"id": worker_id, "state": None})

    async def watch(client: AsyncClient) -> None:
        try:
            async with asyncio.timeout(for_s):
                await work(client)
        except TimeoutError:
            return

    if as_json:
        begin_list("changes")
    ask(server, watch, connect_timeout_s)
    if as_json:
        write_json({"watched_s": for_s})


class _ChangeLines:
    """A line for each change; for people not for one that their line does not show."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._said: dict[str, str] = {}

    def __call__(self, view: dict[str, Any]) -> None:
        if self._as_json:
            add_item({"time": datetime.now(UTC), **view})
            return
        line = f"{view['state'] or '-':11}  {view['id']}"
        if view["state"]:
            counts = ("attempts", "concurrency", "completed", "failed")
            line += "  {:,} of {:,}, {:,} done, {:,} failed".format(*(view[name] for name in counts))
            line += f": {view['reason']}" if view["reason"] else ""
        if self._said.get(view["id"]) != line:
            self._said[view["id"]] = line
            write_lines([f"{_clock()}  {line}"])


def _clock() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@click.command("pause", cls=MeritCommand, example="merit worker pause w1 --reason 'its disk is full'", codes=_ENDS)
@click.argument("worker_id", metavar="WORKER")
@click.option("--reason", default="", help="Is kept and shown with the worker.")
@server_option
@connect_option
@json_option
def pause_worker(worker_id: str, reason: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Give a worker nothing more until it is resumed, however often it comes back. It finishes what it holds."""
    _order(server, connect_timeout_s, lambda client: client.operations.fleet.pause_worker(worker_id, reason))
    _say({"worker": worker_id, "paused": True, "reason": reason}, f"{worker_id} paused", as_json=as_json)


@click.command("resume", cls=MeritCommand, example="merit worker resume w1", codes=_ENDS)
@click.argument("worker_id", metavar="WORKER")
@server_option
@connect_option
@json_option
def resume_worker(worker_id: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Give a worker tasks again, or let one that was removed join again."""
    _order(server, connect_timeout_s, lambda client: client.operations.fleet.resume_worker(worker_id))
    _say({"worker": worker_id, "paused": False}, f"{worker_id} resumed", as_json=as_json)


@click.command("drain", cls=MeritCommand, example="merit worker drain w1", codes=_ENDS)
@click.argument("worker_id", metavar="WORKER")
@server_option
@connect_option
@json_option
def drain_worker(worker_id: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Let a worker finish what it holds, and leave. It may come back."""
    _order(server, connect_timeout_s, lambda client: client.operations.fleet.drain_worker(worker_id))
    _say({"worker": worker_id, "draining": True}, f"{worker_id} drains", as_json=as_json)


@click.command("remove", cls=MeritCommand, example="merit worker remove w1 --reason 'it is sold' --yes", codes=_ENDS)
@click.argument("worker_id", metavar="WORKER")
@click.option("--reason", default="", help="Is kept and shown with the worker.")
@yes_option
@server_option
@connect_option
@json_option
def remove_worker(worker_id: str, reason: str, yes: bool, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Take a worker out at once: what it holds goes elsewhere, and it may not join until it is resumed."""
    if not (yes or as_json):
        question = f"{worker_id} will be taken out, and what it holds given to others"
        if not sys.stdin.isatty():
            raise CliError("usage", f"{question}; nothing was done: say it again with --yes", output.USAGE)
        if not click.confirm(f"merit: {question}. Go on?", err=True):
            raise CliError("declined", "nothing was done", output.FAILED)
    _order(server, connect_timeout_s, lambda client: client.operations.fleet.remove_worker(worker_id, reason))
    _say({"worker": worker_id, "removed": True, "reason": reason}, f"{worker_id} removed", as_json=as_json)


retire_worker = remove_worker


@click.command("tell", cls=MeritCommand, example="merit worker tell w1 RESET", codes=_ENDS)
@click.argument("worker_id", metavar="WORKER")
@click.argument("word", type=click.Choice(WORDS, case_sensitive=False), metavar="WORD")
@server_option
@connect_option
@json_option
def tell_worker(worker_id: str, word: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Have a worker told a command: RESET, RETRAIN, UPDATE_CONFIG or STOP. One that is away is told when it comes back.

    STOP is obeyed by every worker of Merit's SDK: it finishes what it holds, and leaves; drain or remove others. What else
    there is, is for the module to obey.
    """
    word = word.upper()
    _order(server, connect_timeout_s, lambda client: client.operations.fleet.tell_worker(worker_id, word))
    _say({"worker": worker_id, "told": word}, f"{worker_id} is told {word}", as_json=as_json)


def _order(server: str, connect_timeout_s: float, order: Callable[[AsyncClient], Coroutine[Any, Any, None]]) -> None:
    ask(server, order, connect_timeout_s)


def _say(document: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        write_json(document)
    else:
        write_lines([line])
