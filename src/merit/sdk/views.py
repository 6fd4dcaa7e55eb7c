"""Answers of the control plane as plain dictionaries, ready to be shown or written as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from merit.model.tasks import Priority
from merit.wire.v1 import tasks_pb2, worker_pb2


class Page(Struct, frozen=True):
    """Some tasks, newest first, and where the next page begins (empty: that was all)."""

    tasks: list[dict[str, Any]]
    next_cursor: str


def task_view(message: tasks_pb2.Task) -> dict[str, Any]:
    """A task; times are ISO 8601 in UTC, None while they have not come."""
    return {
        "id": message.id,
        "capability": message.capability,
        "state": state_name(message.state),
        "priority": Priority(message.priority).name,
        "tenant": message.tenant,
        "principal": message.principal,
        "description": message.description,
        "parameters": _json(message.parameters),
        "run_timeout_s": message.run_timeout_ns / 1e9,
        "attempts_max": message.attempts_max,
        "after": list(message.after),
        "submitted": when(message.submitted_ns),
        "ended": when(message.ended_ns),
        "attempts": [_attempt(attempt) for attempt in message.attempts],
        "result": _json(message.result),
        "error": failure_view(message.failure) if message.HasField("failure") else None,
        "why": message.why,
    }


def _attempt(message: tasks_pb2.Attempt) -> dict[str, Any]:
    return {
        "number": message.number,
        "worker": message.worker_id,
        "state": message.state,
        "assigned": when(message.assigned_ns),
        "started": when(message.started_ns),
        "ended": when(message.ended_ns),
        "wall_s": message.wall_ns / 1e9,
        "cpu_s": message.cpu_ns / 1e9,
        "memory_bytes": message.memory_bytes,
        "progress": message.progress,
        "progress_message": message.progress_message,
        "trail": _json(message.trail),
        "error": failure_view(message.failure) if message.HasField("failure") else None,
    }


def failure_view(message: worker_pb2.Failure) -> dict[str, Any]:
    """Why something failed."""
    return {"kind": message.kind, "message": message.message, "detail": message.detail, "permanent": message.permanent}


def worker_view(message: tasks_pb2.Worker) -> dict[str, Any]:
    """A worker."""
    return {
        "id": message.id,
        "boot": message.boot_id,
        "state": message.state,
        "capabilities": list(message.capabilities),
        "concurrency": message.concurrency,
        "attempts": message.attempts,
        "joined": when(message.joined_ns),
    }


def status_view(message: tasks_pb2.Status) -> dict[str, Any]:
    """A cell in a few numbers."""
    return {
        "cell": message.cell,
        "epoch": message.epoch,
        "sequence": message.sequence,
        "waiting": message.waiting,
        "pending": message.pending,
        "assigned": message.assigned,
        "completed": message.completed,
        "dead": message.dead,
        "canceled": message.canceled,
        "workers": message.workers,
        "journal_bytes": message.journal_bytes,
        "started": when(message.started_ns),
    }


def state_name(number: int) -> str:
    """A task's state by the name that people know."""
    return tasks_pb2.TaskState.Name(number).removeprefix("TASK_STATE_")  # type: ignore[arg-type]  # from the wire


def when(time_ns: int) -> str | None:
    """A Unix time in nanoseconds as ISO 8601 in UTC, to the millisecond."""
    if not time_ns:
        return None
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(data: bytes) -> Any:
    return msgspec.json.decode(data) if data else None
