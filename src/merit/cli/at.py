"""`merit at TIME COMMAND …`, and `--at TIME` of some commands: what a command tells of a moment of the past."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from merit.cli import output
from merit.cli.command import DEFAULT_STATE, MeritCommand, state_option, store_option
from merit.cli.output import CliError, note
from merit.cli.past_time import PastTime
from merit.cli.present import Visited, visiting

if TYPE_CHECKING:
    from merit.app.past import Instant
    from merit.app.stores import Stores
    from merit.ports.journal import JournalReader

Function = TypeVar("Function", bound=Callable[..., Any])

READING: Final = frozenset(
    {
        "status",
        "explain",
        "task list",
        "task show",
        "worker list",
        "worker show",
        "capability list",
        "capability show",
        "rollout status",
        "supervision show",
        "queue list",
        "queue show",
        "queue limits",
        "queue shares",
        "dead list",
        "dead show",
        "schedule list",
        "schedule show",
    }
)
"""The commands that ask a control plane something, and neither change anything nor wait for anything."""
_SAY_S: Final = 0.5
_SAY_AGAIN_S: Final = 0.1
_AGO: Final = re.compile(r"-[\d.]", re.ASCII)
_UNKNOWN: Final = "not in the journal: who was connected and had room, progress, what rates had used up"


class _Visit:
    """Looks at a moment of the past, from one command.

    Args:
        stores: where the control plane keeps its things.
        reader: of its journal.
        instant: the moment.
    """

    def __init__(self, stores: Stores, reader: JournalReader, instant: Instant) -> None:
        self._stores = stores
        self._reader = reader
        self._instant = instant

    @asynccontextmanager
    async def server(self) -> AsyncIterator[str]:
        """See ``Visited.server``. Raises ``CliError``."""
        from merit.app.past import cell_at, local_time
        from merit.app.past_server import served
        from merit.cli.journal_errors import explained

        context = click.get_current_context()
        if context.get_parameter_source("server") is ParameterSource.COMMANDLINE:
            raise CliError("usage", "--server: the past is told by the journal, and by no server", output.USAGE)
        instant, news = self._instant, FoldNews(self._instant.sequence)
        with explained():
            cell = cell_at(self._reader, self._stores.snapshots(), instant, news)
        news.end()
        note(f"merit: as it was at {local_time(instant.time_ns)}, after event {instant.sequence:,}; {_UNKNOWN}")
        async with served(cell, self._stores) as address:
            yield address


@contextmanager
def visit(when: datetime | int, state: Path, store: str = "") -> Iterator[None]:
    """For the time of the block a moment of the past is the present: all that is asked is answered as it was then.

    Args:
        when: a moment, or the sequence of an event.
        state: directory in which the control plane keeps its state.
        store: URL of the database, if that is where it keeps it.

    Raises:
        CliError: there is no such moment, or the journal cannot be read.
    """
    # Here and above: `merit task list` has the option, and usually no use for all this.
    from merit.app.past import instant_after, instant_at
    from merit.app.stores import open_stores
    from merit.cli.journal_errors import explained
    from merit.sdk.options import time_ns_of

    with ExitStack() as stack:
        with explained():
            stores = open_stores(state, store)
            reader, snapshots = stack.enter_context(closing(stores.reader())), stores.snapshots()
            if isinstance(when, int):
                instant = instant_after(reader, snapshots, when)
            else:
                instant = instant_at(reader, snapshots, time_ns_of("TIME", when))
        where = ["--state", str(state)] if state != DEFAULT_STATE else []
        where += ["--store", store] if store and urlsplit(store).password is None else []
        again = ("merit", "at", *where, f"#{instant.sequence}")
        moment = datetime.fromtimestamp(instant.time_ns / 1e9, UTC)
        with visiting(Visited(moment, again, _Visit(stores, reader, instant).server)):
            yield


class FoldNews:
    """Says on stderr how far a fold is, if that takes long and somebody sees it; ``first``: with which event it began.

    Args:
        last: the event with which it ends.
    """

    def __init__(self, last: int) -> None:
        self._last = last
        self._next_s = time.monotonic() + _SAY_S
        self._said = False
        self.first: int | None = None

    def __call__(self, sequence: int) -> None:
        if self.first is None:
            self.first = sequence
        if time.monotonic() >= self._next_s and sys.stderr.isatty():
            self._next_s, self._said = time.monotonic() + _SAY_AGAIN_S, True
            sys.stderr.write(f"\rmerit: the journal is replayed: {sequence:,} of {self._last:,} events\x1b[K")
            sys.stderr.flush()

    def end(self) -> None:
        """Nothing is left of it on the terminal."""
        if self._said:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def at_option(function: Function) -> Function:
    """``--at`` of a command that asks something: as `merit at`, which also has options for where the journal is."""

    def begin(ctx: click.Context, _: click.Parameter, when: datetime | int | None) -> None:
        if when is not None and not ctx.resilient_parsing:
            # Before the other options are understood: those that are durations count from then.
            state = Path(os.environ.get("MERIT_STATE") or DEFAULT_STATE)
            ctx.with_resource(visit(when, state, os.environ.get("MERIT_STORE", "")))

    option = click.option(
        "--at",
        type=PastTime(),
        callback=begin,
        is_eager=True,
        expose_value=False,
        help="As it was then, by the journal in MERIT_STATE, such as 14:03 or -10m; see merit at.",
    )
    return option(function)


class _At(MeritCommand):
    """All that comes after the time is the other command's; and a time may begin with a minus, which is no option then."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        place = 0
        while place < len(args) and args[place].partition("=")[0] in ("--state", "--store"):
            place += 1 if "=" in args[place] else 2
        if place < len(args) and _AGO.match(args[place]):
            args = [*args[:place], "--", *args[place:]]
        return super().parse_args(ctx, args)


