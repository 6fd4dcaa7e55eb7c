"""The client for programs without an event loop: the same as ``AsyncClient``, on a loop in a thread of its own.

All clients of a process share that thread, since gRPC wants one loop per process. A program that runs an event loop
itself should use ``AsyncClient``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar, Unpack

from merit.model.tasks import Refusal
from merit.model.tenancy import DEFAULT_TENANT
from merit.sdk.client import MAP_WINDOW, AsyncClient
from merit.sdk.following import Step
from merit.sdk.handles import TaskHandle
from merit.sdk.operations import Where
from merit.sdk.options import MapArguments, OptionArguments, Options, TaskRequest
from merit.sdk.results import Result
from merit.sdk.sync_operations import BlockingOperations
from merit.sdk.views import Page

T = TypeVar("T")
_BATCHES_AHEAD = 2
"""Batches of results that wait for the one who takes them; only then are more calls made."""


class _LoopThread:
    """The one loop of this process for all of its clients; it lives as long as the process."""

    _lock = threading.Lock()
    _loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def loop(cls) -> asyncio.AbstractEventLoop:
        with cls._lock:
            if cls._loop is None:
                cls._loop = asyncio.new_event_loop()
                threading.Thread(target=cls._loop.run_forever, name="merit-client", daemon=True).start()
            return cls._loop


class SubmittedTask:
    """A submitted task: ``result`` waits for its value, ``wait`` for how it ended."""

    def __init__(self, handle: TaskHandle, loop: asyncio.AbstractEventLoop) -> None:
        self._handle = handle
        self._loop = loop

    @property
    def id(self) -> str:
        """Of the task."""
        return self._handle.id

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._handle.done

    def wait(self, timeout_s: float | None = None) -> Result:
        """How the task ended, once it has. Raises as ``TaskHandle.wait``."""
        return asyncio.run_coroutine_threadsafe(self._handle.wait(timeout_s), self._loop).result()

    def result(self, timeout_s: float | None = None) -> Any:
        """The task's value. Raises as ``TaskHandle.result``."""
        return self.wait(timeout_s).value

    def follow(self) -> Iterator[Step]:
        """What happens to the task, step by step, until it has ended. As ``TaskHandle.follow``."""
        return _taken_here(self._handle.follow(), self._loop)

    def cancel(self) -> None:
        """Ask for it to be called off; ``wait`` tells what came of that."""
        self._loop.call_soon_threadsafe(self._handle.cancel)


