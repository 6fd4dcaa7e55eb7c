"""What the last attempts of a worker come to, in whole numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from merit.model.limits import SECOND_NS
from merit.model.track_record import WINDOW, EndedAttempt, Ending

PERMILLE: Final = 1_000
RATE_NS: Final = 60 * SECOND_NS
"""Throughput is counted over this time."""


class Metrics(Struct, frozen=True, kw_only=True):
    """Of a worker, at one capability or at all of them: over the last ``WINDOW`` attempts, unless something else is said."""

    attempts: int = 0
    completed: int = 0
    failed: int = 0
    """With those that were refused, timed out, were lost or rejected."""
    error_permille: int = 0
    mean_ns: int = 0
    """Of all attempts of which it is known how long they took, failures included; 0: nobody knows."""
    p95_ns: int = 0
    utilisation_permille: int = 0
    """Mean share of its concurrency that was in use when attempts ended."""
    rate_milli: int = 0
    """Attempts that ended within the last minute, in millionths of one a second."""
    quality_permille: int = PERMILLE
    """Of the results that were looked at closely over its whole life: the share that was right; 1,000 if none was."""
    checked: int = 0
    """How many these were."""
    availability_permille: int = PERMILLE
    """Share of attempts that were not lost."""
    lateness_permille: int = PERMILLE
    """How long its attempts take as a share of what they should take; 1,000 if nobody knows what they should."""
    life_completed: int = 0
    life_failed: int = 0


def metrics_of(
    endings: Iterable[EndedAttempt],
    now_ns: int,
    *,
    passed: int = 0,
    wrong: int = 0,
    lateness_permille: int = PERMILLE,
    life_completed: int = 0,
    life_failed: int = 0,
) -> Metrics:
    """Metrics of attempts.

    Args:
        endings: any; the latest ``WINDOW`` of them count.
        now_ns: Unix time.
        passed: results that were looked at closely and were right, …
        wrong: … and that were not.
        lateness_permille: see ``Metrics``.
        life_completed, life_failed: attempts over the whole life.
    """
    last = sorted(endings, key=lambda ended: ended.ended_ns)[-WINDOW:]
    checked = passed + wrong
    life = Metrics(
        quality_permille=PERMILLE * passed // checked if checked else PERMILLE,
        checked=checked,
        lateness_permille=lateness_permille,
        life_completed=life_completed,
        life_failed=life_failed,
    )
    if not last:
        return life
    count = len(last)
    failed = sum(1 for ended in last if ended.ending is not Ending.COMPLETED)
    lost = sum(1 for ended in last if ended.ending is Ending.LOST)
    took = sorted(ended.took_ns for ended in last if ended.took_ns)
    recent = sum(1 for ended in last if now_ns - ended.ended_ns < RATE_NS)
    return replace(
        life,
        attempts=count,
        completed=count - failed,
        failed=failed,
        error_permille=PERMILLE * failed // count,
        mean_ns=sum(took) // len(took) if took else 0,
        p95_ns=took[(95 * len(took) - 1) // 100] if took else 0,
        utilisation_permille=sum(ended.load_permille for ended in last) // count,
        rate_milli=recent * 1_000 * 1_000 * SECOND_NS // RATE_NS,
        availability_permille=PERMILLE * (count - lost) // count,
    )
