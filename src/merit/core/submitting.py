"""How tasks come in, and how they are called off."""

from __future__ import annotations

from hashlib import sha256

from merit.core.apply import content_digest
from merit.core.attempts import cancel_attempts, settled
from merit.core.depending import ended
from merit.core.desk import Desk
from merit.core.lines import Bespoken
from merit.core.queueing import enqueue
from merit.core.timing import arm
from merit.model.commands import CancelTasks, SubmitTasks
from merit.model.effects import TellKnown, TellSettled
from merit.model.events import (
    TaskCanceled,
    TaskSubmitted,
)
from merit.model.limits import SECOND_NS
from merit.model.tasks import AttemptState, Demand, Refusal, Task, TaskSpec, TaskState, Terms

_ATTEMPT_LIVE_MAX = AttemptState.RUNNING
_PENDING = TaskState.PENDING


def submit_tasks(desk: Desk, command: SubmitTasks) -> None:
    """Take the tasks: all or none of them if the command is atomic, otherwise those that can be taken."""
    fresh = _check_submit(desk, command)
    if desk.refusals and command.atomic:
        _refuse_whole(desk, fresh)
        return
    usual: dict[int, list[str]] = {}
    for spec in fresh:
        desk.cursor = spec
        task = admit(desk, spec, command.tenant, command.principal)
        if task.state is _PENDING and not task.due_ns:
            usual.setdefault(task.deadline_ns, []).append(task.id)
        else:
            arm(desk, task)
    for deadline_ns, ids in usual.items():
        desk.timers.arm_new(ids, deadline_ns)


def admit(desk: Desk, spec: TaskSpec, tenant: str, principal: str) -> Task:
    """Take a task in that has been checked; its timer is for the caller to arm."""
    now_ns, terms = desk.now_ns, spec.terms
    deadline_ns = now_ns + spec.timeout_ns
    queue_due_ns = 0
    if terms is not None:
        deadline_ns = max(now_ns, terms.not_before_ns) + spec.timeout_ns
        if terms.deadline_ns:
            deadline_ns = min(deadline_ns, terms.deadline_ns)
        if terms.queue_timeout_ns:
            queue_due_ns = now_ns + terms.queue_timeout_ns
    desk.emit(
        TaskSubmitted(
            spec.id,
            tenant,
            principal,
            spec.capability,
            desk.keep(spec.parameters) if not spec.parameters_blob else b"",
            spec.parameters_blob,
            spec.priority,
            spec.run_timeout_ns,
            spec.attempts_max,
            spec.after,
            spec.description,
            deadline_ns,
            queue_due_ns,
            terms,
        )
    )
    task = desk.state.tasks[spec.id]
    if task.state is _PENDING:
        enqueue(desk, task)
    return task


def _check_submit(desk: Desk, command: SubmitTasks) -> list[TaskSpec]:
    """The specs that are new and in order; what is wrong with others is noted. Known ones with the same content are
    simply known."""
    tasks = desk.state.tasks
    fresh: list[TaskSpec] = []
    batch: set[str] = set()
    batch_keys: dict[str, TaskSpec] = {}
    bespoken = Bespoken()
    room = min(desk.limits.live_tasks_max - desk.state.live, _room_of_tenant(desk, command.tenant))
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
        terms = spec.terms
        if terms is not None and terms.idempotency_key and _is_known(desk, spec, terms, command, batch_keys):
            continue
        size_bytes = spec.request_bytes
        refusal = _check_new(desk, spec, command.tenant, batch, bespoken, room, room_bytes - size_bytes)
        if refusal is not None:
            desk.refusals.append(refusal)
            if command.atomic and refusal.code == "exhausted":
                batch.add(spec.id)  # it comes again together with those that need it
            continue
        room -= 1
        room_bytes -= size_bytes
        batch.add(spec.id)
        if terms is not None and terms.idempotency_key:
            batch_keys[terms.idempotency_key] = spec
        fresh.append(spec)
    return fresh


def _is_known(desk: Desk, spec: TaskSpec, terms: Terms, command: SubmitTasks, batch: dict[str, TaskSpec]) -> bool:
    """Whether another task with the same idempotency key is there, which settles the matter. How long a key is kept
    says only how long it is found here; afterwards it is found in the journal."""
    key = terms.idempotency_key
    before = batch.get(key)
    if before is not None and command.atomic:
        # Whether the other one is taken is not known yet, so that nobody can be told to wait for it.
        reason = f"task {before.id} of the same submit has this key too"
        desk.refusals.append(Refusal(spec.id, "conflict", "terms.idempotency_key", reason))
        return True
    entry = desk.state.keys.get((command.tenant, key))
    if before is not None:
        known, same = before.id, asked_for(before) == asked_for(spec)
    elif entry is not None:
        known, same = entry.task, entry.content == asked_for(spec)
    else:
        return False
    if same:
        desk.effects.append(TellKnown(spec.id, known))
    else:
        reason = f"task {known} has this key and other content; make a new key, or submit the same again"
        desk.refusals.append(Refusal(spec.id, "conflict", "terms.idempotency_key", reason))
    return True


def asked_for(spec: TaskSpec) -> bytes:
    """The digest by which submits with the same idempotency key are compared."""
    parameters = sha256(spec.parameters).digest() if spec.parameters and not spec.parameters_blob else b""
    return content_digest(spec.capability, parameters, spec.parameters_blob, spec.after)


