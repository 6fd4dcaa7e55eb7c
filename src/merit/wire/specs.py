"""What requesters ask for, to and from Protocol Buffers: in the client's stream, and wherever else a task is described.

Of lists that the door bounds one item more than is allowed is taken in, which is enough for it to refuse them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final, Literal, get_args

from merit.model.limits import (
    ATTEMPTS_DEFAULT,
    INPUTS_MAX,
    LABELS_MAX,
    PREFERS_MAX,
    RESOURCES_MAX,
    RUN_TIMEOUT_NS_DEFAULT,
    TAGS_MAX,
    TIMEOUT_NS_DEFAULT,
)
from merit.model.tasks import Demand, Priority, RetryPolicy, Review, ReviewKind, TaskSpec, Terms
from merit.model.workers import Amount
from merit.wire.v1 import tasks_pb2 as tasks
from merit.wire.v1 import worker_pb2 as worker

_PRIORITY: Mapping[int, Priority] = {0: Priority.MEDIUM, **{int(priority): priority for priority in Priority}}
_REVIEW: Mapping[int, ReviewKind] = {int(kind): kind for kind in ReviewKind}
_Kind = Literal["refused", "failed", "timed_out", "silent", "lost", "rejected"]
_KINDS: Final[tuple[_Kind, ...]] = get_args(_Kind)


def encode_spec(spec: TaskSpec) -> tasks.TaskSpec:
    """A task as it is asked for."""
    group = tasks.TaskGroup()
    add_specs(group.tasks, (spec,))
    return group.tasks[0]


def add_specs(field: object, specs: Iterable[TaskSpec]) -> None:
    """Append the tasks to a repeated field."""
    add = field.add  # type: ignore[attr-defined]  # a repeated TaskSpec
    for spec in specs:
        entry = add(
            id=spec.id,
            capability=spec.capability,
            parameters=spec.parameters,
            parameters_blob=spec.parameters_blob,
            priority=int(spec.priority),
            run_timeout_ns=spec.run_timeout_ns,
            attempts_max=spec.attempts_max,
            after=spec.after,
            description=spec.description,
        )
        if spec.timeout_ns != TIMEOUT_NS_DEFAULT:
            entry.timeout_ns = spec.timeout_ns
        if spec.terms is not None:
            fill_terms(entry.terms, spec.terms)


def decode_spec(spec: tasks.TaskSpec) -> TaskSpec:
    """A task as it is asked for.

    Raises:
        ValueError: its priority is none.
    """
    priority = _PRIORITY.get(spec.priority)
    if priority is None:
        raise ValueError(f"tasks.priority: {spec.priority} is none of 0 to {len(Priority)}")
    return TaskSpec(
        spec.id,
        spec.capability,
        spec.parameters,
        spec.parameters_blob,
        priority,
        spec.run_timeout_ns or RUN_TIMEOUT_NS_DEFAULT,
        spec.attempts_max or ATTEMPTS_DEFAULT,
        tuple(spec.after) if spec.after else (),
        spec.description,
        spec.timeout_ns or TIMEOUT_NS_DEFAULT,
        decode_terms(spec.terms) if spec.HasField("terms") else None,
    )


def fill_terms(message: tasks.Terms, terms: Terms) -> None:
    """Write the terms into a message that is still empty."""
    message.MergeFrom(
        tasks.Terms(
            not_before_ns=terms.not_before_ns,
            deadline_ns=terms.deadline_ns,
            queue_timeout_ns=terms.queue_timeout_ns,
            heartbeat_timeout_ns=terms.heartbeat_timeout_ns,
            estimate_ns=terms.estimate_ns,
            not_safe_to_repeat=not terms.safe_to_repeat,
            key=terms.key,
            idempotency_key=terms.idempotency_key,
            inputs=[tasks.TaskInput(name=name, task_id=task_id) for name, task_id in terms.inputs],
            despite_dead=terms.despite_dead,
            labels=[tasks.Label(name=name, value=value) for name, value in terms.labels],
            origin=terms.origin,
            schedule=terms.schedule,
        )
    )
    # Also when there is nothing in it: that there are terms, and a policy, is said by the message being there.
    message.SetInParent()
    if terms.retry is not None:
        _fill_retry(message.retry, terms.retry)
    if terms.demand is not None:
        _fill_demand(message.demand, terms.demand)
    if terms.review is not None:
        kind = tasks.ReviewKind.Value(f"REVIEW_KIND_{terms.review.kind.name}")
        message.review.MergeFrom(tasks.Review(kind=kind, task_id=terms.review.of))


def decode_terms(message: tasks.Terms) -> Terms:
    """The terms of a task."""
    return Terms(
        message.not_before_ns,
        message.deadline_ns,
        message.queue_timeout_ns,
        message.heartbeat_timeout_ns,
        message.estimate_ns,
        _decode_retry(message.retry) if message.HasField("retry") else None,
        not message.not_safe_to_repeat,
        message.key,
        message.idempotency_key,
        tuple((item.name, item.task_id) for item in islice(message.inputs, INPUTS_MAX + 1)),
        message.despite_dead,
        tuple((label.name, label.value) for label in islice(message.labels, LABELS_MAX + 1)),
        message.origin,
        message.schedule,
        _decode_demand(message.demand) if message.HasField("demand") else None,
        _decode_review(message.review) if message.HasField("review") else None,
    )


def encode_amounts(amounts: Iterable[Amount]) -> list[worker.Amount]:
    """Resources, of a worker, a capability or a task."""
    return [worker.Amount(name=amount.name, thousandths=amount.thousandths) for amount in amounts]


def decode_amounts(field: Iterable[worker.Amount]) -> tuple[Amount, ...]:
    """Resources, of a worker, a capability or a task."""
    return tuple(Amount(item.name, item.thousandths) for item in islice(field, RESOURCES_MAX + 1))


def _fill_demand(message: tasks.Demand, demand: Demand) -> None:
    message.SetInParent()
    message.MergeFrom(
        tasks.Demand(
            versions=demand.versions,
            worker_id=demand.worker,
            tags=demand.tags,
            without_tags=demand.without_tags,
            resources=encode_amounts(demand.resources),
            strategy=demand.strategy,
            prefers=demand.prefers,
        )
    )


def _decode_demand(message: tasks.Demand) -> Demand:
    return Demand(
        message.versions,
        message.worker_id,
        tuple(islice(message.tags, TAGS_MAX + 1)),
        tuple(islice(message.without_tags, TAGS_MAX + 1)),
        decode_amounts(message.resources),
        message.strategy,
        tuple(islice(message.prefers, PREFERS_MAX + 1)),
    )


def _decode_review(message: tasks.Review) -> Review:
    # Of whatever kind: one that comes from a client is refused by the door.
    return Review(_REVIEW.get(message.kind, ReviewKind.COPY), message.task_id)


def _fill_retry(message: tasks.RetryPolicy, policy: RetryPolicy) -> None:
    message.SetInParent()
    for kind in _KINDS:
        count = getattr(policy, kind)
        if count != -1:
            setattr(message, kind, count)
    message.backoff_ns = policy.backoff_ns
    message.backoff_ns_max = policy.backoff_ns_max


def _decode_retry(message: tasks.RetryPolicy) -> RetryPolicy:
    counts = {kind: getattr(message, kind) for kind in _KINDS if message.HasField(kind)}
    return RetryPolicy(**counts, backoff_ns=message.backoff_ns, backoff_ns_max=message.backoff_ns_max)
