"""Least loaded: the worker with the smallest share of its concurrency in use; among equals, the one that waits longest.

An index of buckets by load instead of a heap or a scan: a bit mask names the buckets that are not empty, and its lowest
set bit is the answer. Each call costs the same for ten workers and for ten thousand.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

_STEPS = 8
"""Loads are told apart in eighths of a worker's concurrency …"""
_LEVEL_MAX = 63
"""… up to this level; above it (deep prefetching of very short tasks) all count as equal."""


class _Shelf:
    """The workers of one capability by level of load."""

    __slots__ = ("levels", "mask")

    def __init__(self) -> None:
        self.mask = 0
        # Ordered dictionaries, since taking the first of a plain one that is emptied from the front is a scan.
        self.levels: dict[int, OrderedDict[str, None]] = {}

    def add(self, worker: str, level: int) -> None:
        workers = self.levels.get(level)
        if workers is None:
            workers = self.levels[level] = OrderedDict()
        workers[worker] = None
        self.mask |= 1 << level

    def discard(self, worker: str, level: int) -> None:
        workers = self.levels[level]
        del workers[worker]
        if not workers:
            del self.levels[level]
            self.mask &= ~(1 << level)


class LeastLoaded:
    """See the module."""

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf] = {}
        self._placed: dict[str, tuple[int, Sequence[str]]] = {}

    def place(self, worker: str, capabilities: Sequence[str], live: int, concurrency: int) -> None:
        level = min(_LEVEL_MAX, live * _STEPS // concurrency)
        before = self._placed.get(worker)
        if before is not None:
            if before[0] == level and before[1] is capabilities:
                for capability in capabilities:
                    self._shelves[capability].levels[level].move_to_end(worker)
                return
            self.remove(worker)
        self._placed[worker] = (level, capabilities)
        for capability in capabilities:
            shelf = self._shelves.get(capability)
            if shelf is None:
                shelf = self._shelves[capability] = _Shelf()
            shelf.add(worker, level)

    def remove(self, worker: str) -> None:
        placed = self._placed.pop(worker, None)
        if placed is None:
            return
        level, capabilities = placed
        for capability in capabilities:
            shelf = self._shelves[capability]
            shelf.discard(worker, level)
            if not shelf.mask:
                del self._shelves[capability]

    def placed(self) -> set[str]:
        return set(self._placed)

    def choose(self, capability: str, avoid: Collection[str] = ()) -> str | None:
        shelf = self._shelves.get(capability)
        if shelf is None:
            return None
        mask = shelf.mask
        if not avoid:
            return next(iter(shelf.levels[(mask & -mask).bit_length() - 1]))
        for level in sorted(shelf.levels):
            for worker in shelf.levels[level]:
                if worker not in avoid:
                    return worker
        return None
