"""How far something is, as a bar on stderr for whoever sees it there."""

from __future__ import annotations

import sys

from merit.cli.output import printable


def seen() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr.isatty()


class TerminalBar:
    """A bar that is gone when it is done; lines can be written above it.

    Args:
        total: what is full.
        counted: whether it is so and so many of ``total``, with the time that is left, or a share in percent.
    """

    def __init__(self, total: float, *, counted: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            if counted
            else (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}", markup=False))
        )
        self._progress = Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # results go where they were sent, not above the bar
            redirect_stderr=False,
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> TerminalBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, count: float) -> None:
        """So much more is done."""
        self._progress.advance(self._task, count)

    def show(self, done: float, text: str) -> None:
        """So much is done in all; what is being done."""
        self._progress.update(self._task, completed=done, description=printable(text))

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._progress.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
