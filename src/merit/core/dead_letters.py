"""What becomes of tasks that failed for good: they are tried again as new tasks, or nobody needs them any more."""

from __future__ import annotations

import msgspec

from merit.core.desk import Desk
from merit.core.submitting import admit, refusal_of
from merit.core.timing import arm
from merit.model.commands import PurgeDead, RetryDead
from merit.model.events import DeadLetterClosed
from merit.model.limits import TIMEOUT_NS_MAX
from merit.model.tasks import Refusal, Task, TaskSpec, TaskState, Terms


def retry_dead(desk: Desk, command: RetryDead) -> None:
    """Each dead letter by itself: a new task with the same content, which names it, takes its place."""
    for old_id, new_id in command.pairs:
        desk.cursor = old_id
        task = _letter(desk, command.tenant, old_id)
        if task is None:
            continue
        spec = successor(desk, task, new_id)
        refusal = refusal_of(desk, spec, task.tenant)
        if refusal is not None:
            desk.refusals.append(Refusal(old_id, refusal.code, refusal.field, refusal.reason, refusal.retry_after_ns))
            continue
        arm(desk, admit(desk, spec, task.tenant, command.principal))
        desk.emit(DeadLetterClosed(old_id, command.principal, new_id))


def purge_dead(desk: Desk, command: PurgeDead) -> None:
    """Each dead letter by itself."""
    for task_id in command.tasks:
        desk.cursor = task_id
        if _letter(desk, command.tenant, task_id) is not None:
            desk.emit(DeadLetterClosed(task_id, command.principal))


def _letter(desk: Desk, tenant: str, task_id: str) -> Task | None:
    task = desk.state.dead_letters.get(task_id)
    if task is None or (tenant and task.tenant != tenant):
        reason = "is no dead letter: it never died, was retried or purged before, or died too long ago"
        desk.refusals.append(Refusal(task_id, "not_found", "id", reason))
        return None
    return task


def successor(desk: Desk, task: Task, new_id: str) -> TaskSpec:
    """The task again, from the beginning. Results that it was given already are given to it again (by ``apply``); of
    what it still needed, that which was retried itself is needed as what it is now. Times that have passed with the
    first try do not bind it."""
    terms = task.terms or Terms()
    needed = {name: _as_it_is_now(desk, name) for name in _lacked(desk, task)}
    return TaskSpec(
        new_id,
        task.capability,
        task.parameters,
        task.parameters_blob,
        task.priority,
        task.run_timeout_ns,
        task.attempts_max,
        tuple(dict.fromkeys(needed.values())),
        task.description,
        max(1, task.deadline_ns - task.since_ns) if task.deadline_ns else TIMEOUT_NS_MAX,
        msgspec.structs.replace(
            terms,
            not_before_ns=0,
            deadline_ns=0,
            idempotency_key="",
            inputs=tuple((name, needed.get(other, other)) for name, other in terms.inputs),
            origin=task.id,
        ),
    )


def _as_it_is_now(desk: Desk, task_id: str) -> str:
    """The last in the line of tries at a task."""
    while (task := desk.state.tasks.get(task_id)) is not None and task.successor:
        task_id = task.successor
    return task_id


def _lacked(desk: Desk, task: Task) -> list[str]:
    """What the task waited for when it died. Of what has been forgotten since, it is assumed only if the count says so."""
    if not task.blocked_by:
        return []
    despite = task.terms is not None and task.terms.despite_dead
    known = {other.id: other for other in desk.state.needed(task)}
    lacked = {
        name
        for name, other in known.items()
        if other.ended_ns >= task.ended_ns or not (other.state.final if despite else other.state is TaskState.COMPLETED)
    }
    if len(lacked) < task.blocked_by:
        lacked.update(name for name in task.after if name not in known)
    return [name for name in task.after if name in lacked]
