"""Has a low priority (`nice`) count for a process that leads a session of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path

_GROUP = Path("/proc/self/autogroup")
_TRIES = 20
_AGAIN_S = 0.11


def keep_behind() -> None:
    """Put the group of this process as far behind as the process itself was put when it was started.

    Where Linux groups processes by session (`sched_autogroup`, usual on desktops), priorities count inside of a group only, and
    all groups get the same; but a group has a priority of its own. Workers and their child processes lead sessions. Does nothing
    for who leads none, since the group is not its own then, and where there are no such groups.
    """
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if nice <= 0 or os.getsid(0) != os.getpid():
        return
    try:
        for _ in range(_TRIES):
            with _GROUP.open("wb", buffering=0) as group:
                # None: not now. One such change in a tenth of a second is taken, from all processes together.
                if group.write(b"%d" % nice) is not None:
                    return
            time.sleep(_AGAIN_S)
    except OSError:
        return
