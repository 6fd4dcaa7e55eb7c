"""The fold: ``apply`` changes the state by one event. It stores and moves; it never decides and never computes
anything that a decision could depend on (events carry the numbers)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from merit.core.lifecycles import ATTEMPT, TASK, WORKER, IllegalTransition
from merit.core.state import Queue, State
from merit.core.story import story_of_task
from merit.model.events import (
    AttemptAssigned,
    AttemptFailed,
    AttemptReturned,
    AttemptStarted,
    Event,
    LeadershipStarted,
    TaskCanceled,
    TaskCompleted,
    TaskDelayed,
    TaskDied,
    TaskReleased,
    TaskSubmitted,
    WorkerDraining,
    WorkerJoined,
    WorkerLeft,
)
from merit.model.tasks import Attempt, AttemptState, Task, TaskState
from merit.model.workers import Offer, Worker, WorkerState

Payloads = Mapping[bytes, bytes]
"""Contents by their SHA-256 digest. One that is missing has been erased and reads as empty."""

_PENDING = TaskState.PENDING
_WAITING = TaskState.WAITING
_COMPLETED = TaskState.COMPLETED
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
    _forget(state)


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
    state.order += 1
    state.live_bytes += task.request_bytes
    tasks[event.task] = task
    if event.after:
        for needed in event.after:
            other = tasks.get(needed)
            if other is not None and other.state is not _COMPLETED:
                state.dependents.setdefault(needed, {})[event.task] = task
                task.blocked_by += 1
    if task.blocked_by:
        task.state = _WAITING
    else:
        _enqueue(state, task, front=False)


def _task_released(state: State, event: TaskReleased, _payloads: Payloads, _now_ns: int) -> None:
    task = _task(state, event, event.task)
    task.state = _next(event, task)
    task.due_ns = 0
    _enqueue(state, task, front=bool(task.attempts))


def _task_delayed(state: State, event: TaskDelayed, _payloads: Payloads, _now_ns: int) -> None:
    task = _task(state, event, event.task)
    task.state = _next(event, task)
    task.due_ns = event.until_ns


def _task_completed(state: State, event: TaskCompleted, payloads: Payloads, now_ns: int) -> None:
    task = state.tasks.get(event.task)
    if task is None or task.state not in _TASK_COMPLETED:
        raise _illegal(event, event.task, task)
    attempt = _attempt(state, event, task, event.number)
    _end(state, event, task, attempt, AttemptState.COMPLETED, now_ns)
    attempt.wall_ns = event.wall_ns
    attempt.cpu_ns = event.cpu_ns
    attempt.memory_bytes = event.memory_bytes
    if event.trail:
        attempt.trail = payloads.get(event.trail, b"")
    _end_others(state, event, task, now_ns)
    task.result = payloads.get(event.result, b"")
    task.result_blob = event.result_blob
    task.state = _COMPLETED
    for dependent in state.dependents.pop(event.task, {}).values():
        dependent.blocked_by -= 1
    state.completed += 1
    _finish(state, task, now_ns)


def _task_died(state: State, event: TaskDied, _payloads: Payloads, now_ns: int) -> None:
    task = _task(state, event, event.task)
    after = _next(event, task)
    _unqueue(state, task)
    task.state = after
    task.failure = event.failure
    state.dependents.pop(event.task, None)
    state.dead += 1
    _finish(state, task, now_ns)


def _task_canceled(state: State, event: TaskCanceled, _payloads: Payloads, now_ns: int) -> None:
    task = _task(state, event, event.task)
    after = _next(event, task)
    _unqueue(state, task)
    _end_others(state, event, task, now_ns)
    task.state = after
    state.dependents.pop(event.task, None)
    state.canceled += 1
    _finish(state, task, now_ns)


def _attempt_assigned(state: State, event: AttemptAssigned, _payloads: Payloads, now_ns: int) -> None:
    task = state.tasks.get(event.task)
    worker = state.workers.get(event.worker)
    if task is None or worker is None or event.number != len(task.attempts) + 1:
        raise _illegal(event, event.task, task)
    after = _TASK_ASSIGNED.get(task.state)
    if after is None:
        raise _illegal(event, event.task, task)
    queue = state.queues[task.capability]
    queue.take(task)
    if not queue.size:
        del state.queues[task.capability]
    task.state = after
    task.attempts += (Attempt(event.number, event.worker, now_ns, event.due_ns),)
    worker.attempts[event.task] = event.number


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
    _enqueue(state, task, front=True)


def _attempt_failed(state: State, event: AttemptFailed, payloads: Payloads, now_ns: int) -> None:
    task = _task(state, event, event.task)
    attempt = _attempt(state, event, task, event.number)
    _next(event, task)
    _end(state, event, task, attempt, event.state, now_ns)
    attempt.failure = event.failure
    attempt.wall_ns = event.wall_ns
    attempt.cpu_ns = event.cpu_ns
    attempt.memory_bytes = event.memory_bytes
    if event.trail:
        attempt.trail = payloads.get(event.trail, b"")


def _worker_joined(state: State, event: WorkerJoined, _payloads: Payloads, now_ns: int) -> None:
    known = state.workers.get(event.worker)
    if known is not None and known.attempts:
        raise IllegalTransition(event, f"worker {event.worker}", f"with {len(known.attempts)} live attempts", [])
    after = WORKER[WorkerJoined].get(known.state if known else None)
    if after is None:
        raise IllegalTransition(event, f"worker {event.worker}", known and known.state, [])
    state.workers[event.worker] = Worker(
        event.worker, event.boot, event.tenant, event.offers, event.concurrency, event.tags, now_ns, after, {}
    )
    for offer in event.offers:
        state.offers[offer.name] = offer


def _worker_draining(state: State, event: WorkerDraining, _payloads: Payloads, _now_ns: int) -> None:
    worker = _worker(state, event, event.worker)
    worker.state = _next_worker(event, worker)


def _worker_left(state: State, event: WorkerLeft, _payloads: Payloads, _now_ns: int) -> None:
    worker = _worker(state, event, event.worker)
    after = _next_worker(event, worker)
    if worker.attempts:
        raise IllegalTransition(event, f"worker {event.worker}", f"with {len(worker.attempts)} live attempts", [])
    worker.state = after
    del state.workers[event.worker]
    for offer in worker.offers:
        # What it said last binds submitters no longer where somebody else is there to ask.
        if state.offers.get(offer.name) == offer:
            other = _offered_by_another(state, offer.name)
            if other is not None:
                state.offers[offer.name] = other


def _offered_by_another(state: State, capability: str) -> Offer | None:
    """The capability as the first worker that is there offers it. Where all offer the same this looks at one only."""
    for worker in state.workers.values():
        for offer in worker.offers:
            if offer.name == capability:
                return offer
    return None


def _enqueue(state: State, task: Task, *, front: bool) -> None:
    queue = state.queues.get(task.capability)
    if queue is None:
        queue = state.queues[task.capability] = Queue()
    queue.push(task, front=front)


def _unqueue(state: State, task: Task) -> None:
    """Called while the task is still in its old state; its entry becomes stale with the change that follows."""
    if task.state is _PENDING:
        queue = state.queues[task.capability]
        queue.drop(task)
        if not queue.size:
            del state.queues[task.capability]
    elif task.state is _WAITING and task.blocked_by:
        for needed in task.after:
            others = state.dependents.get(needed)
            if others is not None and others.pop(task.id, None) is not None and not others:
                del state.dependents[needed]


def _end(state: State, event: Event, task: Task, attempt: Attempt, after: AttemptState, now_ns: int) -> None:
    _move(event, task, attempt, after)
    attempt.ended_ns = now_ns
    worker = state.workers[attempt.worker]
    del worker.attempts[task.id]


def _end_others(state: State, event: Event, task: Task, now_ns: int) -> None:
    for attempt in task.attempts:
        if attempt.state <= _LIVE_MAX:
            _end(state, event, task, attempt, AttemptState.CANCELED, now_ns)


def _finish(state: State, task: Task, now_ns: int) -> None:
    task.ended_ns = now_ns
    state.live_bytes -= task.request_bytes
    state.finals.append(task)
    state.finals_bytes += task.weight_bytes()
    if len(state.finals) > state.finals_max or state.finals_bytes > state.finals_bytes_max:
        _forget(state)


def _forget(state: State) -> None:
    finals = state.finals
    while finals and (len(finals) > state.finals_max or state.finals_bytes > state.finals_bytes_max):
        old = finals.popleft()
        state.finals_bytes -= old.weight_bytes()
        state.forgotten += 1
        del state.tasks[old.id]


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


def _worker(state: State, event: Event, worker_id: str) -> Worker:
    worker = state.workers.get(worker_id)
    if worker is None:
        raise IllegalTransition(event, f"worker {worker_id}", "that is unknown", [])
    return worker


def _next_worker(event: Event, worker: Worker) -> WorkerState:
    after = WORKER[type(event)].get(worker.state)
    if after is None:
        raise IllegalTransition(event, f"worker {worker.id}", worker.state.name, [])
    return after


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
    WorkerJoined: _worker_joined,
    WorkerDraining: _worker_draining,
    WorkerLeft: _worker_left,
}
