"""That an attempt, or a task, has ended is noted here, on its way; what follows is ``merit.core.supervising``'s business."""

from __future__ import annotations

from collections import deque
from typing import Final

from merit.core.desk import Desk
from merit.model.limits import SECOND_NS
from merit.model.supervision import Objective
from merit.model.tasks import Task, TaskState

SUPERVISE_KEY: Final = "supervise/"
"""Timer key of the round of supervision, and with a worker's name behind it that of what is due for the worker."""


def note_ending(desk: Desk, worker: str, *, well: bool) -> None:
    """An attempt by the worker has ended, in a way that says something about it. Whether it is to be looked at at once is
    seen to when the command has been handled."""
    if worker not in desk.news:
        if not desk.news:
            desk.timers.arm(SUPERVISE_KEY, desk.now_ns + desk.state.policy.every_ns)
        desk.news[worker] = None
    if not well or worker in desk.tried:
        desk.suspects.setdefault(worker, []).append(well)


def note_lost(desk: Desk, worker: str) -> None:
    """The worker is lost, with all its attempts: however many there are, that is one failure."""
    if worker not in desk.suspects:
        note_ending(desk, worker, well=False)


_SLICE_NS: Final = 60 * SECOND_NS


def note_end(desk: Desk, task: Task) -> None:
    """A task of a capability for which there is an objective is final: well and in time, or not. One that was called off
    does not count."""
    if task.state is TaskState.CANCELED:
        return
    objective = desk.state.objectives[task.capability]
    in_time = not objective.within_ns or task.ended_ns - task.since_ns <= objective.within_ns
    good = task.state is TaskState.COMPLETED and in_time
    slices = desk.reached.setdefault(task.capability, deque())
    number = desk.now_ns // _SLICE_NS
    if not slices or slices[-1][0] != number:
        slices.append([number, 0, 0])
    slices[-1][1] += good
    slices[-1][2] += 1


def reached_permille(desk: Desk, objective: Objective) -> int | None:
    """The share of an objective's tasks that were done well and in time within its window; None: none has ended."""
    slices = desk.reached.get(objective.capability, deque())
    oldest = (desk.now_ns - objective.window_ns) // _SLICE_NS
    while slices and slices[0][0] < oldest:
        slices.popleft()
    count = sum(ended for _, _, ended in slices)
    return 1_000 * sum(good for _, good, _ in slices) // count if count else None
