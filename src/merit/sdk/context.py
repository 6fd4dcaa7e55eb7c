"""What a running function can do besides computing: progress, logs, evidence, and hearing that it is cancelled.

from merit.sdk.context import Context, current

@capability
def count(path: str, context: Context) -> int: ...   # injected, no part of the schema

current().progress(3, total=10)                      # the same from anywhere below the function
"""

from __future__ import annotations

import hashlib
import math
import stat
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from merit.model.json_depth import too_deep
from merit.model.limits import JSON_DEPTH_MAX
from merit.model.limits import LOG_LINES_MAX as LIVE_LINES_MAX
from merit.sdk.outcome import Evidence, LogLine, ProgressNote, bounded_text

LOG_LINES_MAX = 1_000
LOG_BYTES_MAX = 256 * 1024
LOG_LINE_BYTES_MAX = 4 * 1024
PROGRESS_MESSAGE_BYTES_MAX = 512
EVIDENCE_FILES_MAX = 100
EVIDENCE_FILE_BYTES_MAX = 4 * 1024**3
EVIDENCE_PATH_BYTES_MAX = 4 * 1024

Level = Literal["debug", "info", "warning", "error"]
_FIELDS_DEPTH_MAX = JSON_DEPTH_MAX - 3
"""They travel in an object in a list in an object."""
_LEVELS = frozenset({"debug", "info", "warning", "error"})


class Permanent(Exception):
    """Raised by a function to fail without being tried again."""


class Cancelled(Exception):
    """Raised by `Context.check_cancelled` in a function whose attempt is cancelled."""


def _ignore(_note: ProgressNote) -> None:
    """Where progress goes that nobody asked for."""


