"""How tasks come in, and how they are called off."""

from __future__ import annotations

from merit.core.attempts import cancel_attempts, settled
from merit.core.depending import ended
from merit.core.desk import Desk
from merit.model.commands import CancelTasks, SubmitTasks
from merit.model.effects import TellSettled
from merit.model.events import (
    TaskCanceled,
    TaskSubmitted,
)
from merit.model.limits import SECOND_NS
from merit.model.tasks import AttemptState, Refusal, Task, TaskSpec, TaskState

_ATTEMPT_LIVE_MAX = AttemptState.RUNNING


def submit_tasks(desk: Desk, command: SubmitTasks) -> None:
    """Take the tasks: all or none of them if the command is atomic, otherwise those that can be taken."""
    fresh = _check_submit(desk, command)
    if desk.refusals and command.atomic:
        _refuse_whole(desk, fresh)
        return
    keep, emit, ready = desk.keep, desk.emit, desk.ready
    for spec in fresh:
        desk.cursor = spec
        emit(
            TaskSubmitted(
                spec.id,
                command.tenant,
                command.principal,
                spec.capability,
                keep(spec.parameters) if not spec.parameters_blob else b"",
                spec.parameters_blob,
                spec.priority,
                spec.run_timeout_ns,
                spec.attempts_max,
                spec.after,
                spec.description,
            )
        )
        ready[spec.capability] = None


def _check_submit(desk: Desk, command: SubmitTasks) -> list[TaskSpec]:
    """The specs that are new and in order; what is wrong with others is noted. Known ones with the same content are
    simply known."""
    tasks = desk.state.tasks
    fresh: list[TaskSpec] = []
    batch: set[str] = set()
    room = desk.limits.live_tasks_max - desk.state.live
    room_bytes = desk.limits.live_bytes_max - desk.state.live_bytes
    for spec in command.tasks:
        desk.cursor = spec
        known = tasks.get(spec.id)
        if known is not None:
            if not _same(known, spec, command.tenant):
                desk.refusals.append(
                    Refusal(spec.id, "conflict", "id", "names a task with other content already; make a new id")
                )
            elif known.state.final:
                desk.effects.append(TellSettled(spec.id))
            continue
        refusal = _check_new(desk, spec, command.tenant, batch, room, room_bytes)
        if refusal is not None:
            desk.refusals.append(refusal)
            if command.atomic and refusal.code == "exhausted":
                batch.add(spec.id)  # it comes again together with those that need it
            continue
        room -= 1
        room_bytes -= spec.request_bytes
        batch.add(spec.id)
        fresh.append(spec)
    return fresh


def _refuse_whole(desk: Desk, fresh: list[TaskSpec]) -> None:
    """None of an atomic submit is taken. If there is no room for it, that is said of all, so that the whole of it comes
    again; if something else is wrong, then of none, so that no part of it does."""
    wrong = [refusal for refusal in desk.refusals if refusal.code != "exhausted"]
    first = (wrong or desk.refusals)[0]
    named = {refusal.task for refusal in desk.refusals}
    others = [spec.id for spec in fresh if spec.id not in named]
    code, wait_ns = "exhausted", first.retry_after_ns
    if wrong:
        others += [refusal.task for refusal in desk.refusals if refusal.code == "exhausted"]
        desk.refusals, code, wait_ns = wrong, "batch", 0
    reason = f"not taken, since task {first.task} of the same submit was refused"
    desk.refusals += [Refusal(task_id, code, "tasks", reason, wait_ns) for task_id in others]


def _check_new(desk: Desk, spec: TaskSpec, tenant: str, batch: set[str], room: int, room_bytes: int) -> Refusal | None:
    if spec.id in batch:
        return Refusal(spec.id, "conflict", "id", "stands twice in this submit")
    if len(spec.after) > 1 and len(set(spec.after)) != len(spec.after):
        return Refusal(spec.id, "invalid", "after", "names a task twice")
    for needed in spec.after:
        reason = _check_dependency(desk, needed, tenant, batch)
        if reason:
            return Refusal(spec.id, "not_found", "after", reason)
    if room < 1 or room_bytes < spec.request_bytes:
        reason = (
            f"the cell holds {desk.state.live:,} tasks of {desk.state.live_bytes:,} bytes and takes "
            f"{desk.limits.live_tasks_max:,} of {desk.limits.live_bytes_max:,}; submit again later"
        )
        return Refusal(spec.id, "exhausted", "tasks", reason, SECOND_NS)
    return None


def _check_dependency(desk: Desk, needed: str, tenant: str, batch: set[str]) -> str:
    if needed in batch:
        return ""
    task = desk.state.tasks.get(needed)
    if task is None or task.tenant != tenant:
        return f"task {needed} is unknown, or was final too long ago; submit it before or together with this one"
    if task.state in (TaskState.DEAD, TaskState.CANCELED):
        return f"task {needed} is {task.state.name} and will never complete"
    return ""


def cancel_tasks(desk: Desk, command: CancelTasks) -> None:
    """Cancel each task that is not final; the others are refused one by one."""
    for task_id in command.tasks:
        desk.cursor = task_id
        task = desk.state.tasks.get(task_id)
        if task is None or task.tenant != command.tenant:
            desk.refusals.append(Refusal(task_id, "not_found", "id", "no such task, or final too long ago"))
        elif task.state.final:
            reason = f"is {task.state.name} already; a final state never changes"
            desk.refusals.append(Refusal(task_id, "conflict", "state", reason))
        else:
            _cancel(desk, task, command.principal, command.reason)


def _cancel(desk: Desk, task: Task, principal: str, reason: str) -> None:
    live = [attempt for attempt in task.attempts if attempt.state <= _ATTEMPT_LIVE_MAX]
    dependents = desk.state.dependents.get(task.id, {}).values()
    desk.emit(TaskCanceled(task.id, principal, reason))
    settled(desk, task)
    cancel_attempts(desk, task, live)
    ended(desk, task, dependents)


def _same(known: Task, spec: TaskSpec, tenant: str) -> bool:
    """Whether a spec that came again is the task that is known."""
    return (
        known.tenant == tenant
        and known.capability == spec.capability
        and known.parameters == spec.parameters
        and known.parameters_blob == spec.parameters_blob
        and known.priority == spec.priority
        and known.after == spec.after
    )
