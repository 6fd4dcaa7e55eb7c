"""Runs attempts: plain functions in threads, async ones on the loop, CPU-bound ones in child processes.

All methods of `Runner` are for one thread, the one whose loop the worker runs on. It never blocks in them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from merit.sdk import process_child
from merit.sdk.capability import Capability, Mode
from merit.sdk.execution import Job, canceled, finish
from merit.sdk.lanes import Held, ThreadBody, ThreadLane, Turnstile
from merit.sdk.loop_lane import LoopLane
from merit.sdk.memory import MemoryGauge
from merit.sdk.notes import Notes
from merit.sdk.outcome import RESULT_BYTES_MAX, AttemptError, Outcome, ProgressNote
from merit.sdk.process_runner import ChildBody
from merit.sdk.schema import CapabilityError

CANCEL_GRACE_S = 1.0
_POLL_S = 0.02


class Runner:
    """The execution side of one worker.

    `wake` is called, from any thread, when there is something for `finished()`: once, and then not before `finished()` was
    called again (two threads that end at the same instant may both call it). Pass something like
    `lambda: loop.call_soon_threadsafe(…)`. Nothing that a function does reaches the caller as an exception.
    """

    def __init__(
        self,
        capabilities: Iterable[Capability[..., Any]],
        concurrency: int,
        wake: Callable[[], object],
        *,
        processes: int | None = None,
        result_bytes_max: int = RESULT_BYTES_MAX,
        cancel_grace_s: float = CANCEL_GRACE_S,
    ) -> None:
        """`concurrency` bounds each way of running by itself; `processes` the children (default: one per usable CPU).

        Raises ValueError for a bound below 1, CapabilityError for two capabilities of one name, RuntimeError where a child
        process imports a script that starts a worker while it is imported.
        """
        if concurrency < 1 or (processes is not None and processes < 1):
            raise ValueError("concurrency and processes must be at least 1")
        if process_child.importing_main:
            raise RuntimeError(
                "a worker started while its script was imported: start it under if __name__ == '__main__'"
            )
        self._capabilities: dict[str, Capability[..., Any]] = {}
        for item in capabilities:
            if self._capabilities.setdefault(item.name, item) is not item:
                raise CapabilityError(f"two capabilities are called {item.name}; rename one")
        self._wake = wake
        self._woken = False
        self._result_bytes_max = result_bytes_max
        self._cancel_grace_s = cancel_grace_s
        self._concurrency = concurrency
        self._memory = MemoryGauge()
        self._held: dict[str, Held | None] = {}  # None: ended before it was queued
        self._unbegun: dict[str, Held] = {}
        self._began: dict[str, None] = {}  # an ordered set, no larger than what is held
        self._outcomes: deque[Outcome] = deque()
        self._notes = Notes()
        self._gates = {
            c.name: Turnstile(c.concurrency) for c in self._capabilities.values() if c.concurrency is not None
        }
        children = min(concurrency, processes or _usable_cpus())
        modules = sorted({c.address[0] for c in self._capabilities.values() if c.mode == "process"})
        unbegun = self._unbegun
        self._lanes: dict[Mode, ThreadLane | LoopLane] = {
            "thread": ThreadLane("merit-thread", concurrency, lambda: ThreadBody(self), unbegun),
            "process": ThreadLane("merit-process", children, lambda: ChildBody(self, modules, cancel_grace_s), unbegun),
            "async": LoopLane(concurrency, self, unbegun),
        }
        self._closed = False

    def start(self, jobs: Sequence[Job]) -> None:
        """Take attempts on. One that is held already is ignored; one of an unknown capability fails.

        Raises RuntimeError after `close`.
        """
        if self._closed:
            raise RuntimeError("the runner is closed")
        for job in jobs:
            attempt = job.attempt
            if attempt in self._held:
                continue
            capability = self._capabilities.get(job.capability)
            if capability is None:
                self._held[attempt] = None
                unknown = AttemptError("unknown_capability", f"this worker has no capability {job.capability!r}")
                self.end(Outcome(attempt, "failed", error=unknown))
                continue
            held = Held(job, capability, self._notes.put)
            self._held[attempt] = self._unbegun[attempt] = held
            gate = self._gates.get(job.capability)
            if gate is None or gate.enter(held):
                self._lanes[capability.mode].put(held)
        self._rouse()

    def finished(self) -> list[Outcome]:
        """All outcomes since the last call; their attempts are no longer held."""
        self._woken = False  # first: an outcome that comes from here on wakes again
        taken: list[Outcome] = []
        outcomes, held_of, gates = self._outcomes, self._held, self._gates
        while outcomes:
            outcome = outcomes.popleft()
            taken.append(outcome)
            held = held_of.pop(outcome.attempt)
            self._began.pop(outcome.attempt, None)
            self._notes.forget(outcome.attempt)
            if gates and held is not None:
                self._leave_gate(held)
        if gates:
            self._rouse()
        return taken

    def started(self) -> list[str]:
        """Attempts that began since the last call and have not been handed out by `finished()`."""
        began = list(self._began)
        for attempt in began:
            del self._began[attempt]
        return began

    def progress(self, now_ns: int) -> list[ProgressNote]:
        """What attempts have said since it was last handed out, joined to one note each; of each at most one in a quarter
        of a second. `now_ns` is time.monotonic_ns().
        """
        return self._notes.take(now_ns)

    def held(self) -> list[str]:
        """Attempts that are queued, running, or ended and not yet handed out."""
        return list(self._held)

    def unstarted(self, older_than_ns: int, now_ns: int) -> list[str]:
        """Attempts that have waited for `older_than_ns` and not begun, oldest first. `now_ns` is time.monotonic_ns()."""
        before_ns = now_ns - older_than_ns
        return [held.attempt for held in list(self._unbegun.values()) if held.queued_ns <= before_ns]

    def withdraw(self, attempt: str) -> bool:
        """Take back an attempt that has not begun: it is no longer held and has no outcome. False if it has begun."""
        held = self._claim(attempt)
        if held is None:
            return False
        del self._held[attempt]
        self._leave_gate(held)
        self._rouse()
        return True

    def cancel(self, attempt: str) -> None:
        """Cancel an attempt; its outcome says what became of it. Unknown and ended ones are ignored.

        One that has not begun ends at once. Otherwise a plain function sees `Context.cancelled`, an async one gets
        CancelledError, and a process that goes on for longer than the grace (1 s) is killed.
        """
        held = self._held.get(attempt)
        if held is None or held.cancelled:
            return
        held.set_cancelled()
        if self._claim(attempt) is not None:
            self.end(finish(held, b"", canceled("canceled before it began"), 0, 0, 0, 0))
        elif held.interrupt is not None:
            held.interrupt()

    async def close(self, drain_s: float) -> list[str]:
        """Stop: give back what has not begun, wait up to `drain_s` for the rest, then cancel it. Ends the child processes.

        Go on calling `finished()` meanwhile and once after. Returns the attempts without an outcome: those given back, and
        those whose function heeds no cancel (threads cannot be killed; they end with the process).
        """
        self._closed = True
        given_back = [attempt for attempt in list(self._unbegun) if self.withdraw(attempt)]
        await self._until(lambda: self._running == 0, drain_s)
        for attempt in self.held():
            self.cancel(attempt)
        await self._until(lambda: self._running == 0, self._cancel_grace_s * 2)
        lanes = self._lanes.values()
        for lane in lanes:
            lane.close()
        await self._until(lambda: all(lane.ended for lane in lanes), self._cancel_grace_s * 2)
        ended = {outcome.attempt for outcome in self._outcomes}
        return given_back + [attempt for attempt in self._held if attempt not in ended]

    # --- for the bodies of the lanes, from any thread -------------------------------------------------------------------

    @property
    def result_bytes_max(self) -> int:
        """The largest result that is accepted."""
        return self._result_bytes_max

    @property
    def memory(self) -> MemoryGauge:
        """The gauge of this process."""
        return self._memory

    def begin(self, held: Held) -> None:
        """Note that an attempt has begun."""
        self._began[held.attempt] = None

    def end(self, outcome: Outcome) -> None:
        """Hand in an outcome."""
        self._outcomes.append(outcome)
        if not self._woken:
            self._woken = True
            try:
                self._wake()
            except RuntimeError:  # the loop is closed: nobody is left to be told
                pass

    # --- inside ---------------------------------------------------------------------------------------------------------

    @property
    def _running(self) -> int:
        return len(self._held) - len(self._outcomes)

    def _rouse(self) -> None:
        for lane in self._lanes.values():
            lane.rouse()

    def _claim(self, attempt: str) -> Held | None:
        """Take an attempt that has not begun out of its queue; None if a thread was first."""
        held = self._unbegun.pop(attempt, None)
        if held is not None:
            self._lanes[held.capability.mode].discard(held)
        return held

    def _leave_gate(self, held: Held) -> None:
        if held.gate is not None:
            for admitted in held.gate.leave(held):
                self._lanes[admitted.capability.mode].put(admitted)

    async def _until(self, condition: Callable[[], bool], wait_s: float) -> None:
        end_s = time.monotonic() + wait_s
        # Threads end without telling the loop, and this happens once in a worker's life.
        while not condition() and time.monotonic() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
