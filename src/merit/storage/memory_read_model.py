"""A read model in memory, for tests and simulations: it does what the others have to do, without an index."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from merit.core.state import KeyEntry
from merit.model.search import TaskQuery, TaskRow, WorkerQuery, WorkerRow
from merit.ports.read_model import ORDER_END, PAGE_MAX, Portion, Reached, ReadModelUnavailable, Superseded, TaskPage

LOOKED_AT_MAX: Final = 10_000
"""Rows that one search looks at."""


class _Kept:
    """What is in one."""

    def __init__(self) -> None:
        self.reached = Reached()
        self.tasks: dict[int, TaskRow] = {}
        self.workers: dict[str, WorkerRow] = {}


class MemoryReadModel:
    """A `ReadModel` that lasts as long as it is referred to. `looked_at_max`: rows that one search looks at."""

    def __init__(self, looked_at_max: int = LOOKED_AT_MAX) -> None:
        self._looked_at_max = looked_at_max
        self._kept = _Kept()
        self._open = True

    def opened(self, looked_at_max: int = LOOKED_AT_MAX) -> MemoryReadModel:
        """The same one, opened once more."""
        other = MemoryReadModel(looked_at_max)
        other._kept = self._kept
        return other

    def write(self, portion: Portion) -> None:
        """See `ReadModel.write`."""
        self._check_open()
        if portion.after != self._kept.reached.sequence:
            raise Superseded(f"the read model is at {self._kept.reached.sequence:,}, and not at {portion.after:,}")
        self._kept.reached = portion.until
        for row in portion.tasks:
            self._kept.tasks[row.order] = row
        for worker in portion.workers:
            known = self._kept.workers.get(worker.worker)
            first_ns = worker.first_ns if known is None else min(known.first_ns, worker.first_ns)
            self._kept.workers[worker.worker] = replace(worker, first_ns=first_ns)

    def reached(self) -> Reached:
        """See `ReadModelReader.reached`."""
        self._check_open()
        return self._kept.reached

    def find(self, query: TaskQuery, before: int, limit: int) -> TaskPage:
        """See `ReadModelReader.find`."""
        self._check_open()
        rows: list[TaskRow] = []
        orders = sorted((order for order in self._kept.tasks if order < before), reverse=True)
        for looked_at, order in enumerate(orders, 1):
            row = self._kept.tasks[order]
            if query.matches(row.task, [row.words]):
                rows.append(row)
            if looked_at < len(orders) and (len(rows) == min(limit, PAGE_MAX) or looked_at == self._looked_at_max):
                return TaskPage(tuple(rows), more=True, before=order)
        return TaskPage(tuple(rows), more=False, before=0)

    def tasks(self, ids: Sequence[str], before: int = ORDER_END) -> list[TaskRow]:
        """See `ReadModelReader.tasks`."""
        self._check_open()
        names = set(ids)
        # Copies: whoever asks for single tasks gives them back their contents.
        rows = (row for row in self._in_order() if row.id in names and row.order < before)
        return copy.deepcopy(list({row.id: row for row in rows}.values()))

    def keys(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], KeyEntry]:
        """See `ReadModelReader.keys`."""
        self._check_open()
        asked = set(wanted)
        return {
            at: KeyEntry(row.id, bytes.fromhex(row.content), 0)
            for row in self._in_order()
            if row.key and (at := (row.tenant, row.key)) in asked
        }

    def workers(self, query: WorkerQuery, after: str, limit: int) -> list[WorkerRow]:
        """See `ReadModelReader.workers`."""
        self._check_open()
        found = [self._kept.workers[name] for name in sorted(self._kept.workers) if name > after]
        return [worker for worker in found if query.matches(worker)][: min(limit, PAGE_MAX)]

    def forget(self, ended_before_ns: int, count_max: int) -> int:
        """See `ReadModel.forget`."""
        self._check_open()
        tasks = [row.order for row in self._in_order() if row.ended_ns < ended_before_ns][:count_max]
        for order in tasks:
            del self._kept.tasks[order]
        gone = [worker for worker in self._kept.workers.values() if 0 < worker.left_ns < ended_before_ns]
        gone = sorted(gone, key=lambda worker: worker.left_ns)[: count_max - len(tasks)]
        for worker in gone:
            del self._kept.workers[worker.worker]
        return len(tasks) + len(gone)

    def oldest_ns(self) -> int:
        """See `ReadModelReader.oldest_ns`."""
        self._check_open()
        left = [worker.left_ns for worker in self._kept.workers.values() if worker.left_ns]
        return min([row.ended_ns for row in self._kept.tasks.values()] + left, default=0)

    def clear(self) -> None:
        """See `ReadModel.clear`."""
        self._check_open()
        self._kept.reached = Reached()
        self._kept.tasks.clear()
        self._kept.workers.clear()

    def size_bytes(self) -> int:
        """See `ReadModelReader.size_bytes`; roughly."""
        self._check_open()
        return 1_000 * (len(self._kept.tasks) + len(self._kept.workers))

    def close(self) -> None:
        """See `ReadModelReader.close`."""
        self._open = False

    def _in_order(self) -> Iterable[TaskRow]:
        return (self._kept.tasks[order] for order in sorted(self._kept.tasks))

    def _check_open(self) -> None:
        if not self._open:
            raise ReadModelUnavailable("the read model is closed: open it again")
