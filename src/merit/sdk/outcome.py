"""What comes back from one attempt: the outcome, and what the function said while it ran."""

from __future__ import annotations

import traceback
from typing import Literal

import msgspec

MESSAGE_BYTES_MAX = 4 * 1024
DETAIL_BYTES_MAX = 16 * 1024
RESULT_BYTES_MAX = 64 * 1024 * 1024

Status = Literal["completed", "failed", "canceled"]
ErrorKind = Literal[
    "exception",  # the function raised
    "permanent",  # the function raised Permanent: trying again is pointless
    "invalid_input",  # the parameters do not fit the input schema
    "invalid_output",  # the return value is not what the function declares, or is not JSON
    "result_too_large",
    "crashed",  # the process that ran it ended (kill -9, segmentation fault, os._exit)
    "canceled",
    "unknown_capability",
]


class AttemptError(msgspec.Struct, frozen=True, gc=False):
    """Why an attempt has no result. `message` is never empty; `detail` is the end of the traceback, or empty."""

    kind: ErrorKind
    message: str
    detail: str = ""
    retry: bool = True


class LogLine(msgspec.Struct, frozen=True, gc=False):
    """One structured log entry; `fields` is a JSON object, kept encoded because it is only passed on."""

    time_ns: int
    level: str
    message: str
    fields: bytes = b"{}"

    @property
    def text(self) -> str:
        """The entry as one line for people."""
        level = "" if self.level == "info" else f"{self.level}: "
        fields = "" if self.fields == b"{}" else f" {self.fields.decode()}"
        return f"{level}{self.message}{fields}"


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """A file that proves work: where it is, its size, and the SHA-256 of its content in hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


class ProgressNote(msgspec.Struct, frozen=True, gc=False):
    """How far an attempt is. `fraction` is 0..1, or -1 for a mere sign of life; `done` and `total` are in the function's
    own unit, if it gave them; `log` are lines to be seen by whoever follows the task.
    """

    attempt: str
    fraction: float
    done: float
    total: float | None
    message: str
    time_ns: int
    log: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The end of one attempt.

    `result` is JSON, and empty unless `status` is "completed"; then `error` is None. `started_ns` and `ended_ns` are Unix
    time, and 0 for an attempt that never began; `wall_ns` is measured by a monotonic clock, so it can differ from their
    difference. `cpu_ns` is that of the attempt alone (of its whole process, for one that ran in its own).
    `memory_bytes` is the peak resident size of the process in which it ran. `log_dropped` counts log lines beyond the bounds.
    """

    attempt: str
    status: Status
    result: bytes = b""
    error: AttemptError | None = None
    started_ns: int = 0
    ended_ns: int = 0
    wall_ns: int = 0
    cpu_ns: int = 0
    memory_bytes: int = 0
    log: tuple[LogLine, ...] = ()
    log_dropped: int = 0
    evidence: tuple[Evidence, ...] = ()


def bounded_text(text: str, bytes_max: int, *, keep_end: bool = False) -> str:
    """`text` as valid UTF-8 of at most `bytes_max` bytes: lone surrogates are escaped, what is cut off is replaced by …"""
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) <= bytes_max:
        return raw.decode()
    room = bytes_max - len("…".encode())
    if keep_end:
        return "…" + raw[len(raw) - room :].decode("utf-8", "ignore")
    return raw[:room].decode("utf-8", "ignore") + "…"


def message_of(error: BaseException) -> str:
    """The type and text of an exception, never empty, also when the exception cannot be turned into text."""
    name = type(error).__name__
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 — a user's __str__ may do anything
        text = "(its text cannot be had: __str__ raised)"
    return bounded_text(f"{name}: {text}" if text else name, MESSAGE_BYTES_MAX)


def detail_of(error: BaseException) -> str:
    """The end of the exception's traceback, without the frame of the runner that called the function."""
    first = error.__traceback__
    if first is not None:
        first = first.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, first))
    except Exception:  # noqa: BLE001 — formatting calls the user's __str__ and reads his files
        return ""
    return bounded_text(text, DETAIL_BYTES_MAX, keep_end=True)
