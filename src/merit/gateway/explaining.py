"""What the gateway needs of whoever explains past decisions: that takes a process which reads the journal."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from msgspec import Struct

from merit.core.explaining import Explanation


class FoldedSoFar(Struct, frozen=True):
    """How far the journal is read: to ``sequence`` of ``last``."""

    sequence: int
    last: int


class CannotExplain(Exception):
    """It cannot be found out; the message says why, and what to do. ``busy``: try again later."""

    def __init__(self, message: str, *, busy: bool = False) -> None:
        super().__init__(message)
        self.busy = busy


class Explainer(Protocol):
    """Reads the journal beside the cell."""

    def explain(
        self, task_id: str, number: int, assigned_ns: int, rulings_max: int
    ) -> AsyncGenerator[FoldedSoFar | Explanation, None]:
        """Why an attempt went to its worker: how far it is now and then, and at last the explanation.

        Args:
            task_id: of the task.
            number: of the attempt.
            assigned_ns: when that was given out, Unix time.
            rulings_max: workers that are told of at most.

        Raises:
            CannotExplain: with the reason.
        """
        ...
