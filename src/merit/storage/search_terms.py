"""What read models in databases have in common: what their tasks are searched by, whatever the language of the index is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from merit.model.search import TaskQuery, TaskRow

SPAN_BITS: Final = 10
"""A span, a run of 1,024 orders, knows when its tasks were submitted and ended: times need no index of their own."""
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024

# Kinds of terms: letters that are no hexadecimal digits, so that none is taken for the end of a bucket's number.
CAPABILITY: Final = "k"
TENANT: Final = "t"
STATE: Final = "s"
WORKER: Final = "w"
LABEL: Final = "l"
SCHEDULE: Final = "p"
WORD: Final = "x"

Value = str | int | tuple[str, str]
"""A state is a number, a label its name and value, all else a text."""


def question(
    query: TaskQuery, term: Callable[[str, Value], str], begun: Callable[[str], str], both: str, either: str
) -> str:
    """What an index is asked; empty: there is nothing to ask it.

    Args:
        query: its times are not asked here.
        term: writes that a task has a term, of which kind and value are given.
        begun: writes that a word of a task begins so.
        both: stands between what has to hold together.
        either: stands between what may hold.
    """
    parts = [term(LABEL, label) for label in query.labels]
    for kind, value in (
        (CAPABILITY, query.capability),
        (TENANT, query.tenant),
        (WORKER, query.worker),
        (SCHEDULE, query.schedule),
    ):
        if value:
            parts.append(term(kind, value))
    parts += map(begun, query.words)
    if query.states:
        parts.append(f"({either.join(term(STATE, int(state)) for state in sorted(query.states))})")
    return both.join(parts)


def page_of(hits: Iterable[tuple[int, int]]) -> list[int]:
    """The orders of the first hits (orders, and bytes of their tasks) that fit in a page; one at least."""
    orders: list[int] = []
    size = 0
    for order, length in hits:
        size += length
        if size > PAGE_BYTES_MAX and orders:
            break
        orders.append(order)
    return orders


def spans_of(tasks: Sequence[TaskRow]) -> list[tuple[int, int, int, int]]:
    """Of each span: its number, when its tasks were submitted, first and last, and when the first of them ended."""
    spans: dict[int, tuple[int, int, int, int]] = {}
    for row in tasks:
        number = row.order >> SPAN_BITS
        first, last, ended = row.submitted_ns, row.submitted_ns, row.ended_ns
        known = spans.get(number)
        if known is not None:
            first, last, ended = min(first, known[1]), max(last, known[2]), min(ended, known[3])
        spans[number] = (number, first, last, ended)
    return list(spans.values())
