"""Somebody who goes through a list of tasks, page by page, while they go on."""

from __future__ import annotations

from collections.abc import Callable

from merit.app.past_cell import PastCell
from merit.gateway.memory import Memory
from merit.gateway.task_pages import NotYet, TaskPages, read_place
from merit.gateway.task_search import TaskSearch
from merit.kernel.kernel import Kernel
from merit.lab.habits import CAPABILITIES
from merit.lab.kept import Kept
from merit.lab.ledger import Ledger
from merit.lab.memory_judge import ALL, MemoryJudge
from merit.lab.turns import Turn
from merit.lab.violation import Violation
from merit.lab.world import START_NS, World
from merit.model.searchable import Marked
from merit.model.tasks import TaskState
from merit.ports.following import FollowerStanding
from merit.ports.read_model import ReadModelReader
from merit.wire.v1 import tasks_pb2

_FINAL = (TaskState.COMPLETED, TaskState.DEAD, TaskState.CANCELED)
_PATIENCE = 30
"""Turns for which the follower is waited for."""


class ReadModelSeen:
    """Implements ``merit.ports.following.Following`` by looking at the read model."""

    def __init__(self, model: ReadModelReader) -> None:
        self._model = model

    def standing(self) -> FollowerStanding:
        """See ``Following``."""
        reached = self._model.reached()
        return FollowerStanding(reached.sequence, reached.time_ns)

    async def reached(self, sequence: int, timeout_s: float) -> bool:
        """See ``Following``."""
        for _ in range(_PATIENCE):
            if self._model.reached().sequence >= sequence:
                return True
            await Turn()
        return False


class Walk:
    """One question, what has to be found by it, and what is found."""

    def __init__(
        self, world: World, ledger: Ledger, judge: MemoryJudge, kept: Kept, kernel: Callable[[], Kernel | None]
    ) -> None:
        self._world = world
        self.kernel = kernel
        self.limit = world.rng.choice((1, 3, 100))
        self.search = TaskSearch(self._filter())
        self.at_least = ledger.state.sequence if world.rng.random() < 0.3 else 0
        self.memory = Memory(kept.reader, ReadModelSeen(kept.reader()))
        self.found: list[str] = []
        self.lacking = ""
        """What was said to be, on any page."""
        self._wanted = self._expected(ledger, judge)

    def _filter(self) -> tasks_pb2.TaskFilter:
        """Of what does not change any more: what a task is, or how it has ended."""
        rng = self._world.rng
        wanted = tasks_pb2.TaskFilter()
        if rng.random() < 0.3:
            wanted.states.extend(rng.sample(_FINAL, rng.choice((1, 2))))  # type: ignore[arg-type]  # it has the same numbers
        if rng.random() < 0.3:
            wanted.capability = rng.choice(CAPABILITIES)
        if rng.random() < 0.2:
            wanted.tenant = rng.choice(("default", "acme"))
        if rng.random() < 0.2:
            wanted.submitted_from_ns = START_NS + self._world.between(0, 2_000)
        if rng.random() < 0.2:
            wanted.submitted_to_ns = START_NS + self._world.between(500, 10_000)
        if rng.random() < 0.1 and wanted.states:
            wanted.text = rng.choice(("dead", "lost", "attempt"))
        return wanted

    def _expected(self, ledger: Ledger, judge: MemoryJudge) -> list[str]:
        """All durable ones that match, newest first."""
        query, state = self.search.query, ledger.state
        marked = Marked(state.offers)
        tasks = {
            row.order: row.id
            for row in judge.rows(ALL)[0].values()
            if self.search.shows(row.task) and query.matches(row.task, [row.words])
        }
        live = {
            task.order: task.id
            for task in state.tasks.values()
            if not task.state.final and self.search.shows(task) and query.matches(task, marked.texts(task))
        }
        tasks.update(live)
        return [tasks[order] for order in sorted(tasks, reverse=True)]

    def done(self, _answer: None) -> None:
        """It has come to the end of the list.

        Raises:
            Violation: what it has read is not what there was.
        """
        twice = {task for task in self.found if self.found.count(task) > 1}
        if twice:
            raise Violation("pages", min(twice), "stands in the same list twice")
        if self.lacking:
            self._world.coverage["something lacking in a list"] += 1
            return
        self._world.coverage["whole list read"] += 1
        wanted = set(self._wanted)
        if [task for task in self.found if task in wanted] != self._wanted:
            lost = wanted - set(self.found)
            raise Violation("pages", min(lost, default=""), f"{self.search.query} finds {self.found} of {self._wanted}")


async def walk(one: Walk) -> None:
    """Read page after page; a page that a cell does not live to give is asked of the next one."""
    below: int | None = None
    waits = True
    while True:
        kernel = one.kernel()
        if kernel is None:
            await Turn()
            continue
        pages = TaskPages(PastCell(kernel.cell, kernel.machine), one.memory)
        try:
            page = await pages.page(one.search, one.limit, below, one.at_least, waits=waits)
        except NotYet:
            one.lacking = "not yet"
            return
        told = kernel.machine.state.sequence
        while one.kernel() is kernel and kernel.durable < told:
            await Turn()
        if one.kernel() is not kernel:
            continue
        one.found += [task.id for task in page.tasks]
        one.lacking = one.lacking or page.lacking
        if not page.next_cursor:
            return
        below, waits = read_place(page.next_cursor)
        await Turn()
