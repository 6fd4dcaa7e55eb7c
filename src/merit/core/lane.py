"""Pending tasks by rank.

A task that ends while it is pending stays behind as a stale entry until it is met, or until stale entries are half of
the lane; so every operation costs the same however many tasks wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from merit.core.ranking import Rank, rank
from merit.model.tasks import Task, TaskState

_PENDING = TaskState.PENDING
_STALE_AT_LEAST = 64


class Lane:
    """Pending tasks by rank. Those that come in order of rank, nearly all, stand in a row per priority; the rest in a
    heap."""

    __slots__ = ("_ageing_ns", "_odd", "_rows", "_stale", "size")

    def __init__(self, ageing_ns: int) -> None:
        self._ageing_ns = ageing_ns
        self._rows: dict[int, deque[Task]] = {}
        """By priority."""
        self._odd: list[tuple[Rank, Task]] = []
        self._stale = 0
        self.size = 0

    def push(self, task: Task) -> None:
        self.size += 1
        row = self._rows.get(task.priority)
        if row is None:
            row = self._rows[task.priority] = deque()
        if row:
            last = row[-1]
            if _plain(task) and _plain(last):
                # The rank in short, for nearly all: both new, and of a right to be done from their submits on.
                in_order = 0 < last.deadline_ns <= task.deadline_ns and last.order < task.order
            else:
                in_order = rank(last, self._ageing_ns) < rank(task, self._ageing_ns)
            if not in_order:
                heappush(self._odd, (rank(task, self._ageing_ns), task))
                return
        row.append(task)

    def head(self) -> Task | None:
        """The task that goes next, left where it is."""
        odd, found, ageing_ns = self._odd, None, self._ageing_ns
        for row in self._rows.values():
            while row and row[0].state is not _PENDING:
                row.popleft()
                self._stale -= 1
            if row and (found is None or rank(row[0], ageing_ns) < rank(found, ageing_ns)):
                found = row[0]
        while odd and odd[0][1].state is not _PENDING:
            heappop(odd)
            self._stale -= 1
        if odd and (found is None or odd[0][0] < rank(found, ageing_ns)):
            return odd[0][1]
        return found

    def take(self, task: Task) -> None:
        """Remove the head."""
        if self._odd and self._odd[0][1] is task:
            heappop(self._odd)
        else:
            self._rows[task.priority].popleft()
        self.size -= 1

    def drop(self) -> None:
        """Some task in here is pending no longer."""
        self.size -= 1
        self._stale += 1
        if self._stale > _STALE_AT_LEAST and self._stale > self.size:
            for row in self._rows.values():
                kept = [task for task in row if task.state is _PENDING]
                row.clear()
                row.extend(kept)
            self._odd = [entry for entry in self._odd if entry[1].state is _PENDING]
            heapify(self._odd)
            self._stale = 0

    def tasks(self) -> Iterator[Task]:
        """All of them, in no order."""
        for row in self._rows.values():
            yield from (task for task in row if task.state is _PENDING)
        yield from (task for _, task in self._odd if task.state is _PENDING)

    @property
    def entries(self) -> int:
        """Tasks and stale entries."""
        return len(self._odd) + sum(map(len, self._rows.values()))


def _plain(task: Task) -> bool:
    return not task.attempts and (task.terms is None or not task.terms.not_before_ns)
