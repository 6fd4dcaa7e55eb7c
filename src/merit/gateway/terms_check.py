"""What a requester asks for beyond the usual, field by field; and what of it comes to the same, made the same.

Nothing here depends on how late it is in such a way that what passed once could fail when it is said again: a client
repeats what it has submitted after each interruption. A deadline that is over already is therefore the cell's business.
"""

from __future__ import annotations

from msgspec.structs import replace

from merit.allocation.feasibility import NOTHING
from merit.allocation.versions import normal_form, problem_of_range
from merit.gateway.fields import (
    BadField,
    check_amounts,
    check_distinct,
    check_id,
    check_name,
    check_range,
    check_text,
    check_words,
)
from merit.model.limits import (
    ATTEMPTS_MAX,
    INPUTS_MAX,
    LABELS_MAX,
    NAME_LENGTH_MAX,
    PREFERS_MAX,
    RUN_TIMEOUT_NS_MAX,
    TAGS_MAX,
    TIMEOUT_NS_MAX,
)
from merit.model.tasks import Demand, RetryPolicy, TaskSpec, Terms


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
    if terms.demand is not None:
        _check_demand(terms.demand)
    for field, text in (("terms.origin", terms.origin), ("terms.schedule", terms.schedule)):
        if text:
            raise BadField(field, "is set by the control plane alone; leave it empty")
    if terms.review is not None:
        raise BadField("terms.review", "is set by the control plane alone; leave it out")


def in_normal_form(spec: TaskSpec) -> TaskSpec:
    """The same task, once it has been checked, with what it asks of its worker in one spelling: tasks that ask the same wait
    in one line. What asks nothing is no demand."""
    terms = spec.terms
    if terms is None or terms.demand is None:
        return spec
    asked = terms.demand
    demand = replace(
        asked,
        versions=normal_form(asked.versions),
        tags=tuple(sorted(asked.tags)),
        without_tags=tuple(sorted(asked.without_tags)),
        resources=tuple(sorted(asked.resources)),
    )
    return replace(spec, terms=replace(terms, demand=None if demand == NOTHING else demand))


def check_labels(field: str, labels: tuple[tuple[str, str], ...]) -> None:
    """Labels, of a task or to look for."""
    if len(labels) > LABELS_MAX:
        raise BadField(field, f"more than {LABELS_MAX}")
    for name, value in labels:
        check_name(f"{field}.name", name)
        check_text(f"{field}.value", value, 0, NAME_LENGTH_MAX)
    check_distinct(field, (name for name, _ in labels))


def _check_retry(policy: RetryPolicy) -> None:
    for kind in ("refused", "failed", "timed_out", "silent", "lost", "rejected"):
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
    check_distinct("terms.inputs", (name for name, _ in inputs))


def _check_demand(demand: Demand) -> None:
    problem = problem_of_range(demand.versions)
    if problem is not None:
        raise BadField("terms.demand.versions", problem)
    check_text("terms.demand.worker_id", demand.worker, 0, NAME_LENGTH_MAX)
    check_text("terms.demand.strategy", demand.strategy, 0, NAME_LENGTH_MAX)
    check_words("terms.demand.tags", demand.tags, TAGS_MAX)
    check_words("terms.demand.without_tags", demand.without_tags, TAGS_MAX)
    for tag in demand.tags:
        if tag in demand.without_tags:
            raise BadField("terms.demand.without_tags", f"{tag!r} is in terms.demand.tags too: it could never run")
    check_amounts("terms.demand.resources", demand.resources)
    check_words("terms.demand.prefers", demand.prefers, PREFERS_MAX)
    for field, words in (
        ("tags", demand.tags),
        ("without_tags", demand.without_tags),
        ("prefers", demand.prefers),
    ):
        check_distinct(f"terms.demand.{field}", words)
