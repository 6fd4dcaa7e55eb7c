"""What is kept of tasks and workers once they are over, to be searched, and what can be asked of it.

One query serves the cell, which knows the tasks that live, and the read model, which knows those that are final: both find
the same in the same order. ``TaskQuery.matches`` says what a query means; every adapter of the read model has to agree.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from merit.model.tasks import Task, TaskState, Terms

WORD_LENGTH_MAX: Final = 40
"""Longer words are cut off here, in what is searched and in what is searched for."""
WORDS_MAX: Final = 500
"""Of one task; what comes after is not found by."""
TEXT_LENGTH_MAX: Final = 16_384
"""Of one text, in characters; what comes after is not found by."""
QUERY_WORDS_MAX: Final = 16
"""Of one query."""
REVIEW_OF: Final = "merit.review-of"
"""A task that looks at a result is found by this label, with the id of the task whose result it is."""
_NO_LABELS: Final[tuple[tuple[str, str], ...]] = ()


def words(text: str) -> tuple[str, ...]:
    """The words of a text as they are searched: letters and digits, whether upper or lower case, without accents."""
    folded = unicodedata.normalize("NFKD", text[:TEXT_LENGTH_MAX]).casefold()
    kept = "".join(letter if letter.isalnum() else " " for letter in folded if not unicodedata.combining(letter))
    return tuple(word[:WORD_LENGTH_MAX] for word in kept.split())


def words_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The words of several texts, each once, in their order; ``WORDS_MAX`` at most."""
    found: dict[str, None] = {}
    for text in texts:
        for word in words(text):
            found[word] = None
            if len(found) >= WORDS_MAX:
                return tuple(found)
    return tuple(found)


class TaskQuery(Struct, frozen=True, kw_only=True):
    """Which tasks are meant: those for which all of it holds; what is empty holds for all."""

    states: frozenset[TaskState] = frozenset()
    capability: str = ""
    tenant: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    """All of these."""
    words: tuple[str, ...] = ()
    """Each begins a word of the description, of the message of a failure, or of a parameter that is marked searchable."""
    submitted_from_ns: int = 0
    submitted_to_ns: int = 2**63 - 1
    """Before this."""
    schedule: str = ""
    worker: str = ""
    """An attempt was given to it."""

    def matches(self, task: Task, searchable: Iterable[str] = ()) -> bool:
        """Whether a task is meant.

        Args:
            task: live or final.
            searchable: the texts of those of its parameters that are marked; only looked at if there are words.
        """
        return (
            (not self.states or task.state in self.states)
            and (not self.capability or task.capability == self.capability)
            and (not self.tenant or task.tenant == self.tenant)
            and self.submitted_from_ns <= task.submitted_ns < self.submitted_to_ns
            and self._fits_terms(task)
            and (not self.worker or any(attempt.worker == self.worker for attempt in task.attempts))
            and (not self.words or self._is_said(words_of([*texts_of(task), *searchable])))
        )

    def _fits_terms(self, task: Task) -> bool:
        if not self.labels and not self.schedule:
            return True
        terms = task.terms
        if terms is None:
            return False
        return (not self.schedule or terms.schedule == self.schedule) and all(
            label in labels_of(terms) for label in self.labels
        )

    def _is_said(self, said: tuple[str, ...]) -> bool:
        return all(any(word.startswith(wanted) for word in said) for wanted in self.words)


def labels_of(terms: Terms | None) -> tuple[tuple[str, str], ...]:
    """What a task with these terms is labelled with, as far as searching goes."""
    if terms is None:
        return _NO_LABELS
    review = terms.review
    return terms.labels if review is None or not review.of else (*terms.labels, (REVIEW_OF, review.of))


def texts_of(task: Task) -> Iterator[str]:
    """What people have written, or read, of a task: its description and the messages of its failures."""
    if task.description:
        yield task.description
    for attempt in task.attempts:
        if attempt.failure is not None:
            yield attempt.failure.message
    if task.failure is not None:
        yield task.failure.message


class TaskRow(Struct, frozen=True, array_like=True, gc=False):
    """A final task as the read model keeps it. The contents (parameters, result, trails) stay in the journal, where the
    task's times say in which records they are."""

    order: int
    """Its key: no two tasks of a cell have the same, and later ones have higher ones."""
    sequence: int
    """Of the event after which it was as it is here."""
    id: str
    tenant: str
    capability: str
    state: TaskState
    submitted_ns: int
    ended_ns: int
    workers: tuple[str, ...]
    """Who was given an attempt, each once."""
    labels: tuple[tuple[str, str], ...]
    schedule: str
    key: str
    """Its idempotency key, or nothing."""
    content: str
    """With a key: the digest of what was asked for (``merit.core.apply.content_digest``), hexadecimal."""
    words: str
    """Those that it is found by, with spaces between them; a row that comes out of a read model need not have them."""
    task: Task
    """Without its contents."""


def row_of(task: Task, sequence: int, content: str = "", words: str = "") -> TaskRow:
    """The row of a final task; ``task`` is kept in it as it is, and the rest as ``TaskRow`` has it."""
    terms, attempts = task.terms, task.attempts
    return TaskRow(
        task.order,
        sequence,
        task.id,
        task.tenant,
        task.capability,
        task.state,
        task.submitted_ns,
        task.ended_ns,
        (attempts[0].worker,) if len(attempts) == 1 else tuple({attempt.worker: None for attempt in attempts}),
        labels_of(terms),
        "" if terms is None else terms.schedule,
        "" if terms is None else terms.idempotency_key,
        content,
        words,
        task,
    )


class WorkerRow(Struct, frozen=True, array_like=True, gc=False):
    """A worker, here or gone, as the read model keeps it."""

    worker: str
    sequence: int
    tenant: str
    capabilities: tuple[str, ...]
    tags: tuple[str, ...]
    """Its own, and those of what it offers."""
    first_ns: int
    """When it joined first, as far as is known."""
    joined_ns: int
    """When it joined last."""
    left_ns: int
    """When it left for good; 0: it has not."""
    lost: bool
    """It left, and not by its own word."""
    reason: str
    """Why it left."""
    versions: tuple[str, ...] = ()
    """Of the capabilities, one each; a row that was written by an older Merit has none."""
    tenants: tuple[str, ...] = ()
    """Whose tasks it takes; empty: anybody's."""


class WorkerQuery(Struct, frozen=True, kw_only=True):
    """Which workers are meant: those for which all of it holds; what is empty holds for all."""

    capability: str = ""
    tag: str = ""
    name: str = ""
    """How the name begins."""
    here: bool | None = None
    """Whether it has not left for good."""
    left_from_ns: int = 0
    """It left then or later; above 0 this is not so of a worker that is here."""
    left_to_ns: int = 2**63 - 1
    """Before this."""

    def matches(self, row: WorkerRow) -> bool:
        """Whether a worker is meant."""
        return (
            (not self.capability or self.capability in row.capabilities)
            and (not self.tag or self.tag in row.tags)
            and row.worker.startswith(self.name)
            and (self.here is None or self.here is (row.left_ns == 0))
            and self.left_from_ns <= row.left_ns < self.left_to_ns
        )
