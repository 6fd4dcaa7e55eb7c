"""The simulated world's time, chance and memory: a heap of things to come, one source of randomness, a trace."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any
from zlib import crc32

from merit.lab.violation import Violation
from merit.model.ids import make_id
from merit.model.limits import MILLISECOND_NS, SECOND_NS

EVENTS_KEPT = 30
START_NS = 1_000 * SECOND_NS

Happening = tuple[int, int, str, Callable[..., None], tuple[Any, ...]]


class Weather:
    """How often what goes wrong in one world: probabilities, per frame or per step, drawn once for the whole of it.

    Most worlds know a few kinds of trouble only, since many at once hide each other.
    """

    def __init__(self, rng: Random) -> None:
        def some(most: float, share: float = 0.4) -> float:
            return rng.random() * most if rng.random() < share else 0.0

        self.lose = some(0.05)
        self.repeat = some(0.1)
        self.reorder = some(0.05)
        self.snap = some(0.06)
        self.partition = some(0.02)
        self.cell_crash = some(0.05, 0.5)
        self.append_fault = some(0.1)
        self.deposition = some(0.03, 0.2)
        self.worker_crash = some(0.04, 0.5)
        self.worker_drain = some(0.2)
        self.client_crash = some(0.04)
        self.lie = some(0.1, 0.3)
        self.new_offers = some(0.3, 0.2)
        self.new_kit = some(0.5, 0.3)
        self.clock_jump = some(0.02, 0.3)
        self.clock_stop = some(0.02, 0.3)
        self.nap = some(0.02, 0.2)
        self.lookup_fault = some(0.6, 0.5)
        self.follower_crash = some(0.1, 0.6)
        self.follower_lag = some(0.2, 0.5)
        self.misread = some(0.03)
        self.damage = some(1.0)
        self.no_key = some(0.3)
        self.power_cut = some(1.0, 0.6)

    def clear_up(self) -> None:
        """From now on nothing goes wrong."""
        for name in vars(self):
            setattr(self, name, 0.0)


class World:
    """See the module.

    Args:
        seed: all that happens follows from it.
        events_max: after so many happenings the world is taken to be going round in circles.
    """

    def __init__(self, seed: int, events_max: int) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.weather = Weather(self.rng)
        self.now_ns = START_NS
        self.coverage: Counter[str] = Counter()
        self.digest = 0
        """Of the trace so far: equal for equal runs."""
        self.happened = 0
        self._events_max = events_max
        self._heap: list[Happening] = []
        self._order = 0
        self._ids = 0
        self._trace: deque[tuple[int, str]] = deque(maxlen=EVENTS_KEPT)

    def after(self, wait_ns: int, what: str, action: Callable[..., None], *arguments: Any) -> None:
        """``action`` happens in ``wait_ns``; ``what`` names it in the trace."""
        self._order += 1
        heappush(self._heap, (self.now_ns + wait_ns, self._order, what, action, arguments))

    def between(self, least_ms: float, most_ms: float) -> int:
        """A random time, in nanoseconds."""
        return int((least_ms + (most_ms - least_ms) * self.rng.random()) * MILLISECOND_NS)

    def chance(self, probability: float, name: str) -> bool:
        """Whether something of this probability happens now; counted under ``name`` if it does."""
        if probability and self.rng.random() < probability:
            self.coverage[name] += 1
            self.note(name)
            return True
        return False

    def new_id(self) -> str:
        """The id of a task that is made now; its end counts those of this world."""
        self._ids += 1
        return make_id(self.now_ns, self._ids.to_bytes(10, "big"))

    def note(self, what: str) -> None:
        """Write a line into the trace."""
        self.digest = crc32(f"{self.now_ns} {what}".encode(), self.digest)
        self._trace.append((self.now_ns, what))

    def run(self, finished: Callable[[], bool]) -> None:
        """Let things happen until ``finished`` says so.

        Raises:
            Violation: it does not come to that.
        """
        heap = self._heap
        while not finished():
            if self.happened >= self._events_max:
                raise Violation("liveness", "", f"the world is not quiet after {self._events_max:,} events")
            self.happened += 1
            self.now_ns, _, what, action, arguments = heappop(heap)
            self.note(what)
            action(*arguments)

    def trace(self) -> list[str]:
        """The last happenings, a line each."""
        return [f"{(at_ns - START_NS) / SECOND_NS:9.6f} s {what}" for at_ns, what in self._trace]
