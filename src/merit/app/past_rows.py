"""The read model up to an event of the past, as if nothing had come after it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from merit.core.state import KeyEntry
from merit.model.search import TaskQuery, TaskRow, WorkerQuery, WorkerRow
from merit.ports.read_model import ORDER_END, PAGE_MAX, Reached, ReadModelReader, TaskPage


class RowsUntil:
    """A ``ReadModelReader`` that knows the tasks which were final after the event ``last``, as they were then. What has
    changed since was at hand in the cell of then, and its row is left out: a task that was live, or a dead letter.

    Args:
        reader: of all; it is closed with this.
        last: sequence of the event.
        order: that of the first task that was submitted later.
    """

    def __init__(self, reader: ReadModelReader, last: int, order: int) -> None:
        self._reader = reader
        self._last = last
        self._order = order

    def reached(self) -> Reached:
        """See ``ReadModelReader``."""
        reached = self._reader.reached()
        return msgspec.structs.replace(reached, sequence=min(reached.sequence, self._last))

    def find(self, query: TaskQuery, before: int, limit: int) -> TaskPage:
        """See ``ReadModelReader``; of a page on which everything is younger nothing is left but where to go on."""
        page = self._reader.find(query, min(before, self._order), limit)
        return msgspec.structs.replace(page, rows=tuple(row for row in page.rows if row.sequence <= self._last))

    def tasks(self, ids: Sequence[str], before: int = ORDER_END) -> list[TaskRow]:
        """See ``ReadModelReader``; of an id that has come again since, the task that had it then."""
        return [row for row in self._reader.tasks(ids, min(before, self._order)) if row.sequence <= self._last]

    def keys(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], KeyEntry]:
        """Nobody submits anything in the past."""
        return {}

    def workers(self, query: WorkerQuery, after: str, limit: int) -> list[WorkerRow]:
        """See ``ReadModelReader``; those that have come back or left since are left out."""
        found: list[WorkerRow] = []
        wanted = max(1, min(limit, PAGE_MAX))
        while len(found) < wanted and (rows := self._reader.workers(query, after, PAGE_MAX)):
            found += [row for row in rows if row.sequence <= self._last]
            after = rows[-1].worker
        return found[:wanted]

    def oldest_ns(self) -> int:
        """See ``ReadModelReader``; of all."""
        return self._reader.oldest_ns()

    def size_bytes(self) -> int:
        """See ``ReadModelReader``; of all."""
        return self._reader.size_bytes()

    def close(self) -> None:
        """See ``ReadModelReader``."""
        self._reader.close()
