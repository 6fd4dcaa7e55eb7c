"""Least expected completion: the worker with which the task should be done first, going by how long its attempts take.

A worker that takes ``took_ns`` and makes ``concurrency`` attempts at a time begins at once if one of these is free;
otherwise what it has beyond has to be done first: ``took_ns × max(concurrency, live + 1) / concurrency``.

**Exploring.** A worker that nobody has measured gets a task as soon as it has none, and beyond that counts as one that
needs all of the usual run time-out, so that one which never answers does not take everything. Whoever was slow once would
never be given the chance to show better; so one task in 64, drawn by its place among all, goes to the worker that has
waited longest. None with a deadline: for these it is known what is best.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from merit.allocation.chance import chance
from merit.allocation.ranked import Key, Ranked
from merit.allocation.round_robin import RoundRobin
from merit.allocation.strategy import PERMILLE, PLAIN, Candidate, Wish
from merit.allocation.weights import NO_WEIGHTS
from merit.model.limits import RUN_TIMEOUT_NS_DEFAULT

_EXPLORES_ONE_IN = 64


class LeastExpected(Ranked):
    """See the module."""

    reads_wish = True
    figure_names = ("expected_ns", "load_permille", "turn")

    def __init__(self, weights: Mapping[str, int] = NO_WEIGHTS) -> None:
        super().__init__(weights)
        self._waiting = RoundRobin()

    def key(self, candidate: Candidate) -> Key:
        live, concurrency = candidate.live, candidate.concurrency
        expected_ns = candidate.took_ns
        if not expected_ns and live:
            expected_ns = RUN_TIMEOUT_NS_DEFAULT
        if live >= concurrency:
            expected_ns = expected_ns * (live + 1) // concurrency
        return (expected_ns, live * PERMILLE // concurrency, candidate.turn, candidate.worker)

    def place(self, candidate: Candidate) -> None:
        super().place(candidate)
        self._waiting.place(candidate)

    def remove(self, worker: str) -> None:
        super().remove(worker)
        self._waiting.remove(worker)

    def choose(self, wish: Wish = PLAIN, avoid: Collection[str] = ()) -> str | None:
        return self._waiting.choose(wish, avoid) if _explores(wish) else super().choose(wish, avoid)

    def figures(self, candidate: Candidate, wish: Wish) -> Mapping[str, int]:
        return self._waiting.figures(candidate, wish) if _explores(wish) else super().figures(candidate, wish)


def _explores(wish: Wish) -> bool:
    # 1, since the chance of order 0, which stands for tasks of which nothing is known, is 0.
    return wish.slack_ns < 0 and chance(wish.order) % _EXPLORES_ONE_IN == 1
