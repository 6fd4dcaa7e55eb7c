"""Ties a process to the one that started it: when that one is gone, however it went, so is this one.

Who starts a process puts its own id into the environment (`tethered`); the started program calls `tether` first thing.
On Linux the kernel does the rest; elsewhere a thread looks.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import Final

VARIABLE: Final = "MERIT_TETHER"
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_LOOK_S: Final = 0.5


def tethered() -> dict[str, str]:
    """The environment for a process that is to end with this one."""
    return {**os.environ, VARIABLE: str(os.getpid())}


def tether() -> None:
    """End with the process that asked for it; does nothing if nobody did."""
    # Taken out, since what this process starts is not tied to the same one.
    parent = os.environ.pop(VARIABLE, "")
    if not parent.isdecimal():
        return
    if sys.platform != "linux" or not _ask_kernel():
        threading.Thread(target=_watch, args=(int(parent),), name="merit-tether", daemon=True).start()
    if os.getppid() != int(parent):  # it went before it could be watched
        os.kill(os.getpid(), signal.SIGKILL)


def _ask_kernel() -> bool:
    try:
        answer: int = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):  # no prctl in this C library
        return False
    return answer == 0


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGKILL)
