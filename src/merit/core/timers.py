"""When something is due: one timer per key, at a cost that does not grow with their number.

A hashed wheel without hands: keys lie in buckets of about 17 ms by their due time, and a heap knows the buckets only.
Most timers never fire (a task is done before its time-out), so that arming and disarming is what must be cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

_BUCKET_BITS = 24
"""2**24 ns = 16.8 ms: a timer fires up to this much late, never early."""


class Timers:
    """Keys and when they are due."""

    __slots__ = ("_armed", "_buckets", "_heap")

    def __init__(self) -> None:
        self._armed: dict[str, int] = {}
        self._buckets: dict[int, dict[str, None]] = {}
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._armed)

    def __iter__(self) -> Iterator[str]:
        """The keys of all that is due sometime."""
        return iter(self._armed)

    def arm(self, key: str, due_ns: int) -> None:
        """``key`` is due at ``due_ns``, and no longer at what was said before."""
        number = (due_ns >> _BUCKET_BITS) + 1
        before = self._armed.get(key)
        if before == number:
            return
        if before is not None:
            self._remove(before, key)
        self._armed[key] = number
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = {key: None}
            heappush(self._heap, number)
        else:
            bucket[key] = None

    def arm_new(self, keys: Iterable[str], due_ns: int) -> None:
        """As ``arm`` for each, of keys that are not armed: a burst of them costs a fraction."""
        number = (due_ns >> _BUCKET_BITS) + 1
        fresh = dict.fromkeys(keys)
        if not fresh:
            return
        self._armed.update(dict.fromkeys(fresh, number))
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = fresh
            heappush(self._heap, number)
        else:
            bucket.update(fresh)

    def disarm(self, key: str) -> None:
        """``key`` is not due any more, if it was."""
        number = self._armed.pop(key, None)
        if number is not None:
            self._remove(number, key)

    def due_ns(self, key: str) -> int | None:
        """When ``key`` goes off, or None."""
        number = self._armed.get(key)
        return number << _BUCKET_BITS if number is not None else None

    def next_due_ns(self) -> int | None:
        """When ``pop_due`` will next have something to give, or None."""
        heap = self._heap
        while heap and heap[0] not in self._buckets:
            heappop(heap)
        return heap[0] << _BUCKET_BITS if heap else None

    def pop_due(self, now_ns: int) -> str | None:
        """A key of the earliest bucket that is due by now, which is disarmed; None when nothing is due."""
        at = self.next_due_ns()
        if at is None or at > now_ns:
            return None
        bucket = self._buckets[self._heap[0]]
        key, _ = bucket.popitem()
        del self._armed[key]
        if not bucket:
            del self._buckets[heappop(self._heap)]
        return key

    def _remove(self, number: int, key: str) -> None:
        bucket = self._buckets[number]
        del bucket[key]
        if not bucket:
            # Its entry in the heap goes when it comes to the top; there is at most one per 17 ms of time ahead,
            # but a bucket that empties and fills again and again must not add one each time.
            del self._buckets[number]
            if len(self._heap) > 64 and len(self._heap) > 4 * len(self._buckets):
                self._heap = sorted(self._buckets)
