"""The fold: ``apply`` changes the state by one event. It stores, moves and
counts, in whole numbers; it never decides, and what has to be computed otherwise comes in the events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from merit.core.apply_conduct import APPLY_CONDUCT
from merit.core.apply_fleet import APPLY_FLEET, completed, failed, forget_profiles, keep_profile, settle
from merit.core.apply_settings import APPLY_SETTINGS
from merit.core.lifecycles import ATTEMPT, TASK, IllegalTransition
from merit.core.state import KeyEntry, Payloads, State, Tenant
from merit.core.story import story_of_task
from merit.model.auditing import AuditPolicy, SecondOpinion, new_case
from merit.model.events import (
    AttemptAssigned,
    AttemptFailed,
    AttemptReturned,
    AttemptStarted,
    AuditAnswered,
    AuditStarted,
    DeadLetterClosed,
    Event,
    LeadershipStarted,
    TaskCanceled,
    TaskCompleted,
    TaskDelayed,
    TaskDied,
    TaskReleased,
    TaskSubmitted,
)
from merit.model.rules import TenantTerms
from merit.model.tasks import Attempt, AttemptState, Input, ReviewKind, Task, TaskState, Terms
from merit.model.workers import Worker

_WAITING = TaskState.WAITING
_DEAD = TaskState.DEAD
_COMPLETED = TaskState.COMPLETED
_AUDITING = TaskState.AUDITING
_TASK_ASSIGNED = TASK[AttemptAssigned]
_TASK_COMPLETED = TASK[TaskCompleted]
_LIVE_MAX = AttemptState.RUNNING


def apply(state: State, event: Event, payloads: Payloads, now_ns: int) -> None:
    """Fold one event into the state.

    Raises:
        IllegalTransition: the event cannot happen to what it names. The state is unchanged then.
    """
    _APPLY[type(event)](state, event, payloads, now_ns)
    state.sequence += 1


def _leadership_started(state: State, event: LeadershipStarted, _payloads: Payloads, _now_ns: int) -> None:
    state.epoch = event.epoch
    state.holder = event.holder
    state.grace_until_ns = event.grace_until_ns
    state.finals_max = event.finals_max
    state.finals_bytes_max = event.finals_bytes_max
    state.dead_letters_max = event.dead_letters_max
    state.dead_letters_bytes_max = event.dead_letters_bytes_max
    state.keys_max = event.keys_max
    state.keys_ns = event.keys_ns
    state.profiles_max = event.profiles_max
    state.homes_max = event.homes_max
    state.salt = event.salt
    for worker in state.workers.values():
        worker.room = 0
        keep_profile(state, worker)
    forget_profiles(state)
    _forget(state)
    _forget_dead(state)


def _task_submitted(state: State, event: TaskSubmitted, payloads: Payloads, now_ns: int) -> None:
    tasks = state.tasks
    if event.task in tasks:
        raise IllegalTransition(event, f"task {event.task}", "that exists", [])
    parameters = payloads.get(event.parameters, b"")
    task = Task(
        event.task,
        event.tenant,
        event.principal,
        event.capability,
        parameters,
        event.parameters_blob,
        event.priority,
        event.run_timeout_ns,
        event.attempts_max,
        event.after,
        event.description,
        now_ns,
        state.order,
    )
    task.deadline_ns = event.deadline_ns
    task.terms = terms = event.terms
    if terms is not None:
        _take_over(state, task, terms)
    state.order += 1
    state.live_bytes += task.request_bytes
    tasks[event.task] = task
    tenant = state.tenants.get(event.tenant)
    if tenant is None:
        tenant = state.tenants[event.tenant] = Tenant(TenantTerms(event.tenant))
    tenant.live += 1
    if event.after:
        for needed in event.after:
            other = tasks.get(needed)
            if other is not None and _holds_up(other, task):
                state.dependents.setdefault(needed, {})[event.task] = task
                task.blocked_by += 1
            elif other is not None:
                _hand_over(state, other, task)
    if terms is not None:
        if terms.idempotency_key:
            _keep_key(state, event, terms, now_ns)
        if terms.not_before_ns > now_ns:
            task.due_ns = terms.not_before_ns
    if task.blocked_by or task.due_ns:
        task.state = _WAITING
    else:
        task.due_ns = event.queue_due_ns


def _take_over(state: State, task: Task, terms: Terms) -> None:
    """What the task has from the one that it tries again, or looks at."""
    if terms.origin and (origin := state.tasks.get(terms.origin)) is not None:
        task.inputs = origin.inputs
    if terms.review is not None and (case := state.cases.get(terms.review.of)) is not None:
        case.reviews += (task.id,)
        case.asked += 1
        if terms.review.kind is ReviewKind.COPY:
            task.inputs = state.tasks[case.task].inputs


def _holds_up(other: Task, task: Task) -> bool:
    """Whether ``task`` has to wait for ``other``, which it needs."""
    if task.terms is not None and task.terms.despite_dead:
        return not other.state.final
    return other.state is not _COMPLETED


def _hand_over(state: State, other: Task, task: Task) -> None:
    """``other`` has ended: its result is a parameter of ``task`` if that asked for it."""
    if task.terms is None or not task.terms.inputs or task.state.final:
        return
    size_bytes = task.request_bytes
    completed = other.state is _COMPLETED
    for name, needed in task.terms.inputs:
        if needed == other.id:
            given = Input(name, other.result, other.result_blob) if completed else Input(name, b"null")
            # One that tries a dead letter again may have been given it already.
            task.inputs = (*(item for item in task.inputs if item.name != name), given)
    state.live_bytes += task.request_bytes - size_bytes


def _keep_key(state: State, event: TaskSubmitted, terms: Terms, now_ns: int) -> None:
    keys = state.keys
    content = content_digest(event.capability, event.parameters, event.parameters_blob, event.after)
    at = (event.tenant, terms.idempotency_key)
    keys.pop(at, None)  # what has it anew is the youngest again
    keys[at] = KeyEntry(event.task, content, now_ns + state.keys_ns)
    while keys and (len(keys) > state.keys_max or next(iter(keys.values())).until_ns <= now_ns):
        del keys[next(iter(keys))]
        state.keys_forgotten += 1


def content_digest(capability: str, parameters: bytes, blob: str, after: tuple[str, ...]) -> bytes:
    """What was asked for, in 16 bytes: two submits with one idempotency key have to agree in it.

    Args:
        capability: its name.
        parameters: their digest, empty for a blob.
        blob: the digest of parameters that are one.
        after: ids of the tasks that are needed.
    """
    return sha256("\0".join((capability, parameters.hex(), blob, *after)).encode()).digest()[:16]


def _task_released(state: State, event: TaskReleased, _payloads: Payloads, _now_ns: int) -> None:
    task = _task(state, event, event.task)
    task.state = _next(event, task)
    task.due_ns = event.queue_due_ns


def _task_delayed(state: State, event: TaskDelayed, _payloads: Payloads, _now_ns: int) -> None:
    task = _task(state, event, event.task)
    after = _next(event, task)
    if state.cases.pop(event.task, None) is not None:
        task.result = b""
    task.state = after
    task.due_ns = event.until_ns


def _task_completed(state: State, event: TaskCompleted, payloads: Payloads, now_ns: int) -> None:
    task = state.tasks.get(event.task)
    if task is None or task.state not in _TASK_COMPLETED:
        raise _illegal(event, event.task, task)
    if task.state is _AUDITING:
        _close_case(state, event, task)
    else:
        attempt = _attempt(state, event, task, event.number)
        worker = _end(state, event, task, attempt, AttemptState.COMPLETED, now_ns)
        completed(state, task, attempt, worker, event.wall_ns, now_ns)
        _note_costs(attempt, event, payloads)
        if len(task.attempts) > 1:
            _end_others(state, event, task, now_ns)
    task.result = payloads.get(event.result, b"")
    task.result_blob = event.result_blob
    task.state = _COMPLETED
    for dependent in state.dependents.pop(event.task, {}).values():
        dependent.blocked_by -= 1
        _hand_over(state, task, dependent)
    state.completed += 1
    _finish(state, task, now_ns)


def _note_costs(attempt: Attempt, event: TaskCompleted | AuditStarted, payloads: Payloads) -> None:
    attempt.wall_ns = event.wall_ns
    attempt.cpu_ns = event.cpu_ns
    attempt.memory_bytes = event.memory_bytes
    if event.trail:
        attempt.trail = payloads.get(event.trail, b"")


def _audit_started(state: State, event: AuditStarted, payloads: Payloads, now_ns: int) -> None:
    task = _task(state, event, event.task)
    after = _next(event, task)
    attempt = _attempt(state, event, task, event.number)
    worker = _end(state, event, task, attempt, AttemptState.REPORTED, now_ns)
    _note_costs(attempt, event, payloads)
    if len(task.attempts) > 1:
        _end_others(state, event, task, now_ns)
    # Where a single task is put together again, nothing is known of policies, and nothing is decided.
    policy = state.audits.get(task.capability) or AuditPolicy(task.capability)
    state.cases[task.id] = new_case(task.id, event.number, worker.id, policy)
    task.state = after
    task.due_ns = event.due_ns
    task.result = payloads.get(event.result, b"")


def _close_case(state: State, event: TaskCompleted, task: Task) -> None:
    """What has been looked at is accepted, or there is another answer."""
    del state.cases[task.id]
    task.due_ns = 0
    if event.number:
        attempt = _attempt(state, event, task, event.number)
        _move(event, task, attempt, AttemptState.COMPLETED)
        completed(state, task, attempt, state.workers.get(attempt.worker), attempt.wall_ns, attempt.ended_ns)


def _task_died(state: State, event: TaskDied, _payloads: Payloads, now_ns: int) -> None:
    task = _task(state, event, event.task)
    after = _next(event, task)
    _need_nothing(state, task)
    _call_off_audit(state, event, task)
    task.state = after
    task.failure = event.failure
    _release_the_brave(state, task)
    state.dead += 1
    _finish(state, task, now_ns)


def _task_canceled(state: State, event: TaskCanceled, _payloads: Payloads, now_ns: int) -> None:
    task = _task(state, event, event.task)
    after = _next(event, task)
    _need_nothing(state, task)
    _end_others(state, event, task, now_ns)
    _call_off_audit(state, event, task)
    task.state = after
    _release_the_brave(state, task)
    state.canceled += 1
    _finish(state, task, now_ns)


def _call_off_audit(state: State, event: Event, task: Task) -> None:
    """The task ends while its result is being looked at: of that nothing comes."""
    if task.state is _AUDITING and (case := state.cases.pop(task.id, None)) is not None:
        attempt = _attempt(state, event, task, case.number)
        if attempt.state is AttemptState.REPORTED:
            _move(event, task, attempt, AttemptState.CANCELED)
            if isinstance(event, TaskDied):
                attempt.failure = event.failure
        task.due_ns = 0
        task.result = b""


def _attempt_assigned(state: State, event: AttemptAssigned, _payloads: Payloads, now_ns: int) -> None:
    task = state.tasks.get(event.task)
    worker = state.workers.get(event.worker)
    if task is None or worker is None or event.number != len(task.attempts) + 1:
        raise _illegal(event, event.task, task)
    after = _TASK_ASSIGNED.get(task.state)
    if after is None:
        raise _illegal(event, event.task, task)
    task.state = after
    task.due_ns = 0
    task.attempts += (Attempt(event.number, event.worker, now_ns, event.due_ns),)
    worker.attempts[event.task] = event.number
    worker.given = worker.turn = state.sequence + 1
    if worker.room:
        worker.room -= 1
    if task.terms is not None and task.terms.key:
        settle(state, task, task.terms.key, worker)


def _attempt_started(state: State, event: AttemptStarted, _payloads: Payloads, now_ns: int) -> None:
    task = _task(state, event, event.task)
    attempt = _attempt(state, event, task, event.number)
    after = _next(event, task)
    _move(event, task, attempt, AttemptState.RUNNING)
    attempt.started_ns = now_ns
    attempt.due_ns = event.due_ns
    task.state = after


def _attempt_returned(state: State, event: AttemptReturned, _payloads: Payloads, now_ns: int) -> None:
    task = _task(state, event, event.task)
    attempt = _attempt(state, event, task, event.number)
    after = _next(event, task)
    _end(state, event, task, attempt, AttemptState.RETURNED, now_ns)
    task.state = after
    task.due_ns = event.queue_due_ns


def _attempt_failed(state: State, event: AttemptFailed, payloads: Payloads, now_ns: int) -> None:
    task = _task(state, event, event.task)
    attempt = _attempt(state, event, task, event.number)
    _next(event, task)
    attempt.failure = event.failure
    if task.state is _AUDITING:
        # What takes it from here is the next event: another answer, another try, or its end.
        _move(event, task, attempt, event.state)
        failed(state, task, attempt, state.workers.get(attempt.worker), attempt.wall_ns, attempt.ended_ns)
        return
    worker = _end(state, event, task, attempt, event.state, now_ns)
    failed(state, task, attempt, worker, event.wall_ns, now_ns)
    attempt.wall_ns = event.wall_ns
    attempt.cpu_ns = event.cpu_ns
    attempt.memory_bytes = event.memory_bytes
    if event.trail:
        attempt.trail = payloads.get(event.trail, b"")


def _need_nothing(state: State, task: Task) -> None:
    """A task is about to end that may still wait for others."""
    if task.state is _WAITING and task.blocked_by:
        for needed in task.after:
            others = state.dependents.get(needed)
            if others is not None and others.pop(task.id, None) is not None and not others:
                del state.dependents[needed]


def _release_the_brave(state: State, task: Task) -> None:
    """``task`` has failed: those that run despite that need it no longer. The others die by events of their own."""
    for dependent in state.dependents.pop(task.id, {}).values():
        if dependent.terms is not None and dependent.terms.despite_dead:
            dependent.blocked_by -= 1
            _hand_over(state, task, dependent)


def _end(state: State, event: Event, task: Task, attempt: Attempt, after: AttemptState, now_ns: int) -> Worker:
    _move(event, task, attempt, after)
    attempt.ended_ns = now_ns
    worker = state.workers[attempt.worker]
    del worker.attempts[task.id]
    worker.turn = state.sequence + 1
    return worker


def _end_others(state: State, event: Event, task: Task, now_ns: int) -> None:
    for attempt in task.attempts:
        if attempt.state <= _LIVE_MAX:
            _end(state, event, task, attempt, AttemptState.CANCELED, now_ns)


def _finish(state: State, task: Task, now_ns: int) -> None:
    task.ended_ns = now_ns
    state.live_bytes -= task.request_bytes
    tenant = state.tenants[task.tenant]
    tenant.live -= 1
    if not tenant.live and tenant.terms.usual:
        del state.tenants[task.tenant]
    # What was to look at another's result is nobody's dead letter.
    is_review = task.terms is not None and task.terms.review is not None
    if task.state is not _DEAD or is_review or not state.dead_letters_max:
        _bury(state, task)
        return
    state.dead_letters[task.id] = task
    state.dead_letters_bytes += task.weight_bytes()
    _forget_dead(state)


def _bury(state: State, task: Task) -> None:
    """A final task that nobody has to look at is kept for a while."""
    weight_bytes = task.weight_bytes()
    state.finals.append(task)
    state.finals_weights.append(weight_bytes)
    state.finals_bytes += weight_bytes
    if len(state.finals) > state.finals_max or state.finals_bytes > state.finals_bytes_max:
        _forget(state)


def _forget(state: State) -> None:
    finals = state.finals
    while finals and (len(finals) > state.finals_max or state.finals_bytes > state.finals_bytes_max):
        old = finals.popleft()
        state.finals_bytes -= state.finals_weights.popleft()
        state.forgotten += 1
        del state.tasks[old.id]


def _forget_dead(state: State) -> None:
    """Beyond their bound the oldest dead letters are final tasks like others."""
    letters = state.dead_letters
    while letters and (
        len(letters) > state.dead_letters_max or state.dead_letters_bytes > state.dead_letters_bytes_max
    ):
        old = letters.pop(next(iter(letters)))
        state.dead_letters_bytes -= old.weight_bytes()
        _bury(state, old)


def _dead_letter_closed(state: State, event: DeadLetterClosed, _payloads: Payloads, _now_ns: int) -> None:
    task = state.dead_letters.pop(event.task, None)
    if task is None:
        raise _illegal(event, event.task, state.tasks.get(event.task))
    state.dead_letters_bytes -= task.weight_bytes()
    task.successor = event.successor
    _bury(state, task)


def _audit_answered(state: State, event: AuditAnswered, payloads: Payloads, _now_ns: int) -> None:
    case = state.cases.get(event.task)
    if case is None or event.review not in case.reviews:
        raise _illegal(event, event.task, state.tasks.get(event.task))
    case.reviews = tuple(review for review in case.reviews if review != event.review)
    case.answers += (SecondOpinion(event.review, event.worker, payloads.get(event.result, b"")),)


def _task(state: State, event: Event, task_id: str) -> Task:
    task = state.tasks.get(task_id)
    if task is None:
        raise _illegal(event, task_id, None)
    return task


def _next(event: Event, task: Task) -> TaskState:
    after = TASK[type(event)].get(task.state)
    if after is None:
        raise _illegal(event, task.id, task)
    return after


def _attempt(_state: State, event: Event, task: Task, number: int) -> Attempt:
    attempt = task.attempt(number)
    if attempt is None:
        raise IllegalTransition(event, f"task {task.id}", f"without an attempt {number}", story_of_task(task))
    return attempt


def _move(event: Event, task: Task, attempt: Attempt, after: AttemptState) -> None:
    if after not in ATTEMPT[type(event)].get(attempt.state, ()):
        what = f"attempt {attempt.number} of task {task.id}"
        raise IllegalTransition(event, what, attempt.state.name, story_of_task(task))
    attempt.state = after


def _illegal(event: Event, task_id: str, task: Task | None) -> IllegalTransition:
    if task is None:
        return IllegalTransition(event, f"task {task_id}", "that is unknown", [])
    return IllegalTransition(event, f"task {task_id}", task.state.name, story_of_task(task))


_APPLY: Mapping[type[Event], Callable[[State, Any, Payloads, int], None]] = {
    LeadershipStarted: _leadership_started,
    TaskSubmitted: _task_submitted,
    TaskReleased: _task_released,
    TaskDelayed: _task_delayed,
    TaskCompleted: _task_completed,
    TaskDied: _task_died,
    TaskCanceled: _task_canceled,
    AttemptAssigned: _attempt_assigned,
    AttemptStarted: _attempt_started,
    AttemptReturned: _attempt_returned,
    AttemptFailed: _attempt_failed,
    AuditStarted: _audit_started,
    AuditAnswered: _audit_answered,
    DeadLetterClosed: _dead_letter_closed,
    **APPLY_FLEET,
    **APPLY_CONDUCT,
    **APPLY_SETTINGS,
}
