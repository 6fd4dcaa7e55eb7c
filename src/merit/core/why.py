"""Why a task is where it is, in a sentence for people."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from merit.core.state import State
from merit.model.limits import SECOND_NS
from merit.model.tasks import Task, TaskState
from merit.model.workers import WorkerState

_NAMED_MAX = 3


def why(state: State, attached: AbstractSet[str], task: Task) -> str:
    """The reason for a task's state.

    Args:
        state: of the cell.
        attached: workers that have a stream now.
        task: the one asked about.
    """
    if task.state.final:
        return task.failure.message if task.failure else f"it is {task.state.name}"
    if task.state is TaskState.WAITING:
        return _waiting(state, task)
    if task.state is TaskState.PENDING:
        return _pending(state, attached, task)
    attempt = task.attempts[-1]
    doing = "runs" if task.state is TaskState.RUNNING else "is with the worker"
    away = "" if attempt.worker in attached else ", which is disconnected at the moment"
    return f"attempt {attempt.number} {doing} on {attempt.worker}{away}"


def _waiting(state: State, task: Task) -> str:
    if task.blocked_by:
        needed = [
            other.id
            for name in task.after
            if (other := state.tasks.get(name)) is not None and other.state is not TaskState.COMPLETED
        ]
        more = f" and {len(needed) - _NAMED_MAX} more" if len(needed) > _NAMED_MAX else ""
        return f"it needs {', '.join(needed[:_NAMED_MAX])}{more} to be completed first"
    last = task.attempts[-1]
    failure = f": {last.failure.message}" if last.failure else ""
    wait_s = (task.due_ns - last.ended_ns) / SECOND_NS
    return f"attempt {last.number} {last.state.name}{failure}; it is tried again {wait_s:.1f} s after that"


def _pending(state: State, attached: AbstractSet[str], task: Task) -> str:
    able = [
        worker
        for worker in state.workers.values()
        if worker.id in attached and any(offer.name == task.capability for offer in worker.offers)
    ]
    if not able:
        known = task.capability in state.offers
        return (
            f"no connected worker offers {task.capability}"
            + (" now, though one did before" if known else "")
            + f"; start one: merit worker MODULE with a capability named {task.capability}"
        )
    active = [worker for worker in able if worker.state is WorkerState.ACTIVE]
    if not active:
        return f"every worker that offers {task.capability} is draining"
    before = state.queues[task.capability].size - 1
    ahead = f"; {before:,} others wait for {task.capability} with it" if before else ""
    return f"all {len(active)} workers that offer {task.capability} are busy{ahead}"