def _room_of_tenant(desk: Desk, name: str) -> int:
    """How many more tasks the tenant may have that are not final."""
    tenant = desk.state.tenants.get(name)
    if tenant is None:
        return desk.limits.tenant_live_max if len(desk.state.tenants) < desk.limits.tenants_max else 0
    return (tenant.terms.live_max or desk.limits.tenant_live_max) - tenant.live


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


def refusal_of(desk: Desk, spec: TaskSpec, tenant: str) -> Refusal | None:
    """Why a single task that the cell makes itself cannot be taken, or None."""
    if spec.id in desk.state.tasks:
        return Refusal(spec.id, "conflict", "id", "names a task already; make a new id")
    room = min(desk.limits.live_tasks_max - desk.state.live, _room_of_tenant(desk, tenant))
    room_bytes = desk.limits.live_bytes_max - desk.state.live_bytes - spec.request_bytes
    return _check_new(desk, spec, tenant, set(), Bespoken(), room, room_bytes)


def _check_new(
    desk: Desk, spec: TaskSpec, tenant: str, batch: set[str], bespoken: Bespoken, room: int, room_bytes: int
) -> Refusal | None:
    """``room`` is there for how many tasks, this one among them; ``room_bytes`` is left once it is taken."""
    if spec.id in batch:
        return Refusal(spec.id, "conflict", "id", "stands twice in this submit")
    if len(spec.after) > 1 and len(set(spec.after)) != len(spec.after):
        return Refusal(spec.id, "invalid", "after", "names a task twice")
    for needed in spec.after:
        reason = _check_dependency(desk, needed, spec, tenant, batch)
        if reason:
            return Refusal(spec.id, "not_found", "after", reason)
    if spec.terms is not None and spec.terms.demand is not None:
        refusal = _check_demand(desk, spec, spec.terms.demand, bespoken)
        if refusal is not None:
            return refusal
    # Near the bound the whole of the submit counts, whatever capabilities it is for: it comes again a little later.
    pending = desk.backlog.pending(spec.capability)
    full = bool(pending) and pending + len(batch) >= desk.limits.capability_pending_max
    if room < 1 or room_bytes < 0 or full:
        return _exhausted(desk, spec, tenant, len(batch), full=full)
    return None


def _check_demand(desk: Desk, spec: TaskSpec, demand: Demand, bespoken: Bespoken) -> Refusal | None:
    """What it asks of a worker is known, and not one thing too many that is asked at a time."""
    if demand.strategy and demand.strategy not in desk.lines.catalogue:
        known = ", ".join(sorted(desk.lines.catalogue))
        return Refusal(spec.id, "invalid", "terms.demand.strategy", f"{demand.strategy} is none of {known}")
    if desk.lines.takes(spec.capability, demand, bespoken, desk.limits.lines_max, desk.limits.broad_lines_max):
        return None
    reason = (
        f"tasks that wait ask for too many different things of workers ({desk.limits.lines_max:,}, or "
        f"{desk.limits.broad_lines_max:,} of one capability); ask for fewer different ones, or submit again later"
    )
    return Refusal(spec.id, "exhausted", "terms.demand", reason, SECOND_NS)


def _exhausted(desk: Desk, spec: TaskSpec, tenant: str, before: int, *, full: bool) -> Refusal:
    """Say which bound it is, the narrowest first. ``before`` tasks of the same submit have been taken already."""
    state, limits = desk.state, desk.limits
    field = "tasks"
    reason = (
        f"the cell holds {state.live:,} tasks of {state.live_bytes:,} bytes and takes "
        f"{limits.live_tasks_max:,} of {limits.live_bytes_max:,}; submit again later"
    )
    if full:
        field = "capability"
        reason = f"the queue of {spec.capability} is full ({limits.capability_pending_max:,} tasks); submit again later"
    elif tenant not in state.tenants and len(state.tenants) >= limits.tenants_max:
        field = "tenant"
        reason = f"the cell has {len(state.tenants):,} tenants, its bound; submit again later"
    elif _room_of_tenant(desk, tenant) <= before:
        field = "tenant"
        live_max = _room_of_tenant(desk, tenant) + (state.tenants[tenant].live if tenant in state.tenants else 0)
        reason = f"tenant {tenant} may have {live_max:,} tasks that are not final, its bound; submit again later"
    return Refusal(spec.id, "exhausted", field, reason, SECOND_NS)


def _check_dependency(desk: Desk, needed: str, spec: TaskSpec, tenant: str, batch: set[str]) -> str:
    if needed in batch:
        return ""
    task = desk.state.tasks.get(needed)
    if task is None or task.tenant != tenant:
        return f"task {needed} is unknown, or was final too long ago; submit it before or together with this one"
    despite = spec.terms is not None and spec.terms.despite_dead
    if task.state in (TaskState.DEAD, TaskState.CANCELED) and not despite:
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
            cancel(desk, task, command.principal, command.reason)


def cancel(desk: Desk, task: Task, principal: str, reason: str) -> None:
    """Call a task off that is not final."""
    live = [attempt for attempt in task.attempts if attempt.state <= _ATTEMPT_LIVE_MAX]
    dependents = desk.state.dependents.get(task.id, {}).values()
    pending = task.state is _PENDING
    desk.orphan(task)
    desk.emit(TaskCanceled(task.id, principal, reason))
    if pending:
        desk.backlog.drop(task)
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
