"""Tasks as rows that fit the terminal."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime
from typing import Any, Final

from merit.cli.output import table

_LEFT_OUT: Final = ("priority", "attempts", "worker")
"""Columns that a narrow terminal does without, in this order; `merit task show` has them."""


def terminal_width() -> int | None:
    """Of the terminal in characters; None: stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def rows(views: list[dict[str, Any]], width: int | None, now: datetime) -> list[str]:
    """Tasks as a table.

    Args:
        views: the tasks, as ``AsyncClient.tasks`` gives them; at least one.
        width: of the terminal in characters: what does not fit is shortened, left out or, at last, cut off, since a
            row that wraps cannot be read. None: there is none, everything is shown.
        now: times of its day (UTC) are shortened to the time of day, others to the day.
    """
    names = ["id", "capability", "state", "priority", "attempts", "worker", "submitted", "ended"]
    cells = [_cells(view) for view in views]
    lines = _table(names, cells)
    if width is None or _widest(lines) <= width:
        return lines
    names.remove("ended")
    for row in cells:
        row["submitted"] = _shortened(row["submitted"], now)
    for name in _LEFT_OUT:
        lines = _table(names, cells)
        if _widest(lines) <= width:
            return lines
        names.remove(name)
    lines = _table(names, cells)
    over = _widest(lines) - width
    if over > 0:
        room = max(len("capability"), max(len(row["capability"]) for row in cells) - over)
        for row in cells:
            row["capability"] = cut(row["capability"], room)
        lines = [cut(line, width) for line in _table(names, cells)]
    return lines


def _cells(view: dict[str, Any]) -> dict[str, Any]:
    attempts = view["attempts"]
    kept = ("id", "capability", "state", "priority", "submitted", "ended")
    return {
        **{name: view[name] for name in kept},
        "attempts": len(attempts),
        "worker": attempts[-1]["worker"] if attempts else None,
    }


def _table(names: list[str], cells: list[dict[str, Any]]) -> list[str]:
    return table(names, [[row[name] for name in names] for row in cells])


def _widest(lines: list[str]) -> int:
    return max(map(len, lines))


def cut(text: str, length: int) -> str:
    """Text of at most so many characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _shortened(time: str, now: datetime) -> str:
    """A time in ISO 8601, UTC: today's as ``HH:MM:SS``, another day's as ``YYYY-MM-DD``."""
    day, _, rest = time.partition("T")
    return rest[: len("HH:MM:SS")] if day == now.date().isoformat() else day
