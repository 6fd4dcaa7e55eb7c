"""`merit submit`: one task from the command line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

import click
import msgspec

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import MeritCommand, connect_option, json_option, server_option, tenant_option
from merit.cli.following import NOT_RUNNING, explained, follow
from merit.cli.output import CliError, note, write_json, write_lines
from merit.cli.parameters import parameter_words, parameters_of, with_hint
from merit.cli.task_options import ONE, task_options
from merit.cli.values import Duration
from merit.model.tasks import TaskState
from merit.sdk.client import AsyncClient
from merit.sdk.handles import TaskHandle
from merit.sdk.options import OptionArguments
from merit.sdk.results import MeritError, Refused, Result

_TAKEN_S: Final = 3.0
"""After this long it is said why a task is not durable yet."""
_HINT_S: Final = 1.0
"""For so long at most a task that was taken is asked about."""


@click.command(
    cls=MeritCommand,
    example="""
    merit submit word_count text='to be or not to be' --wait
    merit submit add a:=1 b:=2 --wait --json
    merit submit report day=today --priority high --timeout 2h --follow
    merit submit render scene=7 --versions '>=1.2,<2' --tag gpu --resource memory=2Gi
    echo '{"text": "to be"}' | merit submit word_count --params -
    """,
    codes=(output.FAILED, output.UNREACHABLE, output.TIMED_OUT),
)
@parameter_words
@task_options(ONE)
@click.option("--wait", is_flag=True, help="Wait for the result.")
@click.option("--follow", "following", is_flag=True, help="Wait, and show its steps, progress and log on stderr.")
@click.option("--wait-timeout", "wait_s", type=Duration(), help="How long to wait at most; the task goes on after it.")
@tenant_option
@server_option
@connect_option
@json_option
def submit(
    capability: str,
    values: tuple[str, ...],
    params: str | None,
    options: OptionArguments,
    wait: bool,
    following: bool,
    wait_s: float | None,
    tenant: str,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Submit one task; it is durable when its id is printed.

    KEY=VALUE gives a string, whatever it looks like; KEY:=JSON gives any JSON value (a:=1, flag:=true, xs:='[1, 2]').
    Durations are 500ms, 30s, 5m, 2h, 1d, or seconds.
    """
    parameters = parameters_of(params, values)
    wait = wait or following

    async def work(client: AsyncClient) -> dict[str, Any]:
        try:
            async with asyncio.timeout(None if wait else wait_s):
                handle = await _taken(client, client.submit(capability, parameters, **options))
        except Refused as error:
            raise with_hint(error, values) from error
        except TimeoutError:
            message = f"not acknowledged within {wait_s:g} s; whether the task was taken is not known"
            raise CliError("timeout", message, output.TIMED_OUT) from None
        if not wait:
            await _say_if_nobody_offers(client, handle.id)
            return {"id": handle.id}
        return result_view(await _end(client, handle, wait_s, following=following, as_json=as_json))

    answer = ask(server, work, connect_timeout_s, tenant=tenant)
    if as_json:
        write_json(answer)
    elif not wait:
        write_lines([answer["id"]])
    else:
        write_result(answer)
    if wait and (answer["state"] != TaskState.COMPLETED.name or answer["result"] is None):
        raise click.exceptions.Exit(output.FAILED)


async def _taken(client: AsyncClient, submitting: Coroutine[Any, Any, TaskHandle]) -> TaskHandle:
    """The task, once it is durable. If that takes long, it is said why."""
    waiting = asyncio.ensure_future(submitting)
    try:
        if not (await asyncio.wait((waiting,), timeout=_TAKEN_S))[0]:
            try:
                await client.status()
            except MeritError as error:
                note(f"merit: the task is not taken yet: {error}")
            else:
                note(
                    "merit: the task is not taken yet: the control plane has no room for it; it is said again until it has"
                )
        return await waiting
    finally:
        waiting.cancel()


async def _end(
    client: AsyncClient, handle: TaskHandle, wait_s: float | None, *, following: bool, as_json: bool
) -> Result:
    try:
        async with asyncio.timeout(wait_s):
            if following:
                return await explained(client, handle.id, follow(handle, as_json=as_json, aside=True), NOT_RUNNING)
            return await explained(client, handle.id, handle.wait())
    except TimeoutError:
        message = f"task {handle.id} has not ended within {wait_s:g} s; it goes on: merit task show {handle.id}"
        raise CliError("timeout", message, output.TIMED_OUT, id=handle.id) from None
    except asyncio.CancelledError:
        note(f"merit: task {handle.id} goes on: merit task show {handle.id}")
        raise


async def _say_if_nobody_offers(client: AsyncClient, task_id: str) -> None:
    """A hint on stderr. The task is taken: nothing that goes wrong here is worth more than silence."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_HINT_S):
            why = str((await client.task(task_id))["why"])
        if why.startswith("no connected worker"):
            note(f"merit: the task waits: {why}")


def result_view(result: Result) -> dict[str, Any]:
    """How a task ended, as JSON has it."""
    failure = result.failure
    return {
        "id": result.task,
        "state": result.state.name,
        "result": msgspec.Raw(result.json) if result.json else None,
        "error": None if failure is None else msgspec.structs.asdict(failure),
        "attempts": result.attempts,
        "worker": result.worker,
    }


def write_result(answer: dict[str, Any]) -> None:
    """The result on stdout, or on stderr why there is none. Takes what ``result_view`` gives."""
    if answer["error"] is None and answer["state"] == TaskState.COMPLETED.name:
        value = msgspec.json.decode(answer["result"])
        write_lines([value if isinstance(value, str) else bytes(answer["result"]).decode()])
    else:
        error = answer["error"]
        why = f" ({error['kind']}): {error['message']}" if error else ""
        tries = f"{answer['attempts']} attempt{'' if answer['attempts'] == 1 else 's'}"
        note(f"merit: task {answer['id']} is {answer['state']} after {tries}{why}")
