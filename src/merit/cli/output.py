"""What a command says: one JSON document or lines for people on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

FAILED: Final = 1
"""Exit code: the task failed or was refused, damage was found, a server could not go on."""
USAGE: Final = 2
"""Exit code: wrong usage; nothing was asked of the control plane."""
UNREACHABLE: Final = 3
"""Exit code: no control plane answered."""
TIMED_OUT: Final = 4
"""Exit code: the wait was over before the task was; the task goes on."""
INTERRUPTED: Final = 130
"""Exit code: Ctrl-C."""


class CliError(Exception):
    """Ends the command: `kind` is for programs, the message for people, `code` for scripts; `details` go beside both
    into the JSON document."""

    def __init__(self, kind: str, message: str, code: int, **details: Any) -> None:
        self.kind = kind
        self.code = code
        self.details = details
        super().__init__(message)

    def view(self) -> dict[str, Any]:
        """The error as JSON has it."""
        return {"error": {"kind": self.kind, "message": str(self), **self.details}}


class _Growing:
    """Whether the document of this process was begun with a list, and how long that is by now."""

    count: int | None = None


def begin_list(name: str) -> None:
    """Begin the document with a list, one item a line, that may be longer than memory or than anybody would wait for.
    What is written by ``write_json`` next, an error perhaps, comes behind it and ends the document."""
    sys.stdout.write(f'{{"{name}":[')
    sys.stdout.flush()
    _Growing.count = 0


def add_item(item: Any) -> None:
    """One more in the list that was begun."""
    import msgspec

    between = "," if _Growing.count else ""
    sys.stdout.write(f"{between}\n{msgspec.json.encode(item).decode()}")
    sys.stdout.flush()
    _Growing.count = 1 + (_Growing.count or 0)


def write_json(document: Any) -> None:
    """One JSON document on a line of its own, flushed, so that whoever reads a pipe has it."""
    import msgspec  # here and below: help would wait for it

    text = msgspec.json.encode(document).decode()
    if _Growing.count is not None:
        text = f"\n],{text[1:]}"
        _Growing.count = None
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def write_lines(lines: Iterable[str]) -> None:
    """Lines for people on stdout."""
    sys.stdout.writelines(f"{printable(line)}\n" for line in lines)
    sys.stdout.flush()


def note(line: str) -> None:
    """A line for people on stderr."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Rows under headings, each column as wide as its widest cell; numbers stand to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[place]) for row in cells)]) for place, name in enumerate(columns)]
    right = [bool(rows) and all(isinstance(row[place], int | float) for row in rows) for place in range(len(columns))]

    def line(values: Sequence[str]) -> str:
        parts = zip(values, widths, right, strict=True)
        return "  ".join(value.rjust(width) if to_right else value.ljust(width) for value, width, to_right in parts)

    return [line([name.upper() for name in columns]).rstrip(), *(line(row).rstrip() for row in cells)]


def printable(text: str) -> str:
    """Text with control characters shown by their codes: what comes from tasks must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\t" else ascii(one)[1:-1] for one in text)


def log_to_stderr() -> None:
    """Send Merit's log to stderr, a line each with the time in UTC."""
    import logging

    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return printable(str(value))