@click.command(
    "at",
    cls=_At,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    example="""
    merit at 14:03 worker list
    merit at 2026-11-20T14:03:05Z task list --state dead
    merit at -10m queue list --json
    merit at '#123456' status
    """,
    codes=(output.FAILED, output.UNREACHABLE),
)
@state_option
@store_option
@click.argument("when", metavar="TIME", type=PastTime())
@click.argument("words", metavar="COMMAND [ARGS]...", nargs=-1, required=True, type=click.UNPROCESSED)
def at(state: Path, store: str, when: datetime | int, words: tuple[str, ...]) -> None:
    """Run a COMMAND that asks something as if it were TIME: it tells what the journal knows of that moment.

    TIME is a time of day (today's, or yesterday's if that is still to come), a date and time as in ISO 8601 (without a
    zone: of this machine), a duration ago such as -10m, or '#SEQUENCE' for the moment after that event.

    No control plane is needed; one that runs is not asked, and not disturbed. The options of COMMAND, --json too, come
    after it.
    """
    found, place = _command_of(words)
    with visit(when, state, store):
        # As if there were no `at`: that is how messages about wrong usage name it.
        parent = click.Context(found, info_name=" ".join(("merit", *words[: place - 1])))
        with found.make_context(words[place - 1], list(words[place:]), parent=parent) as inner:
            found.invoke(inner)


def _command_of(words: Sequence[str]) -> tuple[click.Command, int]:
    """The command that is meant, and how many words name it.

    Raises:
        CliError: there is none, or it is not one that only asks.
    """
    from merit.cli.main import merit

    found: click.Command = merit
    place = 0
    while isinstance(found, click.Group):
        inner = found.get_command(click.Context(found), words[place]) if place < len(words) else None
        if inner is None:
            break
        found, place = inner, place + 1
    if isinstance(found, click.Group) or " ".join(words[:place]) not in READING:
        said = shlex.join(words[: place + 1] if isinstance(found, click.Group) else words[:place])
        meant = ", ".join(sorted(READING))
        raise CliError(
            "usage",
            f"merit {said} does not only ask, and the past cannot be changed; at a time can be asked: {meant}",
            output.USAGE,
        )
    return found, place
