"""What strategies have in common that are an order of the workers: the first one gets the task.

A heap of keys. A worker that is placed anew is only noted; at the next choice it gets its new key, however often it was
placed since, and its old one goes stale where it lies, to be dropped when it comes to the top. When more than half of the
heap is stale it is built anew. So each call costs a logarithm of the number of workers at most, spread over the calls,
and an order that nobody asks costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Collection, KeysView, Mapping
from heapq import heapify, heappop, heappush, heapreplace

from merit.allocation.strategy import PLAIN, Candidate, Wish
from merit.allocation.weights import NO_WEIGHTS, weights_of

Key = tuple[*tuple[int, ...], str]
"""Figures, the most important first, the lower the better; then the worker's id, so that no two are equal."""

_STALE_MIN = 64
"""So many stale keys are kept in any case, for small fleets."""


class Ranked:
    """A strategy that is an order: a subclass says by which ``key``, and what the figures in it are called."""

    reads_wish = False
    figure_names: tuple[str, ...] = ()
    """Of the figures in a key, in their order."""

    def __init__(self, weights: Mapping[str, int] = NO_WEIGHTS) -> None:
        """``weights``: by name, in thousandths.

        Raises:
            ValueError: There are any; a strategy that knows some sees to them itself.
        """
        weights_of(weights, NO_WEIGHTS)
        self._placed: dict[str, Candidate] = {}
        self._changed: dict[str, None] = {}
        """Those placed since the last choice."""
        self._keys: dict[str, Key] = {}
        self._heap: list[Key] = []
        """Keys, also stale ones: all that are not the very objects in ``_keys``."""

    def key(self, candidate: Candidate) -> Key:
        """What it stands in the order by. Follows from the candidate alone, and ends in its turn and its id."""
        raise NotImplementedError

    def place(self, candidate: Candidate) -> None:
        worker = candidate.worker
        self._placed[worker] = candidate
        self._changed[worker] = None

    def remove(self, worker: str) -> None:
        if self._placed.pop(worker, None) is None:
            return
        self._changed.pop(worker, None)
        self._keys.pop(worker, None)
        self._sweep()

    def placed(self) -> KeysView[str]:
        return self._placed.keys()

    def choose(self, wish: Wish = PLAIN, avoid: Collection[str] = ()) -> str | None:
        if self._changed:
            self._settle()
        heap, keys = self._heap, self._keys
        while heap:
            key = heap[0]
            worker = key[-1]
            if keys.get(worker) is not key:
                heappop(heap)
            elif worker in avoid:
                past = self.leading(1, avoid)
                return past[0] if past else None
            else:
                return worker
        return None

    def figures(self, candidate: Candidate, wish: Wish) -> Mapping[str, int]:
        return dict(zip(self.figure_names, self.key(candidate)[:-1], strict=True))

    def leading(self, count_max: int, avoid: Collection[str] = ()) -> list[str]:
        """The first so many of the order, without those to avoid. Each costs what a choice costs."""
        if self._changed:
            self._settle()
        heap, keys = self._heap, self._keys
        lifted: list[Key] = []
        found: list[str] = []
        while heap and len(found) < count_max:
            key = heappop(heap)
            worker = key[-1]
            if keys.get(worker) is key:
                lifted.append(key)
                if worker not in avoid:
                    found.append(worker)
        for key in lifted:
            heappush(heap, key)
        return found

    def _settle(self) -> None:
        """Bring those that were placed since to where they belong."""
        heap, keys = self._heap, self._keys
        for worker in self._changed:
            key = self.key(self._placed[worker])
            before = keys.get(worker)
            if key == before:
                continue
            keys[worker] = key
            if before is not None and heap[0] is before:
                heapreplace(heap, key)  # nearly always: it was chosen, and now has one more
            else:
                heappush(heap, key)
        self._changed.clear()
        self._sweep()

    def _sweep(self) -> None:
        if len(self._heap) > 2 * len(self._keys) + _STALE_MIN:
            self._heap = list(self._keys.values())
            heapify(self._heap)
