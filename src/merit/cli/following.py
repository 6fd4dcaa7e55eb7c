"""A task step by step, as it happens: lines and a bar for people, one document for programs, which grows."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Collection, Coroutine
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from merit.cli.output import add_item, begin_list, note, write_lines
from merit.cli.terminal_bar import TerminalBar, seen
from merit.model.tasks import TaskState
from merit.sdk.client import AsyncClient
from merit.sdk.following import Step
from merit.sdk.handles import TaskHandle
from merit.sdk.results import Result

_LOOK_S: Final = 3.0
"""After this long it is said what a task is waiting for."""
NOT_RUNNING: Final = (TaskState.WAITING, TaskState.PENDING)


async def explained(
    client: AsyncClient,
    task_id: str,
    end: Coroutine[Any, Any, Result],
    states: Collection[TaskState] = tuple(TaskState),
) -> Result:
    """The end of a task. While it does not come, what it waits for is said on stderr, once each.

    Args:
        client: to ask.
        task_id: of the task.
        end: waits for its end.
        states: in which there is something to be said.
    """
    waiting = asyncio.ensure_future(end)
    names = {state.name for state in states}
    said = ""
    try:
        while not (await asyncio.wait((waiting,), timeout=_LOOK_S))[0]:
            try:
                view = await client.task(task_id)
            except Exception:  # noqa: BLE001, S112 — this is only for information: whatever it is, the wait goes on
                continue
            why = str(view["why"])
            if why and why != said and view["state"] in names:
                said = why
                note(f"merit: task {task_id}: {why}")
        return waiting.result()
    finally:
        waiting.cancel()
        await asyncio.wait((waiting,))


async def follow(handle: TaskHandle, *, as_json: bool, aside: bool) -> Result:
    """Show every step of a task until it has ended; how it did.

    Args:
        handle: of the task.
        as_json: begin the document with the steps, each as it comes; how the task ended is for the caller to write.
        aside: lines go to stderr, since stdout is for the result.
    """
    if as_json:
        return await _document(handle)
    # Lines that go where the bar is are written above it; others do not disturb it.
    mixed = aside or sys.stdout.isatty()
    with TerminalBar(1.0, counted=False) if seen() else _NoBar() as bar:
        say = bar.say if mixed and isinstance(bar, TerminalBar) else note if aside else _to_stdout
        start_s = time.monotonic()
        teller = _Teller()
        async for step in handle.follow():
            if step.fraction is not None:
                bar.show(step.fraction, step.message)
            for line in teller.lines(step):
                say(f"+{time.monotonic() - start_s:<9.3f} {line}")
    return await handle.wait()


class _NoBar:
    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, done: float, text: str) -> None:
        pass


def _to_stdout(line: str) -> None:
    write_lines([line])


class _Teller:
    """What is new in a step."""

    def __init__(self) -> None:
        self._state: tuple[str, int, str] | None = None
        self._progress: tuple[float | None, str] = (None, "")

    def lines(self, step: Step) -> list[str]:
        lines = []
        state = (step.state.name, step.attempt, step.worker)
        if state != self._state and not step.final:
            lines.append(_state_line(step))
        self._state = state
        progress = (step.fraction, step.message)
        if progress not in (self._progress, (None, "")):
            share = f"{step.fraction:.0%}  " if step.fraction is not None else ""
            lines.append(f"  {share}{step.message}".rstrip())
            self._progress = progress
        lines += [f"  | {line}" for line in step.log]
        if step.final:
            lines.append(_state_line(step))
        return lines


def _state_line(step: Step) -> str:
    if step.final:
        tries = f"after {step.attempt} attempt{'' if step.attempt == 1 else 's'}" if step.attempt else ""
        return f"{step.state.name}  {tries}".rstrip()
    after = "after " if step.state in NOT_RUNNING else ""
    on = f"  {after}attempt {step.attempt} on {step.worker}" if step.worker else ""
    return f"{step.state.name}{on}"


async def _document(handle: TaskHandle) -> Result:
    begin_list("steps")
    async for step in handle.follow():
        add_item({"time": datetime.now(UTC), **msgspec.structs.asdict(step), "state": step.state.name})
    return await handle.wait()
