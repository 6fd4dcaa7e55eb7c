"""What there is to compare with: one queue for all workers, who take what came first as soon as they are free.

Computed directly, without anything of Merit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

IdleKey = tuple[float, int]
"""By which the next of the idle workers is found, the lowest first; then the worker's number."""


def longest_idle(_speed: float, idle_since_ns: int) -> float:
    """Whoever has been idle longest is next."""
    return idle_since_ns


def fastest_first(speed: float, _idle_since_ns: int) -> float:
    """Whoever works fastest is next."""
    return -speed


def central_mean_ns(
    arrivals_ns: Sequence[int],
    work_ns: Sequence[int],
    speeds: Sequence[float],
    prefers: Callable[[float, int], float] = longest_idle,
) -> float:
    """The mean time from when a task comes until it is done.

    Args:
        arrivals_ns: in order.
        work_ns: of each task, for a worker of speed 1.
        speeds: of the workers.
        prefers: of a worker's speed and since when it is idle makes what says who is first; the lower the better.
    """
    idle: list[IdleKey] = [(prefers(speed, 0), number) for number, speed in enumerate(speeds)]
    heapify(idle)
    busy: list[tuple[int, int]] = []
    total_ns = now_ns = 0
    for arrival_ns, work in zip(arrivals_ns, work_ns, strict=True):
        now_ns = max(now_ns, arrival_ns)  # nobody goes before who came first
        while busy and (busy[0][0] <= now_ns or not idle):
            free_ns, number = heappop(busy)
            now_ns = max(now_ns, free_ns)
            heappush(idle, (prefers(speeds[number], free_ns), number))
        _, number = heappop(idle)
        end_ns = now_ns + round(work / speeds[number])
        heappush(busy, (end_ns, number))
        total_ns += end_ns - arrival_ns
    return total_ns / len(work_ns)
