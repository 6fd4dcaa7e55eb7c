"""What is out of date as soon as there is something newer: notes of progress, steps of a task that somebody follows.

It is gathered by what it is about while the window is closed. Of what is said about the same thing the newest counts,
and log lines add up. All of it is bounded, and may be lossy: nothing that has to arrive goes this way.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Final, Generic, TypeVar

from msgspec.structs import replace

from merit.model.frames import Update
from merit.model.limits import FRAME_ITEMS_MAX, LOG_LINES_MAX
from merit.model.tasks import Progress

LEFT_OUT: Final = "… (lines left out)"
"""Stands where log lines were dropped."""
LOG_BYTES_MAX: Final = 64 * 1024
"""Roughly, of the log lines in one note."""
NEWEST_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of all that waits at one end."""
NEWEST_FRAME_BYTES_MAX: Final = 1024 * 1024
"""Of that in one frame, beside everything else."""
_ITEM_BYTES: Final = 128

Key = TypeVar("Key", bound=Hashable)
Note = TypeVar("Note", Progress, Update)


def log_tail(lines: Iterable[str]) -> tuple[str, ...]:
    """The last of these lines, as many as one note takes; if others were left out, a mark stands in front."""
    newest = list(lines)
    kept, size = 0, 0
    for line in reversed(newest):
        size += len(line) + 8
        if kept == LOG_LINES_MAX or (kept and size > LOG_BYTES_MAX):
            break
        kept += 1
    if kept == len(newest):
        return tuple(newest)
    kept = min(kept, LOG_LINES_MAX - 1)
    return (LEFT_OUT, *newest[len(newest) - kept :])


def newer_progress(old: Progress, new: Progress) -> Progress:
    """Two notes of one attempt as one. A sign of life does not undo what was said before."""
    heard = new if new.fraction >= 0 or new.message else old
    return Progress(new.task, new.number, heard.fraction, heard.message, log_tail((*old.log, *new.log)))


def newer_update(old: Update, new: Update) -> Update:
    """Two steps of one task as one. How far an attempt was does not hold for the next one."""
    same = (old.attempts, old.worker) == (new.attempts, new.worker)
    heard = old if same and new.fraction < 0 and not new.message else new
    return replace(new, fraction=heard.fraction, message=heard.message, log=log_tail((*old.log, *new.log)))


class Newest(Generic[Key, Note]):
    """Notes that wait for a frame, one for each key, in the order in which their keys came.

    Args:
        joined: makes one note of the older and the newer one.
    """

    __slots__ = ("_bytes", "_joined", "_notes")

    def __init__(self, joined: Callable[[Note, Note], Note]) -> None:
        self._joined: Callable[[Note, Note], Note] = joined
        self._notes: dict[Key, Note] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._notes)

    @property
    def size_bytes(self) -> int:
        """Roughly what waits."""
        return self._bytes

    def put(self, key: Key, note: Note) -> None:
        """``note`` waits from now on. When that is too much, all log lines are left out, then what waits for longest."""
        old = self._notes.get(key)
        if old is not None:
            self._bytes -= _size(old)
            note = self._joined(old, note)
        self._notes[key] = note
        self._bytes += _size(note)
        if self._bytes > NEWEST_BYTES_MAX:
            self._shorten()

    def _shorten(self) -> None:
        # All at once: one by one it would be done for each note that comes, until somebody takes them.
        lean = {key: replace(note, log=(LEFT_OUT,)) if note.log else note for key, note in self._notes.items()}
        self._notes, self._bytes = lean, sum(map(_size, lean.values()))
        while self._bytes > NEWEST_BYTES_MAX:
            self.drop(next(iter(self._notes)))

    def drop(self, key: Key) -> None:
        """Nobody wants to know that any more."""
        note = self._notes.pop(key, None)
        if note is not None:
            self._bytes -= _size(note)

    def take(self) -> list[Note]:
        """What goes into the next frame; at least one if there is any."""
        notes = self._notes
        if self._bytes <= NEWEST_FRAME_BYTES_MAX and len(notes) <= FRAME_ITEMS_MAX:
            self._notes, self._bytes = {}, 0
            return list(notes.values())
        taken: list[Note] = []
        total = 0
        while notes and len(taken) < FRAME_ITEMS_MAX:
            key, note = next(iter(notes.items()))
            total += _size(note)
            if taken and total > NEWEST_FRAME_BYTES_MAX:
                break
            self.drop(key)
            taken.append(note)
        return taken


def _size(note: Progress | Update) -> int:
    size = _ITEM_BYTES + len(note.message)
    return size + sum(len(line) + 8 for line in note.log) if note.log else size
