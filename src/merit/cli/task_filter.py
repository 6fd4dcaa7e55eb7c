"""Which tasks are meant: the same options for all commands that are about several, and the question whether to go on."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, Final, TypeVar

import click

from merit.cli import output
from merit.cli.output import CliError
from merit.cli.values import Moment, Pair
from merit.model.tasks import TaskState
from merit.sdk.operations import Where
from merit.sdk.views import Page

Function = TypeVar("Function", bound=Callable[..., Any])

IDS_MAX: Final = 1_000
"""Ids that one command takes."""
PAGE: Final = 1_000
"""Tasks on the largest page that there is."""
_COUNTED_MAX: Final = 10_000

_NAMES: Final = ("capability", "labels", "text", "submitted_from", "submitted_to", "schedule", "worker")
_OPTIONS: Final = (
    click.option("--capability", default="", help="Only tasks for this one."),
    click.option(
        "--label", "labels", type=Pair("NAME", "VALUE"), multiple=True, help="Only with this label; may be repeated."
    ),
    click.option(
        "--text",
        default="",
        help="Only with words that begin so in the description, in the message of a failure, or in a searchable parameter.",
    ),
    click.option(
        "--since", "submitted_from", type=Moment(-1), help="Only submitted at this time or later; 2h: two hours ago."
    ),
    click.option("--until", "submitted_to", type=Moment(-1), help="Only submitted before."),
    click.option("--schedule", default="", help="Only made by this schedule."),
    click.option("--worker", default="", help="Only with an attempt on this worker."),
)


def filter_options(*, states: Sequence[TaskState] = (), tenant: bool = False) -> Callable[[Function], Function]:
    """Options that say which tasks are meant, together as the argument ``where`` of the command.

    Args:
        states: those among which ``--state`` can choose; without any there is no such option.
        tenant: with ``--tenant``, which narrows a question. An order is for the tenant that gives it.
    """
    options = list(_OPTIONS)
    if tenant:
        options.insert(1, click.option("--tenant", default="", help="Only of this tenant."))
    if states:
        choice = click.Choice([state.name.lower() for state in states], case_sensitive=False)
        options.insert(0, click.option("--state", type=choice, multiple=True, help="Only in this; may be repeated."))

    def decorate(function: Function) -> Function:
        @wraps(function)
        def command(**given: Any) -> Any:
            chosen = {name: given.pop(name) for name in _NAMES}
            chosen["labels"] = dict(chosen["labels"])
            if tenant:
                chosen["tenant"] = given.pop("tenant")
            if states:
                chosen["states"] = given.pop("state")
            return function(**given, where=Where(**chosen))

        decorated: Any = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]  # what click.option gives back is the function that it was given

    return decorate


def words(where: Where) -> list[str]:
    """The filter as it would be given on the command line."""
    said = [word for state in where.states for word in ("--state", state)]
    said += ["--capability", where.capability] if where.capability else []
    said += ["--tenant", where.tenant] if where.tenant else []
    said += [word for label in where.labels.items() for word in ("--label", "=".join(label))]
    said += ["--text", where.text] if where.text else []
    said += ["--since", where.submitted_from.isoformat()] if where.submitted_from else []
    said += ["--until", where.submitted_to.isoformat()] if where.submitted_to else []
    said += ["--schedule", where.schedule] if where.schedule else []
    said += ["--worker", where.worker] if where.worker else []
    return said + (["--reviews"] if where.reviews else [])


def check_chosen(ids: Sequence[str], where: Where, *, all_of_them: bool = False) -> None:
    """See that an order says exactly one way which tasks it is about.

    Raises:
        CliError: it does not, or names too many.
    """
    ways = [bool(ids), where != Where(), all_of_them]
    if sum(ways) != 1:
        said = "name IDs, or say by options which are meant" if not any(ways) else "either IDs, or a filter, or all"
        raise CliError("usage", f"{said}; see --help", output.USAGE)
    if len(ids) > IDS_MAX:
        raise CliError("usage", f"{len(ids):,} ids; {IDS_MAX:,} at most at a time", output.USAGE)


async def counted(page_of: Callable[[str], Awaitable[Page]]) -> int:
    """How many tasks there are; beyond 10,000 one more than that, which is enough to be asked about.

    Args:
        page_of: gives the page that begins at a cursor.
    """
    count, cursor = 0, ""
    while count <= _COUNTED_MAX:
        page = await page_of(cursor)
        count += len(page.tasks)
        cursor = page.next_cursor
        if not cursor:
            return count
    return _COUNTED_MAX + 1


def ask_before(count: int, what: str, done: str) -> None:
    """Say how many are meant, and ask whether to go on.

    Args:
        count: as ``counted`` gives it.
        what: they are, in the singular.
        done: what becomes of them.

    Raises:
        CliError: nobody is there to be asked, or does not want to.
    """
    how_many = f"more than {_COUNTED_MAX:,}" if count > _COUNTED_MAX else f"{count:,}"
    question = f"{how_many} {what}{'' if count == 1 else 's'} will be {done}"
    if not sys.stdin.isatty():
        raise CliError("usage", f"{question}; nothing was done: say it again with --yes", output.USAGE)
    if not click.confirm(f"merit: {question}. Go on?", err=True):
        raise CliError("declined", "nothing was done", output.FAILED)
