"""The lane of async functions: tasks on the worker's own loop."""

from __future__ import annotations

import asyncio
import time
import types
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any

from merit.sdk.capability import Capability
from merit.sdk.context import Context, active
from merit.sdk.execution import canceled, error_of, finish, too_large
from merit.sdk.lanes import Held, Keeper
from merit.sdk.memory import MemoryGauge
from merit.sdk.outcome import AttemptError, Outcome


class LoopLane:
    """Runs at most `width` async functions at a time. Like `ThreadLane`, but all of it happens in the loop's thread."""

    def __init__(self, width: int, keeper: Keeper, unbegun: dict[str, Held]) -> None:
        """`unbegun` holds what has not begun, by attempt."""
        self._width = width
        self._keeper = keeper
        self._unbegun = unbegun
        self._queue: deque[Held] = deque()
        self._tasks: set[asyncio.Task[Outcome]] = set()

    def put(self, held: Held) -> None:
        """Queue an attempt; `rouse` must follow."""
        self._queue.append(held)

    def rouse(self) -> None:
        """Start what there is room for."""
        while self._queue and len(self._tasks) < self._width:
            held = self._queue.popleft()
            if self._unbegun.pop(held.attempt, None) is not None:
                self._start(held)

    def discard(self, held: Held) -> None:
        """Take an attempt out of the queue that was popped from `unbegun`."""
        if held in self._queue:
            self._queue.remove(held)

    def close(self) -> None:
        """Nothing is kept between attempts."""

    @property
    def ended(self) -> bool:
        """Whether no task is left."""
        return not self._tasks

    def _start(self, held: Held) -> None:
        keeper = self._keeper
        keeper.begin(held)
        work = run_on_loop(held.capability, held.parameters, held, keeper.memory, keeper.result_bytes_max)
        task = asyncio.get_running_loop().create_task(work, name=f"merit-{held.attempt}")
        self._tasks.add(task)
        held.interrupt = task.cancel

        def done(ended: asyncio.Task[Outcome]) -> None:
            self._tasks.discard(ended)
            # A task that is cancelled before its first step never runs a line of it.
            keeper.end(finish(held, b"", canceled(), 0, 0, 0, 0) if ended.cancelled() else ended.result())
            self.rouse()

        task.add_done_callback(done)


async def run_on_loop(
    capability: Capability[..., Any],
    parameters: bytes,
    context: Context,
    memory: MemoryGauge,
    result_bytes_max: int,
) -> Outcome:
    """Run an async function in this task; never raises, like `run_here`. Its CPU time is that of its own steps."""
    signature = capability.signature
    active.set(context)
    result = b""
    error: AttemptError | None = None
    meter = _Meter()
    started_ns = time.time_ns()
    wall_ns = time.perf_counter_ns()
    try:
        arguments = signature.decode(parameters)
        if signature.context_parameter is not None:
            arguments[signature.context_parameter] = context
        result = signature.encode(await meter.measured(capability.function(**arguments)))
        if len(result) > result_bytes_max:
            result, error = b"", too_large(len(result), result_bytes_max)
    except asyncio.CancelledError as raised:  # the task is the runner's own: nobody else waits for it to be passed on
        error = canceled() if context.cancelled else error_of(raised, context)
    except BaseException as raised:  # noqa: BLE001 — SystemExit and KeyboardInterrupt would end the loop
        error = error_of(raised, context)
    now_ns = time.perf_counter_ns()
    wall_ns = now_ns - wall_ns
    return finish(context, result, error, started_ns, wall_ns, meter.cpu_ns, memory.peak_bytes(now_ns, wall_ns))


class _Meter:
    """Adds up the thread time of a coroutine's steps, and not of what else the loop does while it waits."""

    __slots__ = ("cpu_ns",)

    def __init__(self) -> None:
        self.cpu_ns = 0

    @types.coroutine
    def measured(self, inner: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Await `inner`."""
        resume: Any = inner.send
        value: Any = None
        while True:
            before_ns = time.thread_time_ns()
            try:
                wanted = resume(value)
            except StopIteration as end:
                return end.value
            finally:
                self.cpu_ns += time.thread_time_ns() - before_ns
            try:
                value = yield wanted
                resume = inner.send
            except BaseException as thrown:  # noqa: BLE001 — a cancel of the task belongs to the function
                value = thrown
                resume = inner.throw
