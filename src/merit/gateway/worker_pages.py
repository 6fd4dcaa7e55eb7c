"""Lists of workers, a page at a time: those of which the cell keeps something, and those that only the read model remembers.

The cell knows all that are here, and of those that are gone how often they did well; what those offered, and when and why they
left, is in the read model, which also has those of which the cell keeps nothing any more.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import Final

from msgspec import Struct

from merit.core.standing import Standing
from merit.gateway.memory import Memory
from merit.gateway.portions import portions
from merit.gateway.task_pages import WAIT_S
from merit.gateway.task_search import LIST_BYTES_MAX, page_size
from merit.gateway.worker_view import (
    TURN_WORKERS,
    WorkerSearch,
    fill_past,
    known_workers,
    standing_of,
    view_worker,
)
from merit.model.search import WorkerQuery, WorkerRow
from merit.ports.cell import Cell
from merit.ports.read_model import ReadModelUnavailable
from merit.wire.v1 import fleet_pb2

_MAY_BE_MISSING: Final = "workers that are gone may be missing"
_TURN_FILTERED: Final = 1_000
"""Workers that are held against a filter in one turn of the loop."""


class _Gone(Struct, frozen=True):
    """What the read model has said of workers that are gone."""

    rows: list[WorkerRow] = []
    until: str = ""
    """There may be more behind this name; empty: these are all."""
    lacking: str = ""


class WorkerPages:
    """Finds workers.

    Args:
        cell: has all that are here.
        memory: has those that are gone; None: nobody keeps them.
    """

    def __init__(self, cell: Cell, memory: Memory | None) -> None:
        self._cell = cell
        self._memory = memory

    async def page(self, search: WorkerSearch, limit: int, after: str) -> fleet_pb2.ListFleetResponse:
        """Those that are meant, by id, without their tasks.

        Args:
            search: which are meant.
            limit: 0 for the usual size of a page.
            after: where the page before has ended.
        """
        cell, count_max = self._cell, page_size(limit)
        gone = await self._gone(search, after, count_max) if search.gone else _Gone()
        rows = {row.worker: row for row in gone.rows if standing_of(cell, row.worker) is Standing.GONE}
        first = [name for name, row in rows.items() if search.remembers(row)]
        async for portion in portions(known_workers(cell.desk), _TURN_FILTERED):
            found = (name for name in portion if name > after and name not in rows and search.matches(cell, name))
            first = nsmallest(count_max + 1, [*first, *found])
        if gone.until:
            first = [name for name in first if name <= gone.until]  # the read model may have some in between
        response = fleet_pb2.ListFleetResponse(next_cursor=gone.until, lacking=gone.lacking)
        size_bytes = 0
        async for portion in portions(sorted(first), TURN_WORKERS):
            for name in portion:
                if len(response.workers) == count_max or size_bytes >= LIST_BYTES_MAX:
                    response.next_cursor = response.workers[-1].id
                    return response
                message = view_worker(cell, name)
                if name in rows:
                    fill_past(message, rows[name])
                response.workers.append(message)
                size_bytes += message.ByteSize()
        return response

    async def one(self, name: str) -> fleet_pb2.FleetWorker | None:
        """A worker, without its tasks; None: there is none. Raises ``ReadModelUnavailable`` if that cannot be said."""
        cell, row = self._cell, None
        if standing_of(cell, name) is Standing.GONE and self._memory is not None:
            query = WorkerQuery(name=name, here=False)
            try:
                found = await self._memory.ask(lambda reader: reader.workers(query, "", 1))
            except ReadModelUnavailable:
                if name not in cell.state.profiles:
                    raise
            else:
                row = next((row for row in found if row.worker == name), None)  # of those that begin so it is the first
        if row is None and name not in cell.state.workers and name not in cell.state.profiles:
            return None
        message = view_worker(cell, name)
        if row is not None and message.standing == fleet_pb2.STANDING_GONE:
            fill_past(message, row)
        return message

    async def _gone(self, search: WorkerSearch, after: str, count_max: int) -> _Gone:
        if self._memory is None:
            return _Gone(lacking=f"{_MAY_BE_MISSING}: this control plane keeps no read model")
        following, sequence, lacking = self._memory.following, self._cell.state.sequence, ""
        # Pages after the first are of what the first has waited for.
        if not after and not await following.reached(sequence, WAIT_S):
            lacking = f"{_MAY_BE_MISSING}: {self._memory.behind(sequence - following.standing().sequence)}"
        try:
            found = await self._memory.ask(lambda reader: reader.workers(search.query, after, count_max))
        except ReadModelUnavailable as error:
            return _Gone(lacking=f"{_MAY_BE_MISSING}: {error}")
        return _Gone(found, found[-1].worker if len(found) == count_max else "", lacking)
