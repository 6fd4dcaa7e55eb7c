"""Which of two pending tasks goes first.

A rank is fixed when the task is queued and never changes while it waits, so that no heap is ever reordered; and yet
waiting raises priority, since later tasks are ranked behind: time is cut into bands of ``ageing_ns``, and a step of
priority is worth two bands.

**Bound.** A task of priority *p* is never overtaken by one (of the same tenant, key and capability) that gets its right
to be done more than ``(2 * (CRITICAL - p) + 1) * ageing_ns`` later: with the usual 5 minutes LOW waits for at most
35 minutes of CRITICAL ones. A step higher goes first for at least ``ageing_ns`` of difference, whatever the clock says.
"""

from __future__ import annotations

from merit.model.tasks import Priority, Task

Rank = tuple[int, int, int, int]
"""Band, new ones after those tried before, deadline, place in the sequence of submits; the lowest goes first."""

BANDS_PER_PRIORITY = 2
_NEVER = 2**63


def rank(task: Task, ageing_ns: int) -> Rank:
    """Where a pending task stands."""
    terms = task.terms
    since_ns = task.submitted_ns if terms is None else task.since_ns
    return (
        since_ns // ageing_ns - BANDS_PER_PRIORITY * task.priority,
        0 if task.attempts else 1,
        task.deadline_ns or _NEVER,
        task.order,
    )


def overtaken_ns_max(priority: Priority, ageing_ns: int) -> int:
    """The bound of the module, for a task of this priority."""
    return (BANDS_PER_PRIORITY * (Priority.CRITICAL - priority) + 1) * ageing_ns
