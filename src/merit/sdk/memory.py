"""Peak memory, measured cheaply: of this process, or of one attempt in a process of its own."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil

SAMPLE_NS = 50_000_000
SHORT_NS = 1_000_000

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class MemoryGauge:
    """Peak resident bytes of this process, read at most every 50 ms: reading costs more than a small task does."""

    __slots__ = ("_peak_bytes", "_stale_ns")

    def __init__(self) -> None:
        self._peak_bytes = 0
        self._stale_ns = 0

    def peak_bytes(self, now_ns: int, wall_ns: int) -> int:
        """The peak at the end, `now_ns` of time.perf_counter_ns(), of an attempt that took `wall_ns`."""
        if now_ns >= self._stale_ns:
            self._stale_ns = now_ns + SAMPLE_NS
            self._peak_bytes = resident_bytes()[0]
        return self._peak_bytes


class AttemptGauge(MemoryGauge):
    """Peak resident bytes of one attempt after the other, where only one runs at a time.

    On Linux the peak is reset after each reading. Elsewhere the system keeps one for the life of the process: if it rose, it
    is the attempt's; if not, the size at the end is the best that is known. Attempts below 1 ms are given the size at the
    last reading.
    """

    __slots__ = ("_highest_bytes", "_now_bytes")

    def __init__(self) -> None:
        super().__init__()
        self._highest_bytes = 0
        self._now_bytes = 0
        self._read()

    def peak_bytes(self, now_ns: int, wall_ns: int) -> int:
        """As above."""
        if wall_ns < SHORT_NS and now_ns < self._stale_ns:
            return self._now_bytes
        self._stale_ns = now_ns + SAMPLE_NS
        return self._read()

    def _read(self) -> int:
        peak_bytes, self._now_bytes = resident_bytes()
        if _reset():
            return peak_bytes
        risen = peak_bytes > self._highest_bytes
        self._highest_bytes = max(peak_bytes, self._highest_bytes)
        return peak_bytes if risen else self._now_bytes


def resident_bytes() -> tuple[int, int]:
    """Resident size of this process: its peak, and now."""
    if sys.platform == "linux":
        # Not ru_maxrss: it begins with the size of the process that started this one, across the exec.
        sizes: dict[bytes, int] = {}
        for line in _STATUS.read_bytes().splitlines():
            if line.startswith((b"VmHWM:", b"VmRSS:")):
                name, number, _ = line.split()
                sizes[name] = int(number) * 1024
        if len(sizes) == 2:
            return sizes[b"VmHWM:"], sizes[b"VmRSS:"]
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    now_bytes = int(psutil.Process().memory_info().rss)
    return max(now_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes), now_bytes


def _reset() -> bool:
    """Let the peak begin again at the size of now; False where the system cannot."""
    try:
        _CLEAR.write_bytes(b"5")
    except OSError:
        return False
    return True
