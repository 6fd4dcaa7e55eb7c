"""Tasks as people and programs see them."""

from __future__ import annotations

from merit.model.tasks import Attempt, Progress, Task, TaskState
from merit.ports.cell import Cell
from merit.wire.frames import encode_failure
from merit.wire.specs import fill_terms
from merit.wire.v1 import tasks_pb2

_STATE = {state: tasks_pb2.TaskState.Value(f"TASK_STATE_{state.name}") for state in TaskState}


def view_task(cell: Cell, task: Task) -> tasks_pb2.Task:
    """A task without parameters, result and trails."""
    progress = cell.progress.get(task.id)
    message = tasks_pb2.Task(
        id=task.id,
        capability=task.capability,
        state=_STATE[task.state],
        priority=task.priority,
        tenant=task.tenant,
        principal=task.principal,
        description=task.description,
        run_timeout_ns=task.run_timeout_ns,
        attempts_max=task.attempts_max,
        after=task.after,
        submitted_ns=task.submitted_ns,
        ended_ns=task.ended_ns,
        deadline_ns=task.deadline_ns,
        due_ns=task.due_ns if task.state <= TaskState.PENDING else 0,
        successor_id=task.successor,
        dead_letter=task.id in cell.state.dead_letters,
        attempts=[_view_attempt(attempt, progress) for attempt in task.attempts],
    )
    if task.terms is not None:
        fill_terms(message.terms, task.terms)
    if task.failure is not None:
        message.failure.CopyFrom(encode_failure(task.failure))
    return message


def _view_attempt(attempt: Attempt, progress: Progress | None) -> tasks_pb2.Attempt:
    message = tasks_pb2.Attempt(
        number=attempt.number,
        worker_id=attempt.worker,
        state=attempt.state.name,
        assigned_ns=attempt.assigned_ns,
        started_ns=attempt.started_ns,
        ended_ns=attempt.ended_ns,
        wall_ns=attempt.wall_ns,
        cpu_ns=attempt.cpu_ns,
        memory_bytes=attempt.memory_bytes,
        progress=-1,
    )
    if attempt.failure is not None:
        message.failure.CopyFrom(encode_failure(attempt.failure))
    if progress is not None and progress.number == attempt.number:
        message.progress = progress.fraction
        message.progress_message = progress.message
    return message
