"""The clock by which a lease is measured."""

from __future__ import annotations

import time
from typing import Final

# What `time.monotonic` reads stands still on Linux while the machine is suspended, and the lease goes on meanwhile at the
# database. On macOS CLOCK_MONOTONIC is the one that goes on.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_s() -> float:
    """Seconds since some moment of the past, those in which the machine was suspended too. It is never set."""
    return time.clock_gettime(_CLOCK)
