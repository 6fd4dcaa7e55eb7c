"""The capabilities that the benchmarks' workers offer: ``merit worker merit.lab.bench.capabilities``."""

from __future__ import annotations

import time

from merit.sdk.capability import capability


@capability(name="bench.noop")
def noop(x: int = 0) -> int:
    """Give the number back."""
    return x


@capability(name="bench.nap")
def nap(wait_s: float) -> float:
    """Sleep, and give the time back."""
    time.sleep(wait_s)
    return wait_s


@capability(name="bench.began")
def began(wait_s: float = 0.0) -> int:
    """Sleep, and give the time at which it began, Unix nanoseconds."""
    began_ns = time.time_ns()
    if wait_s:
        time.sleep(wait_s)
    return began_ns
