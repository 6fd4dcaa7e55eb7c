"""`merit map`: a capability on each line of a file."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO, Final, Protocol

import click
import msgspec

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import MeritCommand, Seconds, connect_option, json_option, server_option
from merit.cli.output import CliError, note, write_json
from merit.cli.submit import result_view
from merit.model.limits import ATTEMPTS_DEFAULT, ATTEMPTS_MAX, RUN_TIMEOUT_NS_DEFAULT, SECOND_NS
from merit.model.tasks import Priority
from merit.sdk.client import MAP_WINDOW, AsyncClient
from merit.sdk.results import Refused

INPUT_BYTES_MAX: Final = 512 * 1024 * 1024
_WINDOW_MAX: Final = 100_000


class _Bar(Protocol):
    def advance(self, count: int) -> None: ...


@click.command(
    cls=MeritCommand,
    example="""
    printf '{"name": "Ada"}\\n{"name": "Alan"}\\n' | merit map hello -
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
@click.option(
    "--priority",
    type=click.Choice([item.name.lower() for item in Priority], case_sensitive=False),
    default="medium",
    show_default=True,
    help="Higher goes first.",
)
@click.option(
    "--run-timeout",
    "run_timeout_s",
    type=Seconds(),
    default=RUN_TIMEOUT_NS_DEFAULT / SECOND_NS,
    show_default=True,
    help="How long one attempt may run.",
)
@click.option(
    "--attempts",
    "attempts_max",
    type=click.IntRange(1, ATTEMPTS_MAX),
    default=ATTEMPTS_DEFAULT,
    show_default=True,
    help="How often each may be tried.",
)
@server_option
@connect_option
@json_option
def map(  # noqa: A001 — the command's name; nothing here maps otherwise
    capability: str,
    file: BinaryIO,
    as_completed: bool,
    window: int,
    priority: str,
    run_timeout_s: float,
    attempts_max: int,
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
    failed = 0

    async def work(client: AsyncClient) -> None:
        nonlocal failed
        calls = ((capability, msgspec.json.decode(text)) for _, text in lines)
        options = (priority, run_timeout_s, attempts_max)
        with _progress(len(lines)) as bar:
            async for batch in client.batches(calls, window=window, options=options, ordered=not as_completed):
                for handle in batch:
                    try:
                        view = result_view(await handle.wait())
                    except Refused as error:
                        view = _refused_view(error)
                    failed += view["state"] != "COMPLETED"
                    results.append({"line": lines[handle.tag][0], **view})
                if bar is not None:
                    bar.advance(len(batch))
                if not as_json:
                    sys.stdout.write("".join(f"{msgspec.json.encode(one).decode()}\n" for one in results))
                    sys.stdout.flush()
                    results.clear()

    ask(server, work, connect_timeout_s)
    if as_json:
        write_json({"results": results, "completed": len(lines) - failed, "failed": failed})
    if failed:
        note(f"merit: {failed:,} of {len(lines):,} tasks failed")
        raise click.exceptions.Exit(output.FAILED)


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


def _progress(total: int) -> AbstractContextManager[_Bar | None]:
    """A bar on stderr, if somebody sees it there and nothing else is written on top of it."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        return nullcontext()
    return _TerminalBar(total)


class _TerminalBar:
    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self._progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # results go where they were sent, not above the bar
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> _TerminalBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)
