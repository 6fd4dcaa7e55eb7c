"""`merit submit`: one task from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from merit.cli import output
from merit.cli.client import ask, refusal_of
from merit.cli.command import MeritCommand, Seconds, connect_option, json_option, server_option
from merit.cli.output import CliError, note, write_json, write_lines
from merit.model.limits import ATTEMPTS_DEFAULT, ATTEMPTS_MAX, PAYLOAD_BYTES_MAX, RUN_TIMEOUT_NS_DEFAULT, SECOND_NS
from merit.model.tasks import Priority, TaskState
from merit.sdk.client import AsyncClient
from merit.sdk.handles import TaskHandle
from merit.sdk.results import Refused, Result

_LOOK_S: Final = 3.0
"""After this long `--wait` says on stderr what the task is waiting for."""
_HINT_S: Final = 1.0
"""For so long at most a task that was taken is asked about."""


@click.command(
    cls=MeritCommand,
    example="""
    merit submit word_count text='to be or not to be' --wait
    merit submit add a:=1 b:=2 --wait --json
    echo '{"text": "to be"}' | merit submit word_count --params -
    """,
    codes=(output.FAILED, output.UNREACHABLE, output.TIMED_OUT),
)
@click.argument("capability")
@click.argument("values", metavar="[KEY=VALUE | KEY:=JSON]...", nargs=-1)
@click.option("--params", metavar="JSON|@FILE|-", help="Parameters as a JSON object; KEYs beside it win.")
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
    help="How often it may be tried.",
)
@click.option("--after", metavar="ID", multiple=True, help="A task that must be completed first; may be repeated.")
@click.option("--wait", is_flag=True, help="Wait for the result.")
@click.option("--timeout", "timeout_s", type=Seconds(), help="How long to wait at most; the task goes on after it.")
@server_option
@connect_option
@json_option
def submit(
    capability: str,
    values: tuple[str, ...],
    params: str | None,
    priority: str,
    run_timeout_s: float,
    attempts_max: int,
    after: tuple[str, ...],
    wait: bool,
    timeout_s: float | None,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Submit one task; it is durable when its id is printed.

    KEY=VALUE gives a string, whatever it looks like; KEY:=JSON gives any JSON value (a:=1, flag:=true, xs:='[1, 2]').
    """
    parameters = parameters_of(params, values)

    async def work(client: AsyncClient) -> dict[str, Any]:
        try:
            async with asyncio.timeout(None if wait else timeout_s):
                handle = await client.submit(
                    capability,
                    parameters,
                    priority=priority,
                    run_timeout_s=run_timeout_s,
                    attempts_max=attempts_max,
                    after=after,
                )
        except Refused as error:
            raise _with_hint(error, values) from error
        except TimeoutError:
            message = f"not acknowledged within {timeout_s:g} s; whether the task was taken is not known"
            raise CliError("timeout", message, output.TIMED_OUT) from None
        if not wait:
            await _say_if_nobody_offers(client, handle.id)
            return {"id": handle.id}
        try:
            return result_view(await _outcome(client, handle, timeout_s))
        except TimeoutError:
            message = f"task {handle.id} has not ended within {timeout_s:g} s; it goes on: merit task show {handle.id}"
            raise CliError("timeout", message, output.TIMED_OUT, id=handle.id) from None
        except asyncio.CancelledError:
            note(f"merit: task {handle.id} goes on: merit task show {handle.id}")
            raise

    answer = ask(server, work, connect_timeout_s)
    if as_json:
        write_json(answer)
    elif not wait:
        write_lines([answer["id"]])
    elif answer["error"] is None and answer["state"] == TaskState.COMPLETED.name:
        write_lines([shown(answer["result"])])
    else:
        note(f"merit: {complaint(answer)}")
    if wait and answer["state"] != TaskState.COMPLETED.name:
        raise click.exceptions.Exit(output.FAILED)


