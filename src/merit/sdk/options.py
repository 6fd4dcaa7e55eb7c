"""What a program may ask for when it submits a task, in seconds and dates, and how that becomes a spec.

A new option stands in this file only: in ``Options`` with its meaning, in ``OptionArguments`` so that it can be given by
name, and in ``Prepared.of``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypedDict

from msgspec import Struct
from msgspec.structs import replace

from merit.model.limits import (
    ATTEMPTS_DEFAULT,
    ATTEMPTS_MAX,
    RUN_TIMEOUT_NS_DEFAULT,
    SECOND_NS,
    TIMEOUT_NS_DEFAULT,
)
from merit.model.tasks import Demand, Priority, RetryPolicy, TaskSpec, Terms
from merit.sdk.amounts import Amounts, amounts_of

_NS_MAX: Final = 2**63 - 1
_USUAL: Final = Terms()
_ANYBODY: Final = Demand()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final = ("refused", "failed", "timed_out", "silent", "lost", "rejected")


class Identified(Protocol):
    """A handle of any kind: something that is a task."""

    @property
    def id(self) -> str:
        """Of the task."""


class Retry(Struct, frozen=True, kw_only=True):
    """How often a task is tried again after an attempt that ended in a certain way; None: as often as ``attempts_max``
    lets it, which bounds all kinds together. Waits double from ``backoff_s`` to ``backoff_s_max``, with jitter; None: as
    the control plane has it (0.2 s, 60 s).
    """

    refused: int | None = None
    failed: int | None = None
    timed_out: int | None = None
    """The run time-out struck."""
    silent: int | None = None
    """The heartbeat time-out struck: the worker lived, and the attempt gave no sign of progress."""
    lost: int | None = None
    """Together with its worker."""
    rejected: int | None = None
    """Its result did not pass the audit."""
    backoff_s: float | None = None
    backoff_s_max: float | None = None


class Options(Struct, frozen=True, kw_only=True):
    """What may be asked for beside a capability and its parameters. None: not asked for."""

    priority: Priority | str = Priority.MEDIUM
    """Higher goes first: LOW, MEDIUM, HIGH, CRITICAL."""
    run_timeout_s: float = RUN_TIMEOUT_NS_DEFAULT / SECOND_NS
    """Of one attempt."""
    attempts_max: int = ATTEMPTS_DEFAULT
    after: Iterable[str | Identified] = ()
    """Tasks that must be completed first."""
    description: str = ""
    timeout_s: float = TIMEOUT_NS_DEFAULT / SECOND_NS
    """Of the task as a whole, all attempts and waiting included, from when it is taken in, or from when its time comes."""
    delay_s: float | None = None
    """Not to begin earlier than this after it is submitted."""
    not_before: datetime | None = None
    """Not to begin earlier than this."""
    deadline: datetime | None = None
    """Of no use after this: it dies then."""
    queue_timeout_s: float | None = None
    """How long it may be in its queue, each time, before a worker gets it."""
    heartbeat_timeout_s: float | None = None
    """How long an attempt may run without a sign of progress (``Context.progress``, ``beat`` or ``log``)."""
    estimate_s: float | None = None
    """How long an attempt is expected to run."""
    retry: Retry | None = None
    safe_to_repeat: bool = True
    """False: never tried again unless it is known not to have started."""
    key: str = ""
    """What limits per key count by; the tasks of a stateful capability with the same one stay on one worker."""
    idempotency_key: str = ""
    """A task of the same tenant with the same key is this one, and is not made twice."""
    inputs: Mapping[str, str | Identified] = {}
    """Parameters that are results of other tasks, which it waits for: name of the parameter, task."""
    despite_dead: bool = False
    """It runs also when tasks that it needs die or are canceled; inputs from those are null."""
    labels: Mapping[str, str] = {}
    """Words to find it by."""
    versions: str = ""
    """Of the capability: a range of semantic versions, such as ``>=1.2,<2`` or ``^1.2``."""
    worker: str = ""
    """The worker that has to do it."""
    tags: Iterable[str] = ()
    """The worker, or the capability as it offers it, has all of these …"""
    without_tags: Iterable[str] = ()
    """… and none of these."""
    resources: Amounts = {}
    """What an attempt needs, in place of what the capability says of each: ``cpu`` in cores, ``memory`` in bytes,
    ``network`` in bytes a second, ``gpu`` in devices, and whatever else workers have; numbers, or texts such as ``512Mi``."""
    strategy: str = ""
    """How its worker is chosen among those that may do it, such as ``least-loaded`` or ``round-robin``; left out: as for
    its capability."""
    prefers: Iterable[str] = ()
    """Tags of the worker that it would rather have, for strategies that go by them."""


class MapArguments(TypedDict, total=False):
    """``Options`` as keyword arguments of ``map``, which has other inputs."""

    priority: Priority | str
    run_timeout_s: float
    attempts_max: int
    after: Iterable[str | Identified]
    description: str
    timeout_s: float
    delay_s: float | None
    not_before: datetime | None
    deadline: datetime | None
    queue_timeout_s: float | None
    heartbeat_timeout_s: float | None
    estimate_s: float | None
    retry: Retry | None
    safe_to_repeat: bool
    key: str
    idempotency_key: str
    despite_dead: bool
    labels: Mapping[str, str]
    versions: str
    worker: str
    tags: Iterable[str]
    without_tags: Iterable[str]
    resources: Amounts
    strategy: str
    prefers: Iterable[str]


class OptionArguments(MapArguments, total=False):
    """``Options`` as keyword arguments."""

    inputs: Mapping[str, str | Identified]


class TaskRequest(Options, frozen=True, kw_only=True):
    """A task to be submitted."""

    capability: str
    parameters: Mapping[str, Any] = {}


class Prepared(Struct, frozen=True, gc=False):
    """Options in the units of the wire, checked: specs of many tasks can be made with one of these."""

    priority: Priority
    run_timeout_ns: int
    attempts_max: int
    after: tuple[str, ...]
    description: str
    timeout_ns: int
    terms: Terms | None
    delay_ns: int

    @classmethod
    def of(cls, options: Options) -> Prepared:
        """Translate.

        Raises:
            ValueError: a field has a value that no frame can carry. It is found here, since a frame that cannot be
                made would be the end of the stream, for all other tasks too; the rest is for the door to judge.
        """
        attempts_max = options.attempts_max
        if not isinstance(attempts_max, int) or not 0 <= attempts_max < 2**31:
            raise ValueError(f"attempts_max: {attempts_max!r} is no whole number between 1 and {ATTEMPTS_MAX}")
        if options.delay_s is not None and options.not_before is not None:
            raise ValueError("not_before: either this or delay_s says when it may begin, not both")
        inputs = tuple((name, _id_of(f"inputs.{name}", item)) for name, item in options.inputs.items())
        after = tuple(_id_of("after", item) for item in options.after) if options.after else ()
        after += tuple(dict.fromkeys(task_id for _, task_id in inputs if task_id not in after))
        terms = Terms(
            not_before_ns=_time_ns("not_before", options.not_before),
            deadline_ns=_time_ns("deadline", options.deadline),
            queue_timeout_ns=_span_ns("queue_timeout_s", options.queue_timeout_s),
            heartbeat_timeout_ns=_span_ns("heartbeat_timeout_s", options.heartbeat_timeout_s),
            estimate_ns=_span_ns("estimate_s", options.estimate_s),
            retry=None if options.retry is None else _policy(options.retry),
            safe_to_repeat=bool(options.safe_to_repeat),
            key=options.key,
            idempotency_key=options.idempotency_key,
            inputs=inputs,
            despite_dead=bool(options.despite_dead),
            labels=tuple(options.labels.items()),
            demand=_demand(options),
        )
        texts = [("description", options.description), ("key", terms.key), ("idempotency_key", terms.idempotency_key)]
        texts += [("inputs", name) for name, _ in inputs]
        texts += [("labels", text) for label in terms.labels for text in label]
        for field, text in texts:
            check_text(field, text)
        return cls(
            _priority(options.priority),
            _duration_ns("run_timeout_s", options.run_timeout_s),
            attempts_max,
            after,
            options.description,
            _duration_ns("timeout_s", options.timeout_s),
            None if terms == _USUAL else terms,
            _span_ns("delay_s", options.delay_s) if options.delay_s else 0,
        )

    def spec(self, task_id: str, capability: str, data: bytes, blob: str = "") -> TaskSpec:
        """A spec with parameters ``data`` (encoded), or with those that the blob store has under ``blob``."""
        terms = self.terms
        if self.delay_ns:
            terms = replace(terms or _USUAL, not_before_ns=time.time_ns() + self.delay_ns)
        return TaskSpec(
            task_id,
            capability,
            data,
            blob,
            self.priority,
            self.run_timeout_ns,
            self.attempts_max,
            self.after,
            self.description,
            self.timeout_ns,
            terms,
        )


def words_of(field: str, words: Iterable[str]) -> tuple[str, ...]:
    """Tags and the like.

    Raises:
        ValueError: with ``field``: it is one text instead of several, or one of them cannot be sent.
    """
    if isinstance(words, str):
        raise ValueError(f"{field}: must be a list of texts, such as [{words!r}], not one text")
    found = tuple(words)
    for word in found:
        check_text(field, word)
    return found


def check_text(field: str, text: str) -> None:
    """Raise ``ValueError`` for what cannot be sent as text."""
    if not isinstance(text, str):
        raise ValueError(f"{field}: must be text, not {type(text).__name__}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{field}: is not valid Unicode: {error.reason}") from None


def time_ns_of(field: str, moment: datetime) -> int:
    """A date as Unix nanoseconds.

    Raises:
        ValueError: it has no time zone, or is before 1970.
    """
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError(f"{field}: {moment!r} must be a datetime with a time zone, such as datetime.now(UTC)")
    time_ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1_000
    if not 0 < time_ns <= _NS_MAX:
        raise ValueError(f"{field}: {moment} is not between 1970 and 2262")
    return time_ns


def _time_ns(field: str, moment: datetime | None) -> int:
    return 0 if moment is None else time_ns_of(field, moment)


def _duration_ns(field: str, seconds: float) -> int:
    # 0 and less can be carried; that they are of no use is for the door to say.
    if not isinstance(seconds, int | float) or not abs(seconds) <= _NS_MAX / SECOND_NS - 1:
        raise ValueError(f"{field}: {seconds!r} is not a number of seconds above 0 and within what is allowed")
    return round(seconds * SECOND_NS)


def _span_ns(field: str, seconds: float | None) -> int:
    """As above for what need not be asked for, where 0 on the wire means just that."""
    if seconds is None:
        return 0
    span_ns = _duration_ns(field, seconds)
    if span_ns <= 0:
        raise ValueError(f"{field}: {seconds!r} is not above 0; leave it out if it is not wanted")
    return span_ns


def _demand(options: Options) -> Demand | None:
    for field, text in (("versions", options.versions), ("worker", options.worker), ("strategy", options.strategy)):
        check_text(field, text)
    demand = Demand(
        options.versions,
        options.worker,
        # In order and each once, since tasks that ask the same wait in one line.
        tuple(sorted(set(words_of("tags", options.tags)))),
        tuple(sorted(set(words_of("without_tags", options.without_tags)))),
        amounts_of("resources", options.resources),
        options.strategy,
        tuple(dict.fromkeys(words_of("prefers", options.prefers))),
    )
    return None if demand == _ANYBODY else demand


def _policy(retry: Retry) -> RetryPolicy:
    counts: dict[str, int] = {}
    for kind in _KINDS:
        count = getattr(retry, kind)
        if count is not None and (not isinstance(count, int) or not 0 <= count <= ATTEMPTS_MAX):
            raise ValueError(f"retry.{kind}: {count!r} is no whole number between 0 and {ATTEMPTS_MAX}")
        counts[kind] = -1 if count is None else count
    return RetryPolicy(
        **counts,
        backoff_ns=_span_ns("retry.backoff_s", retry.backoff_s),
        backoff_ns_max=_span_ns("retry.backoff_s_max", retry.backoff_s_max),
    )


def _id_of(field: str, item: str | Identified) -> str:
    task_id = item if isinstance(item, str) else getattr(item, "id", None)
    if task_id is None:
        raise ValueError(f"{field}: {item!r} is neither the id nor the handle of a task")
    check_text(field, task_id)
    return task_id


def _priority(name: str | int) -> Priority:
    try:
        return Priority[name.upper()] if isinstance(name, str) else Priority(name)
    except (KeyError, ValueError):
        raise ValueError(f"priority: {name!r} is none of {', '.join(item.name for item in Priority)}") from None


USUAL: Final = Prepared.of(Options())
"""Nothing is asked for."""
