"""Who leads on one machine: an operating system lock on a file, which a dying process gives back whatever kills it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from merit.ports.journal import LeaderElsewhere

_NOTE_BYTES_MAX: Final = 4096


class LeaderNote(msgspec.Struct, frozen=True):
    """What a leader writes into the lock file for those who are refused; the lock itself is the operating system's."""

    holder: str
    pid: int
    since_ns: int


class LeaderLock:
    """The lock on one file.

    The file stays when the lock is given back: removing it would let two processes hold locks on two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self, holder: str, now_ns: int) -> None:
        """Takes the lock for this object, or only renews the note if it has it.

        Raises `LeaderElsewhere`, and `OSError` when the file cannot be used.
        """
        if self._descriptor is None:
            # Not inherited by child processes (the default), which would keep the lock when this process dies.
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note = _read_note(descriptor)
                os.close(descriptor)
                raise self._elsewhere(note, holder) from None
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        written = msgspec.json.encode(LeaderNote(holder, os.getpid(), now_ns))
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, written + b"\n", 0)

    def release(self) -> None:
        """Gives the lock back, if this object has it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _elsewhere(self, note: LeaderNote | None, holder: str) -> LeaderElsewhere:
        who = f"{note.holder!r} (process {note.pid})" if note else "another process"
        return LeaderElsewhere(
            f"{who} leads the journal in {self._path.parent}: stop it before {holder!r} can lead, "
            "or use another directory",
            note.holder if note else "",
        )


def _read_note(descriptor: int) -> LeaderNote | None:
    """The note of the one who has the lock; None when it is not (yet) written."""
    try:
        return msgspec.json.decode(os.pread(descriptor, _NOTE_BYTES_MAX, 0), type=LeaderNote)
    except (OSError, msgspec.DecodeError):
        return None
