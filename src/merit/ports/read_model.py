"""The port of the read model: what the follower has made of the journal so that it can be searched.

It holds final tasks and workers, nothing that could not be made again from the journal, as long as that reaches back so far.
One follower writes it, portion by portion, each all or nothing; anybody reads it meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct

from merit.core.state import KeyEntry
from merit.model.search import TaskQuery, TaskRow, WorkerQuery, WorkerRow

PAGE_MAX: Final = 1_000
"""Rows that one question is answered with at most."""
ORDER_END: Final = 2**62
"""Above the order of every task."""


class ReadModelError(Exception):
    """Base of what a read model refuses or reports."""


class ReadModelUnavailable(ReadModelError):
    """It cannot be read or written (missing, disk full, I/O error, damaged); the message names the place and what to do."""


class Superseded(ReadModelError):
    """Somebody else has written a portion meanwhile: another follower is at work. Nothing was stored."""


class Reached(Struct, frozen=True):
    """How far the read model is: it knows all up to the event ``sequence``, which happened at ``time_ns``."""

    sequence: int = 0
    time_ns: int = 0


class Portion(Struct, frozen=True):
    """What has become of the events after ``after`` up to ``until.sequence``."""

    after: int
    until: Reached
    tasks: Sequence[TaskRow] = ()
    """In the order in which they became final. Replaces rows of the same order."""
    workers: Sequence[WorkerRow] = ()
    """Replaces rows of the same name, but for ``first_ns``, of which the earlier one stays."""


class TaskPage(Struct, frozen=True):
    """Rows that were found, latest submitted first."""

    rows: tuple[TaskRow, ...]
    more: bool
    """There may be more; the query goes on below ``before``."""
    before: int
    """All was looked at down to this order: that of the last row, or lower if the search was cut short."""


class ReadModelReader(Protocol):
    """Reads; from any thread, one call at a time."""

    def reached(self) -> Reached:
        """How far it is. Raises `ReadModelUnavailable`."""
        ...

    def find(self, query: TaskQuery, before: int, limit: int) -> TaskPage:
        """The tasks that match, the latest of those submitted before the ``before``-th first.

        A search that has looked for long at what does not match ends with what it has (``more``).
        Raises `ReadModelUnavailable`.
        """
        ...

    def tasks(self, ids: Sequence[str], before: int = ORDER_END) -> list[TaskRow]:
        """Those of the tasks that are there, of those submitted before the ``before``-th; of several with one id, the latest.

        Raises `ReadModelUnavailable`.
        """
        ...

    def keys(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], KeyEntry]:
        """What idempotency keys stand for, by tenant and key: the final task that had it last.

        Raises `ReadModelUnavailable`.
        """
        ...

    def workers(self, query: WorkerQuery, after: str, limit: int) -> list[WorkerRow]:
        """The workers that match, by name, those behind the name ``after``. Raises `ReadModelUnavailable`."""
        ...

    def oldest_ns(self) -> int:
        """When the first of its tasks ended, or the first of the workers left that have left; 0: there are none. What it has
        forgotten ended, and left, before that, or not much later. Raises `ReadModelUnavailable`."""
        ...

    def size_bytes(self) -> int:
        """What is in it occupies, roughly: room that `forget` has made does not count, nor do other cells. Raises
        `ReadModelUnavailable`."""
        ...

    def close(self) -> None:
        """Frees everything. May be called twice."""
        ...


class ReadModel(ReadModelReader, Protocol):
    """Written by one follower at a time."""

    def write(self, portion: Portion) -> None:
        """Stores a portion, all of it or nothing; may be lost in a power cut, but then with all after it.

        Raises `Superseded` when ``after`` is not what was reached, `ReadModelUnavailable`.
        """
        ...

    def forget(self, ended_before_ns: int, count_max: int) -> int:
        """Drops tasks that ended, and workers that left, before a time, roughly oldest first; how many, ``count_max`` at
        most: as long as it is that many, there are more.

        Raises `ReadModelUnavailable`.
        """
        ...

    def clear(self) -> None:
        """Drops everything; it has reached 0 then. Raises `ReadModelUnavailable`."""
        ...
