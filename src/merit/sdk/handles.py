"""What a client hands out for submitted tasks, and how it learns that many of them are done."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from merit.model.frames import Settled, Update
from merit.model.tasks import Refusal
from merit.sdk.following import Follower, Step
from merit.sdk.options import TaskRequest
from merit.sdk.results import MeritError, Refused, Result

__all__ = ["Completions", "OutcomeListener", "Source", "TaskHandle", "TaskRequest"]


class Source(Protocol):
    """What a handle needs of its client."""

    def unaccepted(self, handle: TaskHandle) -> bool:
        """Whether it is not known yet if the task was taken."""
        ...

    def request_cancel(self, task_id: str) -> None:
        """Ask for a task to be called off, without waiting."""
        ...

    def request_follow(self, task_id: str) -> None:
        """Ask for every step of a task, without waiting."""
        ...

    def unfollow(self, task_id: str) -> None:
        """Nobody here follows the task any more."""
        ...

    async def content(self, blob: str) -> bytes:
        """A content from the blob store."""
        ...


class OutcomeListener(Protocol):
    """Who wants to know when a task has ended."""

    def put(self, handle: TaskHandle) -> None:
        """It is done."""
        ...

    def fail(self, error: MeritError) -> None:
        """Nothing more will be heard of it."""
        ...


class TaskHandle:
    """A submitted task. Await ``result`` for its value, or ``wait`` for how it ended.

    ``id`` is that of an earlier task when the submit turned out to be that one by its idempotency key; it is certain once
    the task is accepted.
    """

    __slots__ = (
        "_accepted",
        "_done",
        "_failure",
        "_followers",
        "_listeners",
        "_settled",
        "_sink",
        "_source",
        "id",
        "refusal",
        "tag",
    )

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
        self._listeners: list[OutcomeListener] | None = None
        self._followers: list[Follower] | None = None

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

    async def follow(self) -> AsyncGenerator[Step, None]:
        """What happens to the task, step by step, until it has ended; the last one is how it ended.

        Steps that come faster than they are read are joined: the newest state, and the last of the log lines. What a
        worker says within a quarter of a second is joined as well, and what it says right before the end may not come:
        the whole log is part of the attempt (``AsyncClient.task``).

        Raises:
            Refused: the task was never taken.
            MeritError: the client was closed.
        """
        await self.accepted()
        follower = Follower()
        if self._settled is not None:
            follower.settle(self._settled)
        elif self._failure is not None:
            raise self._failure
        else:
            if self._followers is None:
                self._followers = []
                self._source.request_follow(self.id)
            self._followers.append(follower)
        try:
            while (step := await follower.take()) is not None:
                yield step
        finally:
            followers = self._followers
            if followers is not None and follower in followers:
                followers.remove(follower)
                if not followers:
                    self._followers = None
                    self._source.unfollow(self.id)

    # For the client

    def listen(self, listener: OutcomeListener) -> None:
        """Tell this one too when the task has ended, at once if it has."""
        if self.done:
            listener.put(self)
        elif self._failure is not None:
            listener.fail(self._failure)
        else:
            self._listeners = [*(self._listeners or ()), listener]

    def unlisten(self, listener: OutcomeListener) -> None:
        """It does not want to know any more."""
        if self._listeners is not None and listener in self._listeners:
            self._listeners.remove(listener)

    def put(self, handle: TaskHandle) -> None:
        """``handle``, which stands for the same task, is done."""
        if handle.refusal is not None:
            self.refuse(handle.refusal)
        elif handle._settled is not None:
            self.settle(handle._settled)

    def update(self, update: Update) -> None:
        """A step of the task."""
        for follower in self._followers or ():
            follower.put(update)
        for listener in self._listeners or ():
            if isinstance(listener, TaskHandle):  # another handle of the same task
                listener.update(update)

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
        listeners, self._listeners = self._listeners, None
        for listener in (*(listeners or ()), *([self._sink] if self._sink is not None else ())):
            listener.fail(error)
        self._end_following(error)

    def _finish(self) -> None:
        if self._done is not None:
            _wake(self._done)
            self._done = None
        if self._sink is not None:
            self._sink.put(self)
        if self._listeners is not None:
            listeners, self._listeners = self._listeners, None
            for listener in listeners:
                listener.put(self)
        if self._followers is not None:
            self._end_following()

    def _end_following(self, error: MeritError | None = None) -> None:
        followers, self._followers = self._followers, None
        for follower in followers or ():
            if self._settled is not None:
                follower.settle(self._settled)
            else:
                follower.fail(error or Refused(self.refusal or Refusal(self.id, "not_found", "id", "it is not known")))


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
