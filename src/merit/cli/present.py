"""What is the present for a command: usually now; with ``merit at`` and ``--at`` a moment of the past."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple


class Visited(NamedTuple):
    """A moment of the past that a command is about."""

    moment: datetime
    again: tuple[str, ...]
    """The words with which a command line begins that is about the same moment."""
    server: Callable[[], AbstractAsyncContextManager[str]]
    """Answers, at the address which the block is given, as the control plane would have."""


class _Present:
    """Of this process."""

    visited: Visited | None = None


def visited() -> Visited | None:
    """The moment of the past that is the present; None: it is now."""
    return _Present.visited


def now() -> datetime:
    """The present: durations count from it."""
    return _Present.visited.moment if _Present.visited is not None else datetime.now(UTC)


def then(view: dict[str, Any], *soft: str) -> dict[str, Any]:
    """What is told of something; of the past without what stands in no journal, which is None then.

    Args:
        view: as the control plane tells it.
        soft: what only a control plane that runs knows.
    """
    return {**view, **dict.fromkeys(soft)} if visited() is not None else view


def shown(value: object) -> object:
    """For a table: of the past, what is not known is a question mark, and not nothing."""
    return "?" if value is None and visited() is not None else value


@contextmanager
def visiting(there: Visited) -> Iterator[None]:
    """For the time of the block the present is there."""
    before, _Present.visited = _Present.visited, there
    try:
        yield
    finally:
        _Present.visited = before
