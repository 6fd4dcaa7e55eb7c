"""Which tasks are meant: filters, checked, and selections for orders that are about many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from merit.gateway.fields import BadField, check_range, check_text
from merit.gateway.portions import portions
from merit.gateway.terms_check import check_labels
from merit.model.ids import is_task_id
from merit.model.limits import DESCRIPTION_LENGTH_MAX, NAME_LENGTH_MAX, SUBMIT_TASKS_MAX
from merit.model.search import QUERY_WORDS_MAX, TaskQuery, words
from merit.model.searchable import Marked
from merit.model.tasks import Refusal, Task, TaskState
from merit.ports.cell import Cell
from merit.wire.v1 import tasks_pb2

LIST_DEFAULT: Final = 100
LIST_MAX: Final = 1_000
LIST_BYTES_MAX: Final = 4 * 1024 * 1024
"""A page that has come to this ends: a thousand tasks, each with its stack traces, would be more than a message holds."""
SELECTED_MAX: Final = 10_000
"""Tasks that one order by filter is about at most."""
_CURSOR_LENGTH_MAX: Final = 20
_CURSOR_MAX: Final = 2**62
_TIME_NS_MAX: Final = 2**63 - 1
_PORTION_FOR_WORDS: Final = 16
"""The words of one task may take milliseconds."""


def page_size(limit: int) -> int:
    """How many entries a page may have."""
    return min(limit or LIST_DEFAULT, LIST_MAX)


def read_cursor(text: str) -> int:
    """The number in a cursor.

    Raises:
        BadField: there is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < _CURSOR_LENGTH_MAX and int(text) <= _CURSOR_MAX):
        raise BadField("cursor", "must be the next_cursor of a page before")
    return int(text)


class TaskSearch:
    """A filter, checked.

    Args:
        wanted: as it came.
        tenant: what the filter is about if it does not say a tenant; empty: all of them.

    Raises:
        BadField: for the first field that cannot be.
    """

    def __init__(self, wanted: tasks_pb2.TaskFilter, tenant: str = "") -> None:
        states = {int(state) for state in wanted.states}
        for state in states:
            check_range("filter.states", state, min(TaskState), max(TaskState))
        for field, text, length_max in (
            ("filter.capability", wanted.capability, NAME_LENGTH_MAX),
            ("filter.tenant", wanted.tenant, NAME_LENGTH_MAX),
            ("filter.schedule", wanted.schedule, NAME_LENGTH_MAX),
            ("filter.worker_id", wanted.worker_id, NAME_LENGTH_MAX),
            ("filter.text", wanted.text, DESCRIPTION_LENGTH_MAX),
        ):
            check_text(field, text, 0, length_max)
        check_range("filter.submitted_from_ns", wanted.submitted_from_ns, 0, _TIME_NS_MAX)
        check_range("filter.submitted_to_ns", wanted.submitted_to_ns, 0, _TIME_NS_MAX)
        labels = tuple((label.name, label.value) for label in wanted.labels)
        check_labels("filter.labels", labels)
        said = words(wanted.text)
        if wanted.text and not said:
            raise BadField("filter.text", "has no words: no letters and no digits")
        if len(said) > QUERY_WORDS_MAX:
            reason = (
                f"has {len(said):,} words, more than the {QUERY_WORDS_MAX} that one search may have: leave some out"
            )
            raise BadField("filter.text", reason)
        self._reviews = wanted.reviews
        self.empty = not wanted.ByteSize()
        """It says nothing, so that it would be about everything."""
        self.query = TaskQuery(
            states=frozenset(TaskState(state) for state in states),
            capability=wanted.capability,
            tenant=wanted.tenant or tenant,
            labels=labels,
            words=said,
            submitted_from_ns=wanted.submitted_from_ns,
            submitted_to_ns=wanted.submitted_to_ns or _TIME_NS_MAX,
            schedule=wanted.schedule,
            worker=wanted.worker_id,
        )

    def among(self, cell: Cell) -> Callable[[Task], bool]:
        """Says of a task of this cell whether it is meant."""
        query = self.query
        if not query.words:
            return lambda task: self.shows(task) and query.matches(task)
        marked = Marked(cell.state.offers)
        wordless = msgspec.structs.replace(query, words=())  # asked first, since words take long
        return lambda task: self.shows(task) and wordless.matches(task) and query.matches(task, marked.texts(task))

    def shows(self, task: Task) -> bool:
        """Those that look at the results of others are meant only if that is said; ``query`` is not about this."""
        return self._reviews or task.terms is None or task.terms.review is None

    @property
    def portion(self) -> int | None:
        """How many tasks may be looked at in one turn of the loop; None: as many as usual."""
        return _PORTION_FOR_WORDS if self.query.words else None


class Selection(Struct, frozen=True):
    """What an order is about."""

    tenant: str
    ids: list[str]
    refusals: list[Refusal]
    """Of ids that are none."""
    more: bool
    """The filter has found others too."""
    by_filter: bool

    def portions(self) -> Iterator[list[str]]:
        """As many as fit into a command."""
        return (self.ids[start : start + SUBMIT_TASKS_MAX] for start in range(0, len(self.ids), SUBMIT_TASKS_MAX))

    def worth_saying(self, refusals: list[Refusal]) -> list[Refusal]:
        """Of what the cell refused. What a filter has found may have changed before the order came; that is no news."""
        if not self.by_filter:
            return refusals
        return [refusal for refusal in refusals if refusal.code not in ("conflict", "not_found")]


async def select(
    cell: Cell,
    ids: Sequence[str],
    wanted: tasks_pb2.TaskFilter | None,
    tenant: str,
    oldest_first: Iterable[Task],
    *,
    final: bool,
) -> Selection:
    """What an order is about, which names tasks or has a filter.

    Args:
        cell: whose tasks they are.
        ids: as they came.
        wanted: the filter, if there is one.
        tenant: of the caller.
        oldest_first: where to look.
        final: whether the order is about tasks that are final, or about those that are not.

    Raises:
        BadField: neither or both are given, or they cannot be.
    """
    if wanted is None:
        names = list(dict.fromkeys(ids))
        if not 1 <= len(names) <= SUBMIT_TASKS_MAX:
            raise BadField("ids", f"{len(names):,}; 1 to {SUBMIT_TASKS_MAX:,} are allowed, or a filter")
        bad = [
            Refusal(name[:NAME_LENGTH_MAX], "invalid", "ids", "is no task id") for name in names if not is_task_id(name)
        ]
        return Selection(tenant, [name for name in names if is_task_id(name)], bad, more=False, by_filter=False)
    if ids:
        raise BadField("ids", "must be empty when there is a filter")
    search = TaskSearch(wanted, tenant)
    if search.empty:
        raise BadField("filter", "is empty; to mean all, name the states")
    matches = search.among(cell)
    found: list[str] = []
    async for portion in portions(oldest_first, search.portion):
        found += [task.id for task in portion if task.state.final is final and matches(task)]
        if len(found) > SELECTED_MAX:
            break
    return Selection(search.query.tenant, found[:SELECTED_MAX], [], more=len(found) > SELECTED_MAX, by_filter=True)
