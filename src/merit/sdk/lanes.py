"""A lane: a queue of attempts and the threads that run them.

No executor and no future per attempt. The threads of a lane take attempts off one deque; a thread that finds none parks on
a lock of its own. At most one thread is on its way up at any time, and it wakes the next one if there is more to do: with
tasks of a microsecond one thread does them all without a context switch, with tasks that wait for the network all threads
are soon running. (The idea is that of the Go scheduler's spinning threads.)

Deques and dicts are used across threads by single atomic operations only; where two of them must agree, the order
makes a lost wake-up impossible: a producer appends and then looks for parked threads, a thread parks and then looks for work.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from merit.sdk.capability import Capability
from merit.sdk.context import Context
from merit.sdk.execution import Job, run_here
from merit.sdk.memory import MemoryGauge
from merit.sdk.outcome import LogLine, Outcome, ProgressNote


class Held(Context):
    """An attempt that the runner holds: the context of its function, and what the runner must know of it."""

    __slots__ = ("capability", "gate", "interrupt", "parameters", "queued_ns")

    def __init__(self, job: Job, capability: Capability[..., Any], on_progress: Callable[[ProgressNote], None]) -> None:
        super().__init__(job.attempt, job.task, job.number, job.deadline_ns, on_progress)
        self.capability = capability
        self.parameters = job.parameters
        self.queued_ns = time.monotonic_ns()
        self.gate: Turnstile | None = None
        # What reaches it when it is cancelled, beyond the flag. A body sets this and then looks at the flag; who cancels
        # sets the flag and then looks at this.
        self.interrupt: Callable[[], object] | None = None

    def add_line(self, line: LogLine) -> None:
        """Keep a line within the bounds, and let those who follow see it in any case."""
        super().add_line(line)
        self.pass_on(ProgressNote(self.attempt, -1.0, 0.0, None, "", line.time_ns, (line.text,)))


class Turnstile:
    """Lets at most `limit` attempts of one capability into its queue; the others wait here, in order. For the loop's thread."""

    __slots__ = ("_inside", "_limit", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside: set[str] = set()
        self._waiting: dict[str, Held] = {}

    def enter(self, held: Held) -> bool:
        """Whether it may go in at once."""
        held.gate = self
        if len(self._inside) < self._limit:
            self._inside.add(held.attempt)
            return True
        self._waiting[held.attempt] = held
        return False

    def leave(self, held: Held) -> list[Held]:
        """Those that may go in, now that `held` is gone."""
        self._waiting.pop(held.attempt, None)
        self._inside.discard(held.attempt)
        admitted: list[Held] = []
        while self._waiting and len(self._inside) < self._limit:
            following = self._waiting.pop(next(iter(self._waiting)))
            self._inside.add(following.attempt)
            admitted.append(following)
        return admitted


class Keeper(Protocol):
    """What those who run attempts need of the runner. Its methods may be called from any thread."""

    @property
    def result_bytes_max(self) -> int:
        """The largest result that is accepted."""

    @property
    def memory(self) -> MemoryGauge:
        """The gauge of this process."""

    def begin(self, held: Held) -> None:
        """Note that an attempt has begun."""

    def end(self, outcome: Outcome) -> None:
        """Hand in an outcome."""


class Body(Protocol):
    """What one thread of a lane does with attempts."""

    def run(self, held: Held) -> None:
        """Run one attempt to its end; must not raise."""

    def close(self) -> None:
        """Called in the same thread when the lane ends."""


class ThreadBody:
    """Runs plain functions in the thread itself."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    def run(self, held: Held) -> None:
        """Run one attempt and hand in its outcome."""
        keeper = self._keeper
        keeper.begin(held)
        keeper.end(run_here(held.capability, held.parameters, held, keeper.memory, keeper.result_bytes_max))

    def close(self) -> None:
        """Nothing is kept between attempts."""


class ThreadLane:
    """Threads, at most `width`, started when there is work for them. `start`, `close` are for one thread, the loop's."""

    def __init__(self, name: str, width: int, make_body: Callable[[], Body], unbegun: dict[str, Held]) -> None:
        """`unbegun` holds what has not begun, by attempt: whoever pops an attempt from it owns it."""
        self._name = name
        self._width = width
        self._make_body = make_body
        self._unbegun = unbegun
        self._queue: deque[Held] = deque()
        self._parked: list[threading.Lock] = []
        self._rising = False
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._growing = threading.Lock()

    def put(self, held: Held) -> None:
        """Queue an attempt; `rouse` must follow."""
        self._queue.append(held)

    def rouse(self) -> None:
        """See to it that the queue is worked on."""
        if self._queue and not self._rising:
            self._raise_one()

    def discard(self, held: Held) -> None:
        """Take an attempt out of the queue that was popped from `unbegun`, so that it keeps no memory."""
        try:
            self._queue.remove(held)
        except ValueError:  # a thread has just taken it off, and will find that it is no longer its own
            pass

    def close(self) -> None:
        """Let each thread end after the attempt that it runs. Does not wait."""
        self._closed = True
        while self._wake_parked():
            pass

    @property
    def ended(self) -> bool:
        """Whether no thread is left."""
        return not any(thread.is_alive() for thread in self._threads)

    def _raise_one(self) -> None:
        while True:
            self._rising = True
            if self._wake_parked() or self._grow():
                return
            # All threads are at work, and each looks at the queue when it is done. But one may have parked since we
            # looked, and a producer may have relied on the flag: look again.
            self._rising = False
            if not (self._queue and self._parked):
                return

    def _grow(self) -> bool:
        with self._growing:
            if self._closed or len(self._threads) >= self._width:
                return False
            try:
                body = self._make_body()
                thread = threading.Thread(
                    target=self._work, args=(body,), name=f"{self._name}-{len(self._threads)}", daemon=True
                )
                thread.start()
            except (RuntimeError, OSError):
                # The system gives no more threads or pipes: go on with those that are there.
                if not self._threads:
                    self._rising = False
                    raise
                return False
            self._threads.append(thread)
        return True

    def _wake_parked(self) -> bool:
        try:
            self._parked.pop().release()
        except IndexError:
            return False
        return True

    def _work(self, body: Body) -> None:
        own = threading.Lock()
        own.acquire()
        queue, claim = self._queue, self._unbegun.pop
        self._rising = False
        while not self._closed:
            try:
                queued = queue.popleft()
            except IndexError:
                self._park(own)
                continue
            held = claim(queued.attempt, None)
            if held is None:
                continue  # withdrawn or cancelled meanwhile
            if queue and not self._rising:
                self._raise_one()
            body.run(held)
            del held, queued  # a parked thread must not keep the last attempt's parameters alive
        body.close()

    def _park(self, own: threading.Lock) -> None:
        self._parked.append(own)
        if self._queue or self._closed:
            try:
                self._parked.remove(own)
            except ValueError:  # already being woken: take the wake-up
                own.acquire()
        else:
            own.acquire()
        self._rising = False