class Client:
    """Submits tasks to a control plane and tells what became of them.

    Use it as ``with Client() as merit: …``. See ``AsyncClient`` for what the methods do and raise.
    """

    def __init__(
        self, server: str | None = None, *, connect_timeout_s: float = 10.0, tenant: str = DEFAULT_TENANT
    ) -> None:
        self._loop = _LoopThread.loop()
        self._client = AsyncClient(server, connect_timeout_s=connect_timeout_s, tenant=tenant)
        self._operations = BlockingOperations(
            self._client.operations, self._do, lambda items: _taken_here(items, self._loop)
        )

    def __enter__(self) -> Client:
        self._do(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stream. Submitted tasks go on."""
        self._do(self._client.aclose())

    @property
    def tenant(self) -> str:
        """Whose tasks they are."""
        return self._client.tenant

    @property
    def operations(self) -> BlockingOperations:
        """What operators see and set: queues, limits, tenants, dead letters, schedules, the fleet."""
        return self._operations

    def submit(
        self,
        capability: str,
        parameters: Mapping[str, Any] | None = None,
        **options: Unpack[OptionArguments],
    ) -> SubmittedTask:
        """Submit one task; it is durable when this returns. ``Options`` says what may be asked for."""
        return SubmittedTask(self._do(self._client.submit(capability, parameters, **options)), self._loop)

    def submit_many(self, requests: Sequence[TaskRequest]) -> list[SubmittedTask]:
        """Submit tasks: each part of up to 1,000 is taken as a whole or not at all; all are durable on return."""
        return [SubmittedTask(handle, self._loop) for handle in self._do(self._client.submit_many(requests))]

    def map(
        self,
        capability: str,
        inputs: Iterable[Mapping[str, Any]],
        *,
        ordered: bool = True,
        window: int = MAP_WINDOW,
        **options: Unpack[MapArguments],
    ) -> Iterator[Result]:
        """Run a capability on each input, ``window`` of them in flight; results in order, or as they come."""
        pairs = ((capability, parameters) for parameters in inputs)
        for _, result in self.calls(pairs, window=window, options=Options(**options), ordered=ordered):
            yield result

    def calls(
        self,
        calls: Iterable[tuple[str, Mapping[str, Any]]],
        *,
        window: int = MAP_WINDOW,
        options: Options | None = None,
        ordered: bool = False,
    ) -> Iterator[tuple[int, Result]]:
        """Run each call (capability and parameters); its place among the calls, and its result, as they come.

        ``calls`` is iterated in the client's thread, a window ahead of the results, and no further ahead of the one who
        takes them than a few windows.
        """
        queue: SimpleQueue[list[tuple[int, Result]] | BaseException | None] = SimpleQueue()
        room = asyncio.Semaphore(_BATCHES_AHEAD)

        async def feed() -> None:
            try:
                async for batch in self._client.batches(calls, window=window, options=options, ordered=ordered):
                    await room.acquire()
                    queue.put([(handle.tag, await handle.wait()) for handle in batch])
                queue.put(None)
            except BaseException as error:  # noqa: BLE001  (raised again where the results are taken)
                queue.put(error)

        feeding = asyncio.run_coroutine_threadsafe(feed(), self._loop)
        try:
            while (batch := queue.get()) is not None:
                if isinstance(batch, BaseException):
                    raise batch
                yield from batch
                self._loop.call_soon_threadsafe(room.release)
        finally:
            feeding.cancel()

    def wait(self, tasks: Iterable[SubmittedTask], timeout_s: float | None = None) -> list[Result]:
        """How these tasks ended, in their order, once all have."""
        return self._do(self._client.wait([task._handle for task in tasks], timeout_s))

    def as_completed(self, tasks: Iterable[SubmittedTask], timeout_s: float | None = None) -> Iterator[SubmittedTask]:
        """These tasks in the order in which they end."""
        handles = {task._handle: task for task in tasks}
        for handle in _taken_here(self._client.as_completed(handles, timeout_s), self._loop):
            yield handles[handle]

    def watch(self, task_id: str) -> SubmittedTask:
        """A handle for a task that was submitted before, by anybody."""

        async def watch() -> TaskHandle:
            return self._client.watch(task_id)

        return SubmittedTask(self._do(watch()), self._loop)

    def cancel(self, ids: Sequence[str], reason: str = "") -> list[Refusal]:
        """Call tasks off; durable on return. What could not be, with the reason."""
        return self._do(self._client.cancel(ids, reason))

    def task(self, task_id: str) -> dict[str, Any]:
        """Everything about one task, as JSON has it."""
        return self._do(self._client.task(task_id))

    def tasks(
        self,
        *,
        state: str = "",
        capability: str = "",
        limit: int = 100,
        cursor: str = "",
        where: Where | None = None,
        at_least: int = 0,
    ) -> Page:
        """Tasks, newest first, a page at a time; see ``AsyncClient.tasks``."""
        return self._do(
            self._client.tasks(
                state=state, capability=capability, limit=limit, cursor=cursor, where=where, at_least=at_least
            )
        )

    def workers(self) -> list[dict[str, Any]]:
        """The workers that the control plane knows."""
        return self._do(self._client.workers())

    def status(self) -> dict[str, Any]:
        """The control plane in a few numbers."""
        return self._do(self._client.status())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _taken_here(items: AsyncGenerator[T, None], loop: asyncio.AbstractEventLoop) -> Iterator[T]:
    """What an asynchronous generator of the client's loop yields, in this thread."""

    async def following() -> T | None:
        return await anext(items, None)

    while True:
        waiting = asyncio.run_coroutine_threadsafe(following(), loop)
        try:
            item = waiting.result()
        except BaseException:  # this thread was interrupted while it waited: the generator ends by the cancel
            waiting.cancel()
            raise
        if item is None:
            return
        try:
            yield item
        except GeneratorExit:
            asyncio.run_coroutine_threadsafe(items.aclose(), loop).result()
            raise
