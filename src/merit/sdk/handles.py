"""What a client hands out for submitted tasks, and how it learns that many of them are done."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct

from merit.model.frames import Settled
from merit.model.limits import ATTEMPTS_DEFAULT, RUN_TIMEOUT_NS_DEFAULT, SECOND_NS
from merit.model.tasks import Priority, Refusal
from merit.sdk.results import MeritError, Refused, Result


class TaskRequest(Struct, frozen=True, kw_only=True, gc=False):
    """A task to be submitted. Times are seconds; ``after`` are tasks that must be completed first."""

    capability: str
    parameters: Mapping[str, Any] = {}
    priority: Priority = Priority.MEDIUM
    run_timeout_s: float = RUN_TIMEOUT_NS_DEFAULT / SECOND_NS
    attempts_max: int = ATTEMPTS_DEFAULT
    after: tuple[str, ...] = ()
    description: str = ""


class Source(Protocol):
    """What a handle needs of its client."""

    def unaccepted(self, handle: TaskHandle) -> bool:
        """Whether it is not known yet if the task was taken."""
        ...

    def request_cancel(self, task_id: str) -> None:
        """Ask for a task to be called off, without waiting."""
        ...

    async def content(self, blob: str) -> bytes:
        """A content from the blob store."""
        ...


class TaskHandle:
    """A submitted task. Await ``result`` for its value, or ``wait`` for how it ended."""

    __slots__ = ("_accepted", "_done", "_failure", "_settled", "_sink", "_source", "id", "refusal", "tag")

    def __init__(self, source: Source, task_id: str, sink: Completions | None = None, tag: Any = None) -> None:
        self.id = task_id
        self.refusal: Refusal | None = None
        """Why the task was never taken, or None."""
        self.tag = tag
        """Whatever the one who submitted wants to find here again."""
        self._source = source
        self._settled: Settled | None = None
        self._sink = sink
        self._failure: MeritError | None = None
        # A future for each who waits, so that giving up one wait is nobody else's business.
        self._accepted: list[asyncio.Future[None]] | None = None
        self._done: list[asyncio.Future[None]] | None = None

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._settled is not None or self.refusal is not None

    async def accepted(self) -> None:
        """Wait until the task is durable.

        Raises:
            Refused: it was not taken.
            MeritError: the client was closed.
        """
        if self._source.unaccepted(self):
            if self._failure is not None:
                raise self._failure
            if self._accepted is None:
                self._accepted = []
            await _one_more(self._accepted)
        if self.refusal is not None:
            raise Refused(self.refusal)

    async def wait(self, timeout_s: float | None = None) -> Result:
        """How the task ended, once it has.

        Raises:
            TimeoutError: it has not within ``timeout_s``; it goes on.
            Refused: the task was never taken.
            MeritError: the client was closed.
        """
        if not self.done:
            if self._failure is not None:
                raise self._failure
            if self._done is None:
                self._done = []
            done = _one_more(self._done)
            try:
                await (done if timeout_s is None else asyncio.wait_for(done, timeout_s))
            except TimeoutError:
                raise TimeoutError(f"task {self.id} has not ended within {timeout_s:g} s; it goes on") from None
        if self.refusal is not None:
            raise Refused(self.refusal)
        settled = self._settled
        if settled is None:
            raise MeritError("the client was closed")
        json = settled.result
        if settled.result_blob:
            json = await asyncio.wait_for(self._source.content(settled.result_blob), timeout_s)
        return Result(settled.task, settled.state, json, settled.failure, settled.attempts, settled.worker)

    async def result(self, timeout_s: float | None = None) -> Any:
        """The task's value.

        Raises:
            TaskFailedError, TaskCanceledError: it has none; and what ``wait`` raises.
        """
        return (await self.wait(timeout_s)).value

    def cancel(self) -> None:
        """Ask for it to be called off; ``wait`` tells what came of that."""
        self._source.request_cancel(self.id)

    # For the client

    def accept(self) -> None:
        """The task is durable."""
        if self._accepted is not None:
            _wake(self._accepted)
            self._accepted = None

    def refuse(self, refusal: Refusal) -> None:
        """The task was not taken."""
        self.refusal = refusal
        self.accept()
        self._finish()

    def settle(self, settled: Settled) -> None:
        """The task has ended."""
        self._settled = settled
        self.accept()
        self._finish()

    def fail(self, error: MeritError) -> None:
        """Nothing more will be heard of the task."""
        self._failure = error
        for future in (*(self._accepted or ()), *(self._done or ())):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever waits gets it; that nobody does is nothing to be warned of
        if self._sink is not None:
            self._sink.fail(error)

    def _finish(self) -> None:
        if self._done is not None:
            _wake(self._done)
            self._done = None
        if self._sink is not None:
            self._sink.put(self)


def _one_more(waiting: list[asyncio.Future[None]]) -> asyncio.Future[None]:
    if waiting:  # those whose patience was over are not kept
        waiting[:] = [other for other in waiting if not other.done()]
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting.append(future)
    return future


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)


class Completions:
    """Handles in the order in which they were done; taken all at once, so that a burst costs one wake-up."""

    def __init__(self) -> None:
        self._done: deque[TaskHandle] = deque()
        self._some = asyncio.Event()
        self._failure: MeritError | None = None

    def fail(self, error: MeritError) -> None:
        """Nothing more will come."""
        self._failure = error
        self._some.set()

    def put(self, handle: TaskHandle) -> None:
        """One more is done."""
        self._done.append(handle)
        self._some.set()

    async def take(self) -> list[TaskHandle]:
        """All that are done and not yet taken, at least one. Raises what ``fail`` was given."""
        while not self._done:
            if self._failure is not None:
                raise self._failure
            self._some.clear()
            await self._some.wait()
        taken = list(self._done)
        self._done.clear()
        return taken
