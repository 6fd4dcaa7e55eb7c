"""Final tasks as a busy cell leaves them behind, so many as are wanted, and questions that people ask of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

from merit.model.ids import make_id
from merit.model.limits import SECOND_NS
from merit.model.search import TaskQuery, TaskRow, texts_of, words, words_of
from merit.model.tasks import Attempt, AttemptState, Failure, Priority, Task, TaskState, Terms
from merit.model.tenancy import DEFAULT_TENANT

START_NS: Final = 1_700_000_000 * SECOND_NS
STEP_NS: Final = 2_000_000
"""Between two submits: 500 tasks a second."""

CAPABILITIES: Final = tuple(
    f"{verb}-{noun}"
    for noun in ("page", "frame", "order", "track")
    for verb in ("render", "fetch", "parse", "check", "index", "translate", "resize", "notify")
)
TENANTS: Final = (DEFAULT_TENANT, *(f"team-{number:02}" for number in range(20)))
WORKERS: Final = 2_000
USERS: Final = 5_000
SCHEDULES: Final = 50
_ADJECTIVES: Final = (
    "nightly",
    "urgent",
    "second",
    "quarterly",
    "final",
    "broken",
    "large",
    "small",
    "missing",
    "late",
)
_NOUNS: Final = (
    "report",
    "invoice",
    "catalogue",
    "archive",
    "thumbnail",
    "backup",
    "ledger",
    "survey",
    "mailing",
    "map",
)
_PLACES: Final = ("Zürich", "Lyon", "Kraków", "Oslo", "Malmö", "Porto", "Ghent", "Bergen", "Graz", "Turin")
_ERRORS: Final = (
    ("timeout", "no answer from host {number}.example within 30 s"),
    ("io", "no such file: /data/{noun}/{number}.bin"),
    ("decode", "unexpected byte at offset {number} of the {noun}"),
    ("memory", "the {noun} needs more memory than the worker has"),
    ("refused", "quota of user-{number} is used up"),
)


def search_rows(count: int, first: int = 1, seed: int = 10) -> Iterator[TaskRow]:
    """Rows in the order in which their tasks ended, with the orders from ``first`` on, all different.

    Capabilities, tenants, workers and users are used unevenly. 1 % are dead, half a percent canceled, 3 % had more than one
    attempt; a fifth have a description, a third labels, 2 % come from schedules, 5 % have idempotency keys.
    """
    dice = random.Random(seed * 1_000_003 + first)
    for order in range(first, first + count):
        yield _row(order, dice)


def _skewed(dice: random.Random, count: int) -> int:
    """A number below ``count``, low ones more often: the first third gets about two thirds."""
    return int(count * dice.random() ** 2.5)


def _row(order: int, dice: random.Random) -> TaskRow:
    submitted_ns = START_NS + order * STEP_NS
    ended_ns = submitted_ns + int(dice.expovariate(1 / (5 * SECOND_NS)))
    luck = dice.random()
    state = TaskState.DEAD if luck < 0.01 else TaskState.CANCELED if luck < 0.015 else TaskState.COMPLETED
    failures = 2 if state is TaskState.DEAD else 1 if luck > 0.97 else 0
    failure = _failure(dice) if failures else None
    workers = [f"worker-{_skewed(dice, WORKERS):04}" for _ in range(failures + (state is TaskState.COMPLETED))]
    attempts = tuple(
        _attempt(number, worker, submitted_ns, ended_ns, failure if number <= failures else None)
        for number, worker in enumerate(workers, 1)
    )
    labels: tuple[tuple[str, str], ...] = ()
    if dice.random() < 1 / 3:
        labels = (("job", f"job-{order // 500}"), ("user", f"user-{_skewed(dice, USERS)}"))
    schedule = f"schedule-{dice.randrange(SCHEDULES)}" if dice.random() < 0.02 else ""
    key = f"key-{order}" if dice.random() < 0.05 else ""
    terms = Terms(labels=labels, schedule=schedule, idempotency_key=key) if labels or schedule or key else None
    task = Task(
        make_id(submitted_ns, dice.randbytes(10)),
        TENANTS[_skewed(dice, len(TENANTS))],
        "local",
        CAPABILITIES[_skewed(dice, len(CAPABILITIES))],
        b"",
        "",
        Priority.MEDIUM,
        60 * SECOND_NS,
        4,
        (),
        _description(dice) if dice.random() < 0.2 else "",
        submitted_ns,
        order,
        state,
        attempts,
        ended_ns=ended_ns,
        failure=failure if state is TaskState.DEAD else None,
        deadline_ns=submitted_ns + 3600 * SECOND_NS,
        terms=terms,
    )
    return TaskRow(
        order,
        3 * order,
        task.id,
        task.tenant,
        task.capability,
        state,
        submitted_ns,
        ended_ns,
        tuple(dict.fromkeys(workers)),
        labels,
        schedule,
        key,
        f"{order:064x}" if key else "",
        " ".join(words_of(texts_of(task))),
        task,
    )


def _failure(dice: random.Random) -> Failure:
    kind, message = dice.choice(_ERRORS)
    return Failure(kind, message.format(number=dice.randrange(100_000), noun=dice.choice(_NOUNS)))


def _description(dice: random.Random) -> str:
    number = dice.randrange(1_000_000)
    return f"{dice.choice(_ADJECTIVES)} {dice.choice(_NOUNS)} for {dice.choice(_PLACES)}, number {number}"


def _attempt(number: int, worker: str, submitted_ns: int, ended_ns: int, failure: Failure | None) -> Attempt:
    state = AttemptState.COMPLETED if failure is None else AttemptState.FAILED
    times = (submitted_ns + 1_000_000, ended_ns + 60 * SECOND_NS)
    return Attempt(number, worker, *times, state, 0, ended_ns, 1_500_000, 900_000, 52_000_000, failure)


def search_queries(rows: int) -> Sequence[tuple[str, TaskQuery]]:
    """What is asked of the rows with the orders 1 to ``rows``: each filter alone, each pair of them, and some that find
    nothing; with a name for each."""
    end_ns = START_NS + rows * STEP_NS
    single: dict[str, dict[str, object]] = {
        "state": {"states": frozenset({TaskState.DEAD})},
        "done": {"states": frozenset({TaskState.COMPLETED})},
        "capability": {"capability": CAPABILITIES[20]},
        "common capability": {"capability": CAPABILITIES[0]},
        "tenant": {"tenant": TENANTS[-1]},
        "worker": {"worker": f"worker-{WORKERS - 7:04}"},
        "busy worker": {"worker": "worker-0000"},
        "label": {"labels": (("user", "user-3000"),)},
        "schedule": {"schedule": "schedule-7"},
        "old": {"submitted_to_ns": START_NS + rows * STEP_NS // 20},
        "middle": {"submitted_from_ns": end_ns - rows * STEP_NS // 2, "submitted_to_ns": end_ns - rows * STEP_NS // 3},
        "rare word": {"words": words("no-such-file 4711")},
        "common words": {"words": words("nightly zurich")},
        "prefix": {"words": words("inv")},
    }
    pairs = [
        (f"{one} + {other}", {**single[one], **single[other]})
        for at, one in enumerate(single)
        for other in list(single)[at + 1 :]
        if not set(single[one]) & set(single[other])
    ]
    nothing: list[tuple[str, dict[str, object]]] = [
        ("unknown capability", {"capability": "no-such"}),
        ("unknown worker", {"worker": "no-such"}),
        ("unknown word", {"words": ("zzzunknown",)}),
        ("two common ones that never meet", {"tenant": TENANTS[0], "worker": "worker-0000", "schedule": "no-such"}),
    ]
    asked = [("all", {}), *single.items(), *pairs, *nothing]
    return [(name, TaskQuery(**fields)) for name, fields in asked]  # type: ignore[arg-type]  # fields of a query, by name
