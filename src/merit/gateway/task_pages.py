"""Lists of tasks, a page at a time: what the cell has, and what only the read model remembers, as one."""

from __future__ import annotations

from itertools import islice
from typing import Final

from msgspec import Struct

from merit.gateway.memory import Memory
from merit.gateway.portions import portions
from merit.gateway.task_search import LIST_BYTES_MAX, TaskSearch, page_size, read_cursor
from merit.gateway.task_view import view_task
from merit.model.search import TaskQuery
from merit.model.tasks import Task, TaskState
from merit.ports.cell import Cell
from merit.ports.read_model import Reached, ReadModelReader, ReadModelUnavailable, TaskPage
from merit.wire.v1 import tasks_pb2

WAIT_S: Final = 2.0
"""How long a question waits for the follower that says nothing of what it wants to know …"""
WAIT_S_MAX: Final = 10.0
"""… and one that does."""
_ALL: Final = 2**62
"""Above every order."""
_LOOKED_AT_MAX: Final = 1_000
_HASTY: Final = "-"
"""How the cursor ends for the rest of a list of which a page has waited in vain: one such wait is enough."""
_NOTHING: Final = TaskPage((), more=False, before=0)


class NotYet(Exception):
    """What was asked for is not known yet; the message says how far it is, and what to do."""


class Beyond(Exception):
    """What was asked for has never happened here, so that it makes no sense to ask again; the message says what has."""


class _Known(Struct, frozen=True):
    """All that happened up to an event is known, and what is not, if anything."""

    sequence: int
    lacking: str = ""


def read_place(cursor: str) -> tuple[int, bool]:
    """Where the page before has ended, and whether the next one may wait for the follower. Raises ``BadField``."""
    return read_cursor(cursor.removesuffix(_HASTY)), not cursor.endswith(_HASTY)


