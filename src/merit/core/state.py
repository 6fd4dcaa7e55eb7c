"""The state of a cell: the fold of its journal. Only :mod:`merit.core.apply` changes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec import Struct, field

from merit.model.tasks import Priority, Task, TaskState
from merit.model.workers import Offer, Worker

_PENDING = TaskState.PENDING
_CLASSES = len(Priority)


class Queue:
    """The pending tasks of one capability: a lane per priority, first come first served within.

    A task that leaves from the middle (canceled) stays in its lane as a stale entry until it is met or until stale
    entries are half of the lane; so every operation costs the same however many wait.
    """

    __slots__ = ("_lanes", "_stale", "size")

    def __init__(self) -> None:
        self._lanes: list[deque[Task] | None] = [None] * _CLASSES
        self._stale = 0
        self.size = 0

    def push(self, task: Task, *, front: bool) -> None:
        lane = self._lanes[task.priority - 1]
        if lane is None:
            lane = self._lanes[task.priority - 1] = deque()
        if front:
            lane.appendleft(task)
        else:
            lane.append(task)
        self.size += 1

    def head(self) -> Task | None:
        """The task that goes next, left where it is."""
        for lane in reversed(self._lanes):
            while lane:
                task = lane[0]
                if task.state is _PENDING:
                    return task
                lane.popleft()
                self._stale -= 1
        return None

    def take(self, task: Task) -> None:
        """Remove the head."""
        lane = self._lanes[task.priority - 1]
        # A replay takes without having asked for the head.
        while lane and lane[0].state is not _PENDING:
            lane.popleft()
            self._stale -= 1
        if not lane or lane[0] is not task:
            raise LookupError(f"task {task.id} is not at the head of its lane")
        lane.popleft()
        self.size -= 1

    def drop(self, gone: Task) -> None:
        """``gone``, wherever it is in here, is about to be no longer pending."""
        self.size -= 1
        self._stale += 1
        if self._stale > 64 and self._stale > self.size:
            for lane in filter(None, self._lanes):
                kept = [task for task in lane if task.state is _PENDING and task is not gone]
                lane.clear()
                lane.extend(kept)
            self._stale = 0

    def lanes(self) -> Iterator[list[str]]:
        """The ids that wait, lowest priority first; stale entries left out."""
        for lane in self._lanes:
            yield [task.id for task in lane if task.state is _PENDING] if lane else []


class State(Struct):
    """All of it. ``queues``, ``dependents`` and ``live_bytes`` follow from the tasks (queues: but for their order)."""

    sequence: int = 0
    """Of the last event applied."""
    epoch: int = 0
    holder: str = ""
    grace_until_ns: int = 0
    finals_max: int = 0
    finals_bytes_max: int = 0
    order: int = 0
    """Tasks submitted so far."""
    completed: int = 0
    dead: int = 0
    canceled: int = 0
    tasks: dict[str, Task] = field(default_factory=dict)
    """Live tasks, and final ones until they are forgotten."""
    finals: deque[Task] = field(default_factory=deque)
    finals_bytes: int = 0
    forgotten: int = 0
    """Final tasks that are no longer in ``tasks``; the journal has them."""
    queues: dict[str, Queue] = field(default_factory=dict)
    dependents: dict[str, dict[str, Task]] = field(default_factory=dict)
    """By task: the waiting ones that need it completed, by their ids."""
    workers: dict[str, Worker] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    """By capability: as it was offered last."""
    live_bytes: int = 0

    def needed(self, task: Task) -> list[Task]:
        """Of what ``task`` needs, what is kept here. A task that came under such an id later than ``task`` itself is
        another one: that which was needed had been forgotten by then."""
        found = (self.tasks.get(other) for other in task.after)
        return [other for other in found if other is not None and other.order < task.order]

    @property
    def live(self) -> int:
        """Tasks that are not final."""
        return len(self.tasks) - len(self.finals)
