"""The tasks of a worker that is dialled: what runs, what has ended lately, and who waits to hear of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from hashlib import sha256
from typing import Final

import msgspec

from merit.model.limits import (
    FAILURE_MESSAGE_LENGTH_MAX,
    MESSAGE_BYTES_MAX,
    NAME_LENGTH_MAX,
    RUN_TIMEOUT_NS_MAX,
    SECOND_NS,
)
from merit.sdk.execution import Job
from merit.sdk.outcome import Outcome
from merit.sdk.runner import Runner
from merit.wire.unary import FINAL, KIND_KEY, PERMANENT_KEY, TASK_KEY, BadParameter, parameters_of
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary

HELD_MAX: Final = 1_000
"""Tasks that wait or run; more are refused."""
ENDED_MAX: Final = 1_000
ENDED_BYTES_MAX: Final = 64 * 1024 * 1024
"""Tasks that have ended and are kept for whoever asks for their end, and their results."""
RESULT_BYTES_MAX: Final = MESSAGE_BYTES_MAX - 64 * 1024
"""Larger than this no result may be: one message has to hold it."""

_STATUS: Final = {
    "completed": unary.TASK_STATUS_COMPLETED,
    "failed": unary.TASK_STATUS_FAILED,
    "canceled": unary.TASK_STATUS_CANCELED,
}


class UnaryRefused(Exception):
    """The worker does not take a task; the message says why."""


class _Entry:
    """One task. ``content``: digest of what it asks for. ``moved`` is set, and replaced, when its status changes."""

    def __init__(self, task: unary.Task, content: bytes) -> None:
        self.result = unary.TaskResult(task_id=task.task_id, status=unary.TASK_STATUS_PENDING)
        self.content = content
        self.moved = asyncio.Event()
        self.timer: asyncio.TimerHandle | None = None
        self.readers = 0

    @property
    def final(self) -> bool:
        return self.result.status in FINAL

    def move(self, result: unary.TaskResult) -> None:
        """It is somewhere else now. Readers keep what they were given, which does not change."""
        self.result = result
        moved, self.moved = self.moved, asyncio.Event()
        moved.set()


class UnaryTasks:
    """All methods are for the thread of the worker's loop.

    Args:
        runner: runs them.
        capabilities: the names of what it can do.
    """

    def __init__(self, runner: Runner, capabilities: Collection[str]) -> None:
        self._runner = runner
        self._capabilities = capabilities
        self._entries: dict[str, _Entry] = {}
        self._ended: dict[str, int] = {}
        """In the order in which they ended, with the bytes of their results."""
        self._ended_bytes = 0
        self._changed = asyncio.Event()

    @property
    def held(self) -> int:
        """Tasks that wait or run."""
        return len(self._entries) - len(self._ended)

    def begin(self, task: unary.Task) -> None:
        """Take a task, unless it is here already.

        Raises:
            UnaryRefused: it cannot be taken.
        """
        if not 1 <= len(task.task_id) <= 2 * NAME_LENGTH_MAX:
            raise UnaryRefused(f"task_id: has {len(task.task_id):,} characters; 1 to {2 * NAME_LENGTH_MAX}")
        if task.capability_name not in self._capabilities:
            raise UnaryRefused(f"capability_name: this worker has no {task.capability_name[:NAME_LENGTH_MAX]!r}")
        if not 0 <= task.timeout_seconds <= RUN_TIMEOUT_NS_MAX // SECOND_NS:
            raise UnaryRefused(f"timeout_seconds: {task.timeout_seconds:,} is not between 0 and a year")
        try:
            parameters = parameters_of(task)
        except BadParameter as error:
            raise UnaryRefused(str(error)) from None
        content = sha256(task.capability_name.encode() + b"\0" + parameters).digest()
        known = self._entries.get(task.task_id)
        if known is not None:
            if known.content != content:
                raise UnaryRefused("task_id: names another task here already; make a new id")
            return
        if self.held >= HELD_MAX:
            raise UnaryRefused(f"{HELD_MAX:,} tasks are here already; try again later")
        entry = self._entries[task.task_id] = _Entry(task, content)
        deadline_ns = 0
        if task.timeout_seconds:
            deadline_ns = time.time_ns() + task.timeout_seconds * SECOND_NS
            loop = asyncio.get_running_loop()
            entry.timer = loop.call_later(task.timeout_seconds, self._time_out, task.task_id)
        merits = task.metadata.get(TASK_KEY, task.task_id)
        self._runner.start([Job(task.task_id, merits, 1, task.capability_name, parameters, deadline_ns)])

    def cancel(self, task_id: str) -> None:
        """Call a task off. What its function still does does not matter any more.

        Raises:
            LookupError: it is not here.
        """
        self._entry(task_id)
        self._runner.cancel(task_id)
        self._settle(task_id, _failed(unary.TASK_STATUS_CANCELED, "canceled", "canceled on request"))

    async def follow(self, task_id: str) -> AsyncIterator[unary.TaskResult]:
        """Where the task is, each time that this changes, to its end. Raises ``LookupError`` when it is not here."""
        entry = self._entry(task_id)
        entry.readers += 1
        try:
            while True:
                result, moved = entry.result, entry.moved
                yield result
                if result.status in FINAL:
                    return
                await moved.wait()
        finally:
            entry.readers -= 1
            self._changed.set()

    def collect(self) -> None:
        """Take in what has ended."""
        for outcome in self._runner.finished():
            self._settle(outcome.attempt, _result(outcome))

    def abandon(self) -> None:
        """The worker ends: so does what still runs."""
        for task_id in list(self._entries):
            self._settle(task_id, _failed(unary.TASK_STATUS_CANCELED, "canceled", "the worker was stopped"))

    def look(self) -> None:
        """See what has begun; what else functions say of their progress has no place in this contract."""
        for task_id in self._runner.started():
            entry = self._entries.get(task_id)
            if entry is not None and not entry.final:
                entry.move(unary.TaskResult(task_id=task_id, status=unary.TASK_STATUS_RUNNING))
        self._runner.progress(time.monotonic_ns())

    async def empty(self) -> None:
        """Wait until nothing is held."""
        while self.held:
            self._changed.clear()
            await self._changed.wait()

    async def read_out(self) -> None:
        """Wait until nobody is in the middle of a stream."""
        while any(entry.readers for entry in self._entries.values()):
            self._changed.clear()
            await self._changed.wait()

    def _entry(self, task_id: str) -> _Entry:
        entry = self._entries.get(task_id)
        if entry is None:
            raise LookupError(f"task_id: there is no task {task_id[:NAME_LENGTH_MAX]!r} here")
        return entry

    def _time_out(self, task_id: str) -> None:
        self._runner.cancel(task_id)
        self._settle(task_id, _failed(unary.TASK_STATUS_FAILED, "timed_out", "ran longer than its time-out"))

    def _settle(self, task_id: str, result: unary.TaskResult) -> None:
        """A task has come to its end; what comes after that changes nothing."""
        entry = self._entries.get(task_id)
        if entry is None or entry.final:
            return
        if entry.timer is not None:
            entry.timer.cancel()
        result.task_id = task_id
        result.completed_at.GetCurrentTime()
        entry.move(result)
        self._keep(task_id, len(result.output_json))
        self._changed.set()

    def _keep(self, task_id: str, size_bytes: int) -> None:
        self._ended[task_id] = size_bytes
        self._ended_bytes += size_bytes
        while len(self._ended) > ENDED_MAX or self._ended_bytes > ENDED_BYTES_MAX:
            oldest = next(iter(self._ended))
            self._ended_bytes -= self._ended.pop(oldest)
            del self._entries[oldest]


def _result(outcome: Outcome) -> unary.TaskResult:
    error = outcome.error
    if error is None:
        return unary.TaskResult(status=unary.TASK_STATUS_COMPLETED, output_json=outcome.result.decode())
    return _failed(_STATUS[outcome.status], error.kind, error.message, permanent=not error.retry)


def _failed(
    status: unary.TaskStatus.ValueType, kind: str, message: str, *, permanent: bool = False
) -> unary.TaskResult:
    message = message[:FAILURE_MESSAGE_LENGTH_MAX]
    return unary.TaskResult(
        status=status,
        output_json=msgspec.json.encode({"error": message}).decode(),
        error_message=message,
        metadata={KIND_KEY: kind, **({PERMANENT_KEY: "true"} if permanent else {})},
    )