class TaskPages:
    """Finds tasks.

    Args:
        cell: has all that are not final, and the recent ones that are.
        memory: has the final ones; None: nobody keeps them.
    """

    def __init__(self, cell: Cell, memory: Memory | None) -> None:
        self._cell = cell
        self._memory = memory

    async def page(
        self, search: TaskSearch, limit: int, below: int | None, at_least: int = 0, *, waits: bool = True
    ) -> tasks_pb2.ListTasksResponse:
        """Those that are meant, newest first, without parameters, results and trails.

        Args:
            search: which are meant.
            limit: 0 for the usual size of a page.
            below: where the page before has ended.
            at_least: all that happened up to this event has to be known.
            waits: for the follower, also if ``at_least`` does not ask for that.

        Raises:
            NotYet: it is not, and did not become so in time.
            Beyond: it has not even happened.
        """
        query, state = search.query, self._cell.state
        known = await self._wait(query, at_least, waits=waits)
        # The cell first: a task that it forgets meanwhile is in both then, and not in neither.
        before, count_max = _ALL if below is None else below, page_size(limit)
        sequence, kept_since_ns = state.sequence, self._kept_since_ns()
        live = await self._of_cell(search, before, count_max)
        page = _NOTHING
        if self._memory is not None and state.forgotten and not _is_live(query):

            def find(reader: ReadModelReader) -> tuple[TaskPage, Reached]:
                # Asked before and after: it may go on meanwhile, or be begun anew.
                reached = reader.reached()
                found = reader.find(query, before, count_max)
                return found, min(reached, reader.reached(), key=lambda one: one.sequence)

            try:
                page, reached = await self._memory.ask(find)
            except ReadModelUnavailable as error:
                known = _Known(known.sequence, f"final tasks of long ago are missing: {error}")
            else:
                known = self._judged(reached, sequence, kept_since_ns)
        old = [row.task for row in page.rows if search.shows(row.task)]
        return self._merged(live, old, page, count_max, known, _HASTY if known.lacking or not waits else "")

    async def _of_cell(self, search: TaskSearch, before: int, count_max: int) -> list[Task]:
        matches = search.among(self._cell)
        found: list[Task] = []
        async for portion in portions(reversed(self._cell.state.tasks.values()), search.portion):
            found += [task for task in portion if task.order < before and matches(task)]
            if len(found) >= count_max:
                break
        return found[:count_max]

    def _merged(
        self, live: list[Task], old: list[Task], page: TaskPage, count_max: int, known: _Known, mark: str
    ) -> tasks_pb2.ListTasksResponse:
        tasks = {task.order: task for task in (*old, *live)}  # of those that are in both, as the cell has them
        response = tasks_pb2.ListTasksResponse(sequence=known.sequence, lacking=known.lacking)
        size_bytes = 0
        for order in sorted(tasks, reverse=True):
            if page.more and order < page.before:
                break  # the read model may have some in between
            message = view_task(self._cell, tasks[order])
            response.tasks.append(message)
            size_bytes += message.ByteSize()
            if len(response.tasks) == count_max or size_bytes >= LIST_BYTES_MAX:
                response.next_cursor = f"{order}{mark}"
                return response
        if page.more:
            response.next_cursor = f"{page.before}{mark}"
        return response

    async def _wait(self, query: TaskQuery, at_least: int, *, waits: bool) -> _Known:
        """Until enough is known, if that does not take too long."""
        happened = self._cell.state.sequence
        if at_least > happened:
            raise Beyond(
                f"at_least: {at_least:,} was asked for, and in this cell nothing has happened after {happened:,} yet: ask "
                "for a sequence that it has said itself (one that was restored has forgotten what it had said later)"
            )
        known = await self._known(query)
        if known.lacking and self._memory is not None and (waits or at_least):
            wanted, wait_s = (at_least, WAIT_S_MAX) if at_least else (self._cell.state.sequence, WAIT_S)
            if await self._memory.following.reached(wanted, wait_s):
                known = await self._known(query)
        if known.sequence >= at_least:
            return known
        raise NotYet(f"at_least: all is known up to {known.sequence:,} only: {known.lacking}")

    async def _known(self, query: TaskQuery) -> _Known:
        """Up to which event all that matters is known. The cell has forgotten final tasks, but only those that ended before the
        oldest that it keeps; it is enough if the read model has those."""
        state = self._cell.state
        sequence = state.sequence
        if not state.forgotten or _is_live(query):
            return _Known(sequence)
        if self._memory is None:
            return _Known(0, "final tasks of long ago are missing: this control plane keeps no read model")
        kept_since_ns = self._kept_since_ns()
        try:
            reached = await self._memory.ask(lambda reader: reader.reached())
        except ReadModelUnavailable as error:
            return _Known(0, f"final tasks of long ago are missing: {error}")
        return self._judged(reached, sequence, kept_since_ns)

    def _judged(self, reached: Reached, sequence: int, kept_since_ns: int) -> _Known:
        """What is known by a read model that has reached this, and a cell that was at ``sequence`` and had all that ended since."""
        if reached.sequence >= sequence or 0 < kept_since_ns < reached.time_ns:
            return _Known(sequence)
        return _Known(reached.sequence, self._lag(reached))

    def _kept_since_ns(self) -> int:
        """All tasks that became final after this are in the cell; 0: that cannot be said.

        Finals are forgotten in the order in which they came to be kept as such. Dead letters come when they are closed, and
        it is not known when that was.
        """
        kept = islice(self._cell.state.finals, _LOOKED_AT_MAX)
        return next((task.ended_ns for task in kept if task.state is not TaskState.DEAD), 0)

    def _lag(self, reached: Reached) -> str:
        events = self._cell.state.sequence - reached.sequence
        behind = self._memory.behind(events) if self._memory is not None else ""
        return f"final tasks of the last moments may be missing: {behind}"


def _is_live(query: TaskQuery) -> bool:
    """Whether it is only about tasks that are not final: the cell has all of those."""
    return bool(query.states) and not any(state.final for state in query.states)
