"""What the end of a task means for those that need it.

One task may be needed by millions, and a chain of them may be as long: far more than one record of the journal holds.
So a command that ends a task only notes whom that concerns, and ``FollowUp`` works through the notes in portions. The
notes follow from the state: a leader that finds the work half done makes the rest of them again.
"""

from __future__ import annotations

from collections.abc import Iterable

from merit.core.desk import Desk
from merit.core.queueing import enqueue, queue_due_ns
from merit.core.retrying import DEPENDENCY
from merit.core.state import State
from merit.core.timing import arm
from merit.model.commands import FollowUp
from merit.model.effects import TellSettled
from merit.model.events import TaskDied, TaskReleased
from merit.model.tasks import Failure, Task, TaskState

_WAITING = TaskState.WAITING
_FREE = ""


def ended(desk: Desk, task: Task, dependents: Iterable[Task]) -> None:
    """``task`` has just become final; ``dependents`` are those that needed it until then."""
    if task.state is TaskState.COMPLETED:
        desk.affected.extend((dependent, _FREE) for dependent in dependents if not dependent.blocked_by)
    else:
        reason = f"task {task.id}, which it needs, is {task.state.name}"
        for dependent in dependents:
            if dependent.terms is None or not dependent.terms.despite_dead:
                desk.affected.append((dependent, reason))
            elif not dependent.blocked_by:
                desk.affected.append((dependent, _FREE))


def follow_up(desk: Desk, command: FollowUp) -> None:
    """In breadth, since a chain may be longer than the stack."""
    affected, left = desk.affected, command.count_max
    while affected and left:
        left -= 1
        task, doom = affected.popleft()
        # It may have been canceled since, or be concerned by several ends.
        if task.state is not _WAITING:
            continue
        desk.cursor = task.id
        if doom:
            fail_dependent(desk, task, doom)
        elif not task.blocked_by and task.due_ns <= desk.now_ns:
            release(desk, task)
        elif not task.blocked_by:
            arm(desk, task)


def fail_dependent(desk: Desk, task: Task, reason: str) -> None:
    """It needs a task that will never complete."""
    dependents = desk.state.dependents.get(task.id, {}).values()
    desk.emit(TaskDied(task.id, Failure(DEPENDENCY, reason, permanent=True)))
    desk.timers.disarm(task.id)
    desk.effects.append(TellSettled(task.id))
    ended(desk, task, dependents)


def release(desk: Desk, task: Task) -> None:
    """Nothing holds the task back any more."""
    desk.emit(TaskReleased(task.id, queue_due_ns(desk, task)))
    enqueue(desk, task)
    arm(desk, task)


def unfinished(state: State, task: Task, now_ns: int) -> str | None:
    """For a task that waits: None when it has something to wait for; otherwise why it never will have what it needs,
    or nothing if it is free to go."""
    if not task.blocked_by:
        return _FREE if task.due_ns <= now_ns else None
    needed = state.needed(task)
    if sum(1 for other in needed if not other.state.final) == task.blocked_by:
        return None
    for other in needed:
        if other.state in (TaskState.DEAD, TaskState.CANCELED):
            return f"task {other.id}, which it needs, is {other.state.name}"
    return "a task that it needs did not complete"
