"""An attempt's outcome as the report that goes to the control plane."""

from __future__ import annotations

from typing import Final

import msgspec

from merit.model.frames import Report, ReportStatus
from merit.model.limits import FAILURE_DETAIL_LENGTH_MAX, FAILURE_MESSAGE_LENGTH_MAX, TRAIL_BYTES_MAX
from merit.model.tasks import Failure
from merit.sdk.outcome import Outcome

_STATUS: Final = {
    "completed": ReportStatus.COMPLETED,
    "failed": ReportStatus.FAILED,
    "canceled": ReportStatus.CANCELED,
}


def report_of(task: str, number: int, outcome: Outcome, result: bytes, result_blob: str) -> Report:
    """The report; a large ``result`` is in the blob store already, under ``result_blob``."""
    error = outcome.error
    failure = None
    if error is not None:
        failure = Failure(
            error.kind,
            error.message[:FAILURE_MESSAGE_LENGTH_MAX],
            error.detail[-FAILURE_DETAIL_LENGTH_MAX:],
            not error.retry,
        )
    return Report(
        task,
        number,
        _STATUS[outcome.status],
        result,
        result_blob,
        failure,
        outcome.wall_ns,
        outcome.cpu_ns,
        outcome.memory_bytes,
        _trail(outcome) if outcome.log or outcome.evidence else b"",
    )


def _trail(outcome: Outcome) -> bytes:
    """Log and evidence as JSON within its bound; the oldest log lines go first, and how many did is said."""
    lines = [
        {"time_ns": line.time_ns, "level": line.level, "message": line.message, "fields": msgspec.Raw(line.fields)}
        for line in outcome.log
    ]
    dropped = outcome.log_dropped
    evidence = [msgspec.structs.asdict(item) for item in outcome.evidence]
    while True:
        trail = msgspec.json.encode({"log": lines, "log_dropped": dropped, "evidence": evidence})
        if len(trail) <= TRAIL_BYTES_MAX:
            return trail
        cut = max(1, len(lines) // 4)
        if not lines:
            evidence = evidence[: len(evidence) // 2]
        dropped += min(cut, len(lines))
        lines = lines[cut:]
