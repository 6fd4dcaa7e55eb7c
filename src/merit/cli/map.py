"""`merit map`: a capability on each line of a file."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

import click
import msgspec

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import (
    DEFAULT_SERVER,
    MeritCommand,
    connect_option,
    json_option,
    server_option,
    tenant_option,
)
from merit.cli.output import CliError, note, write_json
from merit.cli.submit import result_view
from merit.cli.task_options import MANY, task_options
from merit.cli.terminal_bar import TerminalBar, seen
from merit.model.tasks import TaskState
from merit.model.tenancy import DEFAULT_TENANT
from merit.sdk.client import MAP_WINDOW, AsyncClient
from merit.sdk.options import OptionArguments, Options
from merit.sdk.results import MeritError, Refused, Unreachable

INPUT_BYTES_MAX: Final = 512 * 1024 * 1024
_WINDOW_MAX: Final = 100_000

_LOOK_S: Final = 5.0
"""After so long without a result it is said why."""
_EXPLAINED: Final = (TaskState.PENDING, TaskState.WAITING, TaskState.ASSIGNED, TaskState.RUNNING)
"""Tasks are asked what they wait for in this order."""


@click.command(
    cls=MeritCommand,
    example="""
    printf '{"name": "Ada"}\\n{"name": "Alan"}\\n' | merit map hello -
    merit map render scenes.jsonl --tag gpu --without-tag spot --resource gpu=1 --strategy round-robin
    """,
    codes=(output.FAILED, output.UNREACHABLE),
)
@click.argument("capability")
@click.argument("file", metavar="FILE.jsonl|-", type=click.File("rb"))
@click.option("--as-completed", is_flag=True, help="Results as they come instead of in the order of the lines.")
@click.option(
    "--window",
    type=click.IntRange(1, _WINDOW_MAX),
    default=MAP_WINDOW,
    show_default=True,
    help="Tasks in flight at the same time.",
)
@task_options(MANY)
@tenant_option
@server_option
@connect_option
@json_option
def map(  # noqa: A001 — the command's name; nothing here maps otherwise
    capability: str,
    file: BinaryIO,
    as_completed: bool,
    window: int,
    options: OptionArguments,
    tenant: str,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Run a capability on each line of a file: one JSON object a line, its parameters.

    Results are written as JSON lines, each with the `line` it belongs to (with --json as one document at the end). All lines
    are read and checked before the first task is submitted. Exit code 1 if any task failed or was refused.
    """
    lines = _lines_of(file)
    results: list[dict[str, Any]] = []
    failed = submitted = ended = 0
    since = datetime.now(UTC)

    def calls() -> Iterator[tuple[str, dict[str, Any]]]:
        nonlocal submitted
        for _, text in lines:
            submitted += 1
            yield capability, msgspec.json.decode(text)

    async def work(client: AsyncClient) -> None:
        nonlocal failed, ended
        of_each = Options(**options)
        with _progress(len(lines)) as bar:
            async with _explained(client, capability, note if bar is None else bar.say) as news:
                async for batch in client.batches(calls(), window=window, options=of_each, ordered=not as_completed):
                    news.set()
                    for handle in batch:
                        try:
                            view = result_view(await handle.wait())
                        except Refused as error:
                            view = _refused_view(error)
                        failed += view["state"] != "COMPLETED"
                        results.append({"line": lines[handle.tag][0], **view})
                    ended += len(batch)
                    if bar is not None:
                        bar.advance(len(batch))
                    if not as_json:
                        sys.stdout.write("".join(f"{msgspec.json.encode(one).decode()}\n" for one in results))
                        sys.stdout.flush()
                        results.clear()

    try:
        ask(server, work, connect_timeout_s, tenant=tenant)
    except KeyboardInterrupt:
        if submitted:
            _say_what_goes_on(capability, server, tenant, since, f"{submitted:,} of {len(lines):,}", ended)
        raise
    if as_json:
        write_json({"results": results, "completed": len(lines) - failed, "failed": failed})
    if failed:
        note(f"merit: {failed:,} of {len(lines):,} tasks failed")
        raise click.exceptions.Exit(output.FAILED)