class Context:
    """One attempt, as its function sees it. Its methods may be called from any thread."""

    __slots__ = (
        "_cancelled",
        "_evidence",
        "_log",
        "_log_bytes",
        "_log_dropped",
        "_on_log",
        "_on_progress",
        "attempt",
        "attempt_number",
        "deadline_ns",
        "task",
    )

    def __init__(
        self,
        attempt: str = "",
        task: str = "",
        attempt_number: int = 1,
        deadline_ns: int = 0,
        on_progress: Callable[[ProgressNote], None] = _ignore,
        on_log: Callable[[LogLine], None] | None = None,
    ) -> None:
        """`deadline_ns` is Unix time, 0 for none. Made without arguments, it serves in a test of a function."""
        self.attempt = attempt
        self.task = task
        self.attempt_number = attempt_number
        self.deadline_ns = deadline_ns
        self._on_progress = on_progress
        self._on_log = on_log
        self._cancelled = False
        # Made when first used: most attempts say nothing.
        self._log: list[LogLine] | None = None
        self._log_bytes = 0
        self._log_dropped = 0
        self._evidence: list[Evidence] | None = None

    @property
    def deadline(self) -> datetime | None:
        """When the task's result is of no more use (UTC), or None."""
        return datetime.fromtimestamp(self.deadline_ns / 1e9, UTC) if self.deadline_ns else None

    @property
    def cancelled(self) -> bool:
        """Whether the attempt is cancelled: the function should stop soon, its result is no longer wanted."""
        return self._cancelled

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if the attempt is cancelled."""
        if self._cancelled:
            raise Cancelled(f"attempt {self.attempt} is cancelled")

    def progress(self, fraction_or_done: float, total: float | None = None, message: str = "") -> None:
        """Say how far it is: `progress(0.3)`, or `progress(30, total=100)`. Only the latest note is sure to be seen.

        Raises ValueError for a number that is not finite or out of range (0..1, or 0..total).
        """
        if total is not None and not (math.isfinite(total) and total > 0):
            raise ValueError(f"progress: total must be a finite number above 0, not {total!r}")
        limit = 1 if total is None else total
        if not 0 <= fraction_or_done <= limit:  # also refuses NaN
            hint = " (give total= to count in another unit)" if total is None else ""
            raise ValueError(f"progress: {fraction_or_done!r} is not between 0 and {limit}{hint}")
        self._on_progress(
            ProgressNote(
                attempt=self.attempt,
                fraction=fraction_or_done / limit,
                done=float(fraction_or_done),
                total=None if total is None else float(total),
                message=bounded_text(str(message), PROGRESS_MESSAGE_BYTES_MAX),
                time_ns=time.time_ns(),
            )
        )

    def beat(self) -> None:
        """Give a sign of life, without a word on how far it is: for what has a heartbeat time-out. It costs little."""
        self._on_progress(ProgressNote(self.attempt, -1.0, 0.0, None, "", time.time_ns()))

    def tell(self, *lines: str) -> None:
        """Show lines to whoever follows the task, without adding them to the attempt's log. A sign of life, too.

        They may be left out when there are more of them than can be read.
        """
        said = tuple(bounded_text(str(line), LOG_LINE_BYTES_MAX) for line in lines[-LIVE_LINES_MAX:])
        self._on_progress(ProgressNote(self.attempt, -1.0, 0.0, None, "", time.time_ns(), said))

    def log(self, level: Level, message: str, **fields: object) -> None:
        """Add a structured line to the attempt's log, for whoever follows the task to see at once. A sign of life, too.

        Fields that are not JSON are kept as their text. At most 1,000 lines and 256 KiB are kept; what is beyond is counted.
        Raises ValueError for an unknown level.
        """
        if level not in _LEVELS:
            raise ValueError(f"log: level must be one of {', '.join(sorted(_LEVELS))}, not {level!r}")
        text = bounded_text(str(message), LOG_LINE_BYTES_MAX)
        self.add_line(LogLine(time.time_ns(), level, text, _encode_fields(fields)))

    def add_line(self, line: LogLine) -> None:
        """Add a line within the bounds, or count it."""
        if self._log is None:
            self._log = []
        size_bytes = len(line.message) + len(line.fields)
        if len(self._log) >= LOG_LINES_MAX or self._log_bytes + size_bytes > LOG_BYTES_MAX:
            self._log_dropped += 1
            return
        self._log_bytes += size_bytes
        self._log.append(line)
        if self._on_log is not None:
            self._on_log(line)

    def evidence(self, path: str | Path) -> Evidence:
        """Record a file as evidence, by size and SHA-256. The file is read now, by the caller's thread; it is not copied.

        Raises ValueError for what is not a regular file, is larger than 4 GiB, or beyond 100 files per attempt; OSError
        for a file that cannot be read.
        """
        if self._evidence is None:
            self._evidence = []
        if len(self._evidence) >= EVIDENCE_FILES_MAX:
            raise ValueError(f"evidence: more than {EVIDENCE_FILES_MAX} files; put them into one archive")
        whole = Path(path).absolute()
        if len(bytes(whole)) > EVIDENCE_PATH_BYTES_MAX:
            raise ValueError(f"evidence: the path is longer than {EVIDENCE_PATH_BYTES_MAX} bytes")
        found = whole.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"evidence: {whole} is not a regular file")
        if found.st_size > EVIDENCE_FILE_BYTES_MAX:
            raise ValueError(f"evidence: {whole} is larger than {EVIDENCE_FILE_BYTES_MAX} bytes")
        digest = hashlib.sha256()
        size_bytes = 0
        with whole.open("rb") as file:
            # Counted while reading: the file may grow under our eyes, and size and hash must belong together.
            while chunk := file.read(1024 * 1024):
                size_bytes += len(chunk)
                if size_bytes > EVIDENCE_FILE_BYTES_MAX:
                    raise ValueError(f"evidence: {whole} is larger than {EVIDENCE_FILE_BYTES_MAX} bytes")
                digest.update(chunk)
        item = Evidence(bounded_text(str(whole), EVIDENCE_PATH_BYTES_MAX), size_bytes, digest.hexdigest())
        self._evidence.append(item)
        return item

    # What follows is for the runner.

    def set_cancelled(self) -> None:
        """Let the function see that its attempt is cancelled."""
        self._cancelled = True

    def pass_on(self, note: ProgressNote) -> None:
        """Progress that was made elsewhere, in a child process."""
        self._on_progress(note)

    def said(self) -> tuple[tuple[LogLine, ...], int, tuple[Evidence, ...]]:
        """The log, the number of lines dropped, and the evidence so far."""
        return tuple(self._log or ()), self._log_dropped, tuple(self._evidence or ())

    @property
    def silent(self) -> bool:
        """Whether there is neither log nor evidence."""
        return self._log is None and self._evidence is None


def _encode_fields(fields: dict[str, object]) -> bytes:
    """`fields` as a bounded JSON object; values that are not JSON become their text."""
    if not fields:
        return b"{}"
    try:
        encoded = msgspec.json.encode(fields, enc_hook=str)
    except Exception:  # noqa: BLE001 — a value whose own conversion fails, a lone surrogate, a structure without end
        encoded = msgspec.json.encode({bounded_text(key, 128): _text_of(value) for key, value in fields.items()})
    if len(encoded) > LOG_LINE_BYTES_MAX or too_deep(encoded, _FIELDS_DEPTH_MAX):
        return msgspec.json.encode({"truncated": bounded_text(encoded.decode(), LOG_LINE_BYTES_MAX // 2)})
    return encoded


def _text_of(value: object) -> str:
    try:
        return bounded_text(repr(value), 256)
    except Exception:  # noqa: BLE001 — a user's __repr__ may do anything
        return f"({type(value).__name__} without a text)"


active: ContextVar[Context] = ContextVar("merit_attempt")


def current() -> Context:
    """The attempt that runs here. Raises LookupError where none does (a thread that the function started itself, a plain call)."""
    try:
        return active.get()
    except LookupError:
        raise LookupError("no attempt runs here; in a thread of your own, pass the Context on yourself") from None
