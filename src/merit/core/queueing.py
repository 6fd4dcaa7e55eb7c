"""How tasks come into the backlog, and what stands in the way of its being given out: pauses, limits, shares."""

from __future__ import annotations

from collections.abc import Iterable

from merit.core.desk import Desk
from merit.core.gates import Parked
from merit.model.tasks import Task

COST_NS_DEFAULT = 1_000_000_000
"""What an attempt at a capability is expected to take before any has been seen."""
_AVERAGED_OVER_BITS = 3
"""The moving average of durations goes over about eight attempts."""


def enqueue(desk: Desk, task: Task) -> None:
    """The task has just become pending."""
    line = task.capability
    if task.terms is not None or line not in desk.lines.uniform_names:
        line = desk.lines.route(task).name
    desk.backlog.push(task, line)
    desk.ready[line] = None


def queue_due_ns(desk: Desk, task: Task) -> int:
    """When the queue time-out of a task that becomes pending now strikes, or 0."""
    terms = task.terms
    return desk.now_ns + terms.queue_timeout_ns if terms is not None and terms.queue_timeout_ns else 0


def freed(desk: Desk, task: Task) -> None:
    """No attempt at the task lives any more: what stood behind it at a limit may go."""
    if desk.gates.any:
        come_forward(desk, desk.gates.release(task))


def come_forward(desk: Desk, units: Iterable[Parked]) -> None:
    """These waited at a limit that is, or may be, open."""
    for unit in units:
        desk.ready[unit.line] = None


def cost_ns(desk: Desk, task: Task) -> int:
    """What an attempt at the task is expected to take."""
    if task.terms is not None and task.terms.estimate_ns:
        return task.terms.estimate_ns
    return desk.usual_ns.get(task.capability, COST_NS_DEFAULT)


def took_ns(desk: Desk, task: Task, wall_ns: int) -> None:
    """An attempt has completed after so much: who estimated too little is charged the rest."""
    before = desk.usual_ns.get(task.capability, wall_ns)
    desk.usual_ns[task.capability] = before + ((wall_ns - before) >> _AVERAGED_OVER_BITS)
    if task.terms is not None and 0 < task.terms.estimate_ns < wall_ns:
        pool = desk.backlog.shares.pool(task.capability)
        pool.charge_more(task.tenant, wall_ns - task.terms.estimate_ns)