@asynccontextmanager
async def _explained(client: AsyncClient, capability: str, say: Callable[[str], None]) -> AsyncIterator[asyncio.Event]:
    """Meanwhile, when nothing has come for a while, say why. The event is to be set whenever something comes."""
    news = asyncio.Event()
    watching = asyncio.create_task(_explain(client, capability, news, say))
    try:
        yield news
    finally:
        watching.cancel()
        await asyncio.wait((watching,))


async def _explain(client: AsyncClient, capability: str, news: asyncio.Event, say: Callable[[str], None]) -> None:
    """Say once what the tasks wait for, and each time that the control plane has gone away."""
    explained = away = False
    while True:
        try:
            async with asyncio.timeout(_LOOK_S):  # `wait_for` of Python 3.11 can lose a cancellation
                await news.wait()
            news.clear()
            away = False
            continue
        except TimeoutError:
            pass
        try:
            async with asyncio.timeout(_LOOK_S):
                # Also when it has been explained: this is how it is found out that the control plane is away.
                why = await (client.status() if explained else _why(client, capability))
        except (Unreachable, TimeoutError):
            if not away:
                say(f"merit: the control plane at {client.server} is away; this goes on when it is back")
            away = True
            continue
        except MeritError:  # the task has ended meanwhile, say: this is only for information
            continue
        away = False
        if not explained and why:
            say(f"merit: nothing has come for {_LOOK_S:g} s: {why}")
            explained = True


async def _why(client: AsyncClient, capability: str) -> str:
    """What the newest task of the capability that has not ended waits for; empty if there is none."""
    for state in _EXPLAINED:
        page = await client.tasks(state=state.name, capability=capability, limit=1)
        if page.tasks:
            found = await client.task(page.tasks[0]["id"])
            return f"task {found['id']}: {found['why']}"
    return ""


def _say_what_goes_on(capability: str, server: str, tenant: str, since: datetime, submitted: str, ended: int) -> None:
    note(f"merit: {submitted} tasks were submitted, {ended:,} results have come; the others go on without this")
    words = ["merit", "task", "cancel", "--capability", capability, "--since", since.isoformat()]
    words += ["--tenant", tenant] if tenant != DEFAULT_TENANT else []
    words += ["--server", server] if server != DEFAULT_SERVER else []
    note(f"merit: to cancel all for {capability} that were submitted since and have not ended:")
    note(f"  {shlex.join(words)}")


def _lines_of(file: BinaryIO) -> list[tuple[int, bytes]]:
    """Number and text of each line that is not empty. Raises CliError for one that is no JSON object."""
    data = file.read(INPUT_BYTES_MAX + 1)
    if len(data) > INPUT_BYTES_MAX:
        raise CliError("usage", f"{file.name}: more than {INPUT_BYTES_MAX:,} bytes: split the file", output.USAGE)
    lines = [(number, text) for number, text in enumerate(data.split(b"\n"), 1) if text.strip()]
    for number, text in lines:
        try:
            value = msgspec.json.decode(text)
            reason = "" if isinstance(value, dict) else f"a JSON object is needed, not {type(value).__name__}"
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            reason = f"no JSON: {error}"
        if reason:
            raise CliError("usage", f"{file.name}, line {number}: {reason}; nothing was submitted", output.USAGE)
    return lines


def _refused_view(error: Refused) -> dict[str, Any]:
    refusal = error.refusal
    return {
        "id": refusal.task,
        "state": "REFUSED",
        "result": None,
        "error": {"kind": refusal.code, "message": str(error), "detail": "", "permanent": True},
        "attempts": 0,
        "worker": "",
    }


def _progress(total: int) -> AbstractContextManager[TerminalBar | None]:
    """A bar on stderr, if somebody sees it there and nothing else is written on top of it."""
    return TerminalBar(total, counted=True) if seen() and not sys.stdout.isatty() else nullcontext()
