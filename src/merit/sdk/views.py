"""Answers of the control plane as plain dictionaries, ready to be shown or written as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from merit.model.tasks import Demand, Priority, RetryPolicy, Terms
from merit.sdk.amounts import numbers_of
from merit.wire.specs import decode_terms
from merit.wire.v1 import queues_pb2, schedules_pb2, tasks_pb2, worker_pb2


class Page(Struct, frozen=True):
    """Some tasks, newest first, and where the next page begins."""

    tasks: list[dict[str, Any]]
    """May be few, or none, though there is a next page."""
    next_cursor: str
    """Empty: that was all."""
    sequence: int = 0
    """All that happened up to this event is known …"""
    lacking: str = ""
    """… and why tasks may be missing for all that, and what to do; empty: none are."""


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
        "deadline": when(message.deadline_ns),
        "due": when(message.due_ns),
        "terms": _terms(decode_terms(message.terms)) if message.HasField("terms") else {},
        "dead_letter": message.dead_letter,
        "successor": message.successor_id,
        "attempts": [_attempt(attempt) for attempt in message.attempts],
        "result": _json(message.result),
        "error": failure_view(message.failure) if message.HasField("failure") else None,
        "why": message.why,
    }


def _terms(terms: Terms) -> dict[str, Any]:
    """What was asked for beyond the usual, and nothing else."""
    view: dict[str, Any] = {
        "not_before": when(terms.not_before_ns),
        "deadline": when(terms.deadline_ns),
        "queue_timeout_s": terms.queue_timeout_ns / 1e9,
        "heartbeat_timeout_s": terms.heartbeat_timeout_ns / 1e9,
        "estimate_s": terms.estimate_ns / 1e9,
        "retry": None if terms.retry is None else _retry(terms.retry),
        "key": terms.key,
        "idempotency_key": terms.idempotency_key,
        "inputs": dict(terms.inputs),
        "despite_dead": terms.despite_dead,
        "labels": dict(terms.labels),
        "origin": terms.origin,
        "schedule": terms.schedule,
        "demand": None if terms.demand is None else _demand(terms.demand),
        "review": None if terms.review is None else {"kind": terms.review.kind.name, "of": terms.review.of},
    }
    said = {name: value for name, value in view.items() if value}
    return said if terms.safe_to_repeat else said | {"safe_to_repeat": False}


def _demand(demand: Demand) -> dict[str, Any]:
    view: dict[str, Any] = {
        "versions": demand.versions,
        "worker": demand.worker,
        "tags": list(demand.tags),
        "without_tags": list(demand.without_tags),
        "resources": numbers_of(demand.resources),
        "strategy": demand.strategy,
        "prefers": list(demand.prefers),
    }
    return {name: value for name, value in view.items() if value}


def _retry(policy: RetryPolicy) -> dict[str, Any]:
    kinds = ("refused", "failed", "timed_out", "silent", "lost", "rejected")
    view: dict[str, Any] = {kind: count for kind in kinds if (count := getattr(policy, kind)) >= 0}
    waits = {"backoff_s": policy.backoff_ns / 1e9, "backoff_s_max": policy.backoff_ns_max / 1e9}
    return view | {name: wait_s for name, wait_s in waits.items() if wait_s}


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
        "progress": message.progress if message.progress >= 0 else None,
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
        "auditing": message.auditing,
        "completed": message.completed,
        "dead": message.dead,
        "canceled": message.canceled,
        "workers": message.workers,
        "dead_letters": message.dead_letters,
        "workers_punished": message.workers_punished,
        "workers_paused": message.workers_paused,
        "breakers_open": message.breakers_open,
        "store": message.store,
        "journal_bytes": message.journal_bytes,
        "journal_first": message.journal_first,
        "snapshot": message.snapshot_sequence,
        "follower": message.follower_sequence,
        "follower_lag_events": message.follower_lag_events,
        "follower_lag_s": message.follower_lag_ns / 1e9,
        "started": when(message.started_ns),
        "alarms": list(message.alarms),
    }


def queue_view(message: queues_pb2.Queue) -> dict[str, Any]:
    """A queue; ``tenants`` is filled only where one queue was asked for."""
    return {
        "capability": message.capability,
        "pending": message.pending,
        "running": message.running,
        "auditing": message.auditing,
        "workers": message.workers,
        "paused": message.paused,
        "pause_reason": message.pause_reason,
        "oldest_age_s": message.oldest_age_ns / 1e9,
        "rules": [rule_view(rule) for rule in message.rules],
        "tenants": [
            {"tenant": load.tenant, "pending": load.pending, "running": load.running} for load in message.tenants
        ],
    }


def rule_view(message: queues_pb2.Rule) -> dict[str, Any]:
    """A limit; None: there is no limit of that sort."""
    return {
        "kind": queues_pb2.RuleKind.Name(message.kind).removeprefix("RULE_KIND_"),
        "name": message.name,
        "concurrency": message.concurrency or None,
        "rate_hz": message.rate_millihz / 1_000 if message.rate_millihz else None,
        "burst": message.burst or 1,
    }


def tenant_view(message: queues_pb2.Tenant) -> dict[str, Any]:
    """A tenant: what it gets, and what it has."""
    return {
        "tenant": message.name,
        "weight": message.weight or 1,
        "live_max": message.live_max or None,
        "live": message.live,
    }


def schedule_view(planned: schedules_pb2.PlannedSchedule) -> dict[str, Any]:
    """A schedule, and where it is."""
    message = planned.schedule
    template = message.template
    return {
        "name": message.name,
        "tenant": message.tenant,
        "cron": message.cron,
        "zone": message.zone or "UTC",
        "capability": template.capability,
        "parameters": {"blob": template.parameters_blob} if template.parameters_blob else _json(template.parameters),
        "priority": Priority(template.priority or Priority.MEDIUM).name,
        "run_timeout_s": template.run_timeout_ns / 1e9,
        "timeout_s": template.timeout_ns / 1e9,
        "attempts_max": template.attempts_max,
        "description": template.description,
        "terms": _terms(decode_terms(template.terms)) if template.HasField("terms") else {},
        "missed": schedules_pb2.Missed.Name(message.missed).removeprefix("MISSED_"),
        "overlap": schedules_pb2.Overlap.Name(message.overlap).removeprefix("OVERLAP_"),
        "paused": message.paused,
        "next": [when(time_ns) for time_ns in planned.next_ns],
        "last_task": planned.last_task_id,
        "made": planned.made,
        "passed_over": planned.passed_over,
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
