"""What a requester asks for beyond the usual, field by field.

Nothing here depends on how late it is in such a way that what passed once could fail when it is said again: a client
repeats what it has submitted after each interruption. A deadline that is over already is therefore the cell's business.
"""

from __future__ import annotations

from collections.abc import Iterable

from merit.gateway.fields import BadField, check_id, check_name, check_range, check_text
from merit.model.limits import (
    ATTEMPTS_MAX,
    INPUTS_MAX,
    LABELS_MAX,
    NAME_LENGTH_MAX,
    RUN_TIMEOUT_NS_MAX,
    TIMEOUT_NS_MAX,
)
from merit.model.tasks import RetryPolicy, TaskSpec, Terms


def check_terms(spec: TaskSpec, terms: Terms, now_ns: int) -> None:
    """Raises ``BadField`` for the first field that cannot be."""
    check_range("terms.not_before_ns", terms.not_before_ns, 0, now_ns + TIMEOUT_NS_MAX)
    check_range("terms.deadline_ns", terms.deadline_ns, 0, now_ns + TIMEOUT_NS_MAX)
    if 0 < terms.deadline_ns <= terms.not_before_ns:
        raise BadField("terms.deadline_ns", "is not after terms.not_before_ns: it could never run")
    check_range("terms.queue_timeout_ns", terms.queue_timeout_ns, 0, TIMEOUT_NS_MAX)
    check_range("terms.heartbeat_timeout_ns", terms.heartbeat_timeout_ns, 0, RUN_TIMEOUT_NS_MAX)
    check_range("terms.estimate_ns", terms.estimate_ns, 0, RUN_TIMEOUT_NS_MAX)
    if terms.retry is not None:
        _check_retry(terms.retry)
    check_text("terms.key", terms.key, 0, NAME_LENGTH_MAX)
    check_text("terms.idempotency_key", terms.idempotency_key, 0, NAME_LENGTH_MAX)
    if terms.inputs:
        _check_inputs(terms.inputs, spec.after)
    if terms.labels:
        check_labels("terms.labels", terms.labels)
    for field, text in (("terms.origin", terms.origin), ("terms.schedule", terms.schedule)):
        if text:
            raise BadField(field, "is set by the control plane alone; leave it empty")


def check_labels(field: str, labels: tuple[tuple[str, str], ...]) -> None:
    """Labels, of a task or to look for."""
    if len(labels) > LABELS_MAX:
        raise BadField(field, f"more than {LABELS_MAX}")
    for name, value in labels:
        check_name(f"{field}.name", name)
        check_text(f"{field}.value", value, 0, NAME_LENGTH_MAX)
    _check_distinct(field, (name for name, _ in labels))


def _check_retry(policy: RetryPolicy) -> None:
    for kind in ("refused", "failed", "timed_out", "silent", "lost"):
        check_range(f"terms.retry.{kind}", getattr(policy, kind), -1, ATTEMPTS_MAX)
    check_range("terms.retry.backoff_ns", policy.backoff_ns, 0, TIMEOUT_NS_MAX)
    check_range("terms.retry.backoff_ns_max", policy.backoff_ns_max, 0, TIMEOUT_NS_MAX)
    if 0 < policy.backoff_ns_max < policy.backoff_ns:
        raise BadField("terms.retry.backoff_ns_max", "is below terms.retry.backoff_ns")


def _check_inputs(inputs: tuple[tuple[str, str], ...], after: tuple[str, ...]) -> None:
    if len(inputs) > INPUTS_MAX:
        raise BadField("terms.inputs", f"more than {INPUTS_MAX}")
    needed = frozenset(after)
    for name, task_id in inputs:
        check_name("terms.inputs.name", name)
        check_id("terms.inputs.task_id", task_id)
        if task_id not in needed:
            raise BadField("terms.inputs.task_id", f"{task_id} is not in after: only what is waited for gives a result")
    _check_distinct("terms.inputs", (name for name, _ in inputs))


def _check_distinct(field: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadField(field, f"{name!r} stands twice")
        seen.add(name)
