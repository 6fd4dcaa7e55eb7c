"""What a client is told: results of tasks, and what can go wrong."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from merit.model.tasks import Failure, Refusal, TaskState


class MeritError(Exception):
    """Base of what a client raises."""


class TaskFailedError(MeritError):
    """The task is DEAD: it failed for good. ``failure`` says why."""

    def __init__(self, task: str, failure: Failure) -> None:
        self.task = task
        self.failure = failure
        super().__init__(f"task {task} failed ({failure.kind}): {failure.message}")


class TaskCanceledError(MeritError):
    """The task was called off before it was completed."""

    def __init__(self, task: str) -> None:
        self.task = task
        super().__init__(f"task {task} was canceled")


class ResultExpired(MeritError):
    """The task was completed so long ago that the control plane has its result no more. ``failure`` says why."""

    def __init__(self, task: str, failure: Failure) -> None:
        self.task = task
        self.failure = failure
        super().__init__(f"task {task}: {failure.message}")


class Refused(MeritError):
    """Something asked for was refused; ``refusal`` names the field and the reason."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(f"{refusal.field}: {refusal.reason}")


class Unreachable(MeritError):
    """There is no control plane at the address, or it went away; the message says what to do."""


class Result(Struct, frozen=True, gc=False):
    """How a task ended. ``worker`` made the last attempt; ``attempts`` counts them all."""

    task: str
    state: TaskState
    json: bytes
    """The result as JSON; empty unless ``ok``, and if it is kept no longer."""
    failure: Failure | None
    """Why there is no result."""
    attempts: int
    worker: str

    @property
    def ok(self) -> bool:
        """Whether the task is COMPLETED."""
        return self.state is TaskState.COMPLETED

    @property
    def value(self) -> Any:
        """The result itself.

        Raises:
            TaskFailedError, TaskCanceledError, ResultExpired: there is none.
        """
        if self.state is TaskState.COMPLETED:
            if not self.json and self.failure is not None:
                raise ResultExpired(self.task, self.failure)
            return msgspec.json.decode(self.json)
        if self.state is TaskState.CANCELED:
            raise TaskCanceledError(self.task)
        raise TaskFailedError(self.task, self.failure or Failure("unexplained", "no reason was given"))
