"""How far an inspection is: a bar where somebody watches a terminal, a line now and then where nobody does."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 3.0


class BarDisplay:
    """A progress bar."""

    def __init__(self, console: Console, total: int) -> None:
        self._began_s = time.monotonic()
        self._progress = Progress(
            BarColumn(bar_width=24),  # all of it fits into 80 columns
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TextColumn("in flight {task.fields[in_flight]:,}"),
            TextColumn("failed {task.fields[failed]:,}", style="red"),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._task = self._progress.add_task("", total=total, rate=0.0, in_flight=0, failed=0)

    def __enter__(self) -> BarDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, done: int, failed: int, in_flight: int) -> None:
        """Move the bar."""
        rate = done / max(0.001, time.monotonic() - self._began_s)
        self._progress.update(self._task, completed=done, failed=failed, in_flight=in_flight, rate=rate)

    def incident(self, what: str) -> None:
        """A line above the bar."""
        self._progress.console.print(f"  {what}", style="yellow", highlight=False, markup=False)


class LineDisplay:
    """A line every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began_s = self._said_s = time.monotonic()

    def __enter__(self) -> LineDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, done: int, failed: int, in_flight: int) -> None:
        """Say how far it is, if that was not said just now."""
        now_s = time.monotonic()
        if now_s - self._said_s < LINE_EVERY_S and done < self._total:
            return
        self._said_s = now_s
        rate = done / max(0.001, now_s - self._began_s)
        left_s = (self._total - done) / rate if rate else 0.0
        figures = f"{done:,}/{self._total:,} tasks, {rate:,.0f}/s, in flight {in_flight:,}, failed {failed:,}"
        self._say(f"{figures}, {left_s:.0f} s left")

    def incident(self, what: str) -> None:
        """Say it at once."""
        self._say(what)

    def _say(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
