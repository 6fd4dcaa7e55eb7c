"""What running functions say of themselves, gathered until the worker passes it on."""

from __future__ import annotations

import threading
from typing import Final

from msgspec.structs import replace

from merit.model.limits import LOG_LINES_MAX
from merit.sdk.outcome import ProgressNote
from merit.session.newest import log_tail

NOTE_NS_MIN: Final = 250_000_000
"""Between two notes of one attempt."""


class _Gathered:
    """Of one attempt. ``note`` is None when there is nothing new."""

    __slots__ = ("log", "note", "told_ns")

    def __init__(self) -> None:
        self.note: ProgressNote | None = None
        self.log: list[str] = []
        self.told_ns = 0


class Notes:
    """The newest note of each attempt, with the lines that came since the one before. ``put`` is for any thread.

    A function may say something a million times a second: what is held and passed on does not grow with that.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gathered: dict[str, _Gathered] = {}

    def put(self, note: ProgressNote) -> None:
        """Something was said. A sign of life does not undo what was said before it."""
        with self._lock:
            entry = self._gathered.get(note.attempt)
            if entry is None:
                entry = self._gathered[note.attempt] = _Gathered()
            if entry.note is None or note.fraction >= 0:
                entry.note = note
            if note.log:
                entry.log += note.log
                if len(entry.log) > 2 * LOG_LINES_MAX:
                    entry.log[:] = log_tail(entry.log)

    def take(self, now_ns: int) -> list[ProgressNote]:
        """What is new and may be passed on by now; ``now_ns`` is time.monotonic_ns()."""
        taken: list[ProgressNote] = []
        if not self._gathered:
            return taken
        with self._lock:
            for attempt, entry in list(self._gathered.items()):
                if entry.told_ns and now_ns - entry.told_ns < NOTE_NS_MIN:
                    continue
                if entry.note is None:
                    del self._gathered[attempt]
                    continue
                taken.append(replace(entry.note, log=log_tail(entry.log)))
                entry.note, entry.told_ns = None, now_ns
                entry.log.clear()
        return taken

    def forget(self, attempt: str) -> None:
        """The attempt has ended."""
        if self._gathered:
            self._gathered.pop(attempt, None)
