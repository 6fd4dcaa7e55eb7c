"""What somebody who follows a task gets to see."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from merit.model.frames import Settled, Update
from merit.model.tasks import TaskState
from merit.sdk.results import MeritError
from merit.session.newest import newer_update


class Step(Struct, frozen=True, gc=False):
    """What has become of a task since the step before."""

    task: str
    state: TaskState
    attempt: int
    """How many there have been, the one that runs included."""
    worker: str
    """That has the last attempt; empty before the first one."""
    fraction: float | None
    """How far the attempt is, 0..1; None: nothing is known."""
    message: str
    log: tuple[str, ...]
    """Lines that were written since the step before."""

    @property
    def final(self) -> bool:
        """Whether this is the last one."""
        return self.state.final


class Follower:
    """Joins what is not read in time, so that it never holds more than one step and the final one."""

    __slots__ = ("_failure", "_settled", "_some", "_told", "_update")

    def __init__(self) -> None:
        self._update: Update | None = None
        self._settled: Settled | None = None
        self._failure: MeritError | None = None
        self._told = False
        """The final step has been taken."""
        self._some = asyncio.Event()

    def put(self, update: Update) -> None:
        """One more step."""
        self._update = update if self._update is None else newer_update(self._update, update)
        self._some.set()

    def settle(self, settled: Settled) -> None:
        """The task has ended."""
        self._settled = settled
        self._some.set()

    def fail(self, error: MeritError) -> None:
        """Nothing more will come."""
        self._failure = error
        self._some.set()

    async def take(self) -> Step | None:
        """The next step, None after the final one.

        Raises:
            MeritError: what ``fail`` was given.
        """
        while True:
            update, self._update = self._update, None
            # A final state is told with the outcome, once; what comes with it before is the rest of the log.
            if update is not None and (update.log or not update.state.final):
                state = TaskState.RUNNING if update.state.final else update.state
                fraction = update.fraction if update.fraction >= 0 else None
                return Step(update.task, state, update.attempts, update.worker, fraction, update.message, update.log)
            settled = self._settled
            if settled is not None:
                if self._told:
                    return None
                self._told = True
                return Step(settled.task, settled.state, settled.attempts, settled.worker, None, "", ())
            if self._failure is not None:
                raise self._failure
            self._some.clear()
            await self._some.wait()