def parameters_of(params: str | None, values: Sequence[str]) -> dict[str, Any]:
    """The parameters from ``--params`` and from ``key=value`` and ``key:=json``.

    Raises:
        CliError: one of them is not what it should be.
    """
    parameters = _object(params) if params is not None else {}
    for word in values:
        name, equals, text = word.partition("=")
        if not equals or not name.removesuffix(":"):
            raise _bad(f"{word!r} is neither KEY=VALUE (a string) nor KEY:=JSON")
        if not name.endswith(":"):
            parameters[name] = text
            continue
        try:
            parameters[name[:-1]] = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise _bad(f"{name[:-1]}: {text!r} is no JSON ({error}); for a string use {name[:-1]}={text}") from None
    return parameters


def _object(params: str) -> dict[str, Any]:
    try:
        if params == "-":
            data = sys.stdin.buffer.read(PAYLOAD_BYTES_MAX + 1)
        elif params.startswith("@"):
            with Path(params[1:]).open("rb") as file:
                data = file.read(PAYLOAD_BYTES_MAX + 1)
        else:
            data = params.encode()
    except (OSError, UnicodeError) as error:
        raise _bad(f"--params {params}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > PAYLOAD_BYTES_MAX:
        raise _bad(f"--params: more than {PAYLOAD_BYTES_MAX:,} bytes: split the task")
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _bad(f"--params: no JSON: {error}") from None
    if not isinstance(found, dict):
        raise _bad(f'--params: must be a JSON object, such as {{"key": 1}}, not {type(found).__name__}')
    return found


def _bad(message: str) -> CliError:
    return CliError("usage", message, output.USAGE)


def _with_hint(error: Refused, values: Sequence[str]) -> CliError:
    """The refusal; where a plain value met a schema that wants no string, with the way to give it."""
    complaint = refusal_of(error)
    field = error.refusal.field
    for word in values:
        name, _, text = word.partition("=")
        if "is not of type" in error.refusal.reason and field == f"parameters.{name}":
            message = f"{complaint}. {name}={text} is a string; for any other JSON value write {name}:={text}"
            return CliError(complaint.kind, message, complaint.code, **complaint.details)
    return complaint


async def _say_if_nobody_offers(client: AsyncClient, task_id: str) -> None:
    """A hint on stderr. The task is taken: nothing that goes wrong here is worth more than silence."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_HINT_S):
            why = str((await client.task(task_id))["why"])
        if why.startswith("no connected worker"):
            note(f"merit: the task waits: {why}")


async def _outcome(client: AsyncClient, handle: TaskHandle, timeout_s: float | None) -> Result:
    """The end of the task. While it does not come, what it waits for is said on stderr, once each."""
    waiting = asyncio.ensure_future(handle.wait(timeout_s))
    said = ""
    try:
        while not (await asyncio.wait((waiting,), timeout=_LOOK_S))[0]:
            try:
                why = str((await client.task(handle.id))["why"])
            except Exception:  # noqa: BLE001, S112 — this is only for information: whatever it is, the wait goes on
                continue
            if why and why != said:
                said = why
                note(f"merit: task {handle.id}: {why}")
        return waiting.result()
    finally:
        waiting.cancel()


def result_view(result: Result) -> dict[str, Any]:
    """How a task ended, as JSON has it."""
    failure = result.failure
    return {
        "id": result.task,
        "state": result.state.name,
        "result": msgspec.Raw(result.json) if result.ok else None,
        "error": None if failure is None else msgspec.structs.asdict(failure),
        "attempts": result.attempts,
        "worker": result.worker,
    }


def complaint(answer: dict[str, Any]) -> str:
    """Why there is no result."""
    error = answer["error"]
    why = f" ({error['kind']}): {error['message']}" if error else ""
    return f"task {answer['id']} is {answer['state']} after {answer['attempts']} attempts{why}"


def shown(result: msgspec.Raw) -> str:
    """A result for people: a string as it is, anything else as JSON."""
    value = msgspec.json.decode(result)
    return value if isinstance(value, str) else bytes(result).decode()
