"""A worker whose functions note each execution in a file, so that it can be counted from outside:
`fleet.py SERVER NAME FILE`."""

import os
import sys
import time
from functools import partial

from merit import Context, capability, serve
from merit.sdk import worker as sdk_worker
from merit.sdk.channel import Backoff


def note(context: Context) -> None:
    """One line, in one write, so that lines of several processes do not mix; a kill after it loses nothing."""
    with open(sys.argv[3], "ab", buffering=0) as file:  # noqa: PTH123 (its shortest form, in a hot place)
        file.write(f"{context.task} {context.attempt_number} {sys.argv[2]} {os.getpid()}\n".encode())


@capability
def double(n: int, context: Context) -> int:
    note(context)
    return 2 * n


@capability
def lengthen(text: str, times: int, context: Context) -> str:
    """With parameters and results too large for a stream."""
    note(context)
    return text * times


@capability
def measure(text: str, context: Context) -> int:
    note(context)
    return len(text)


@capability
def boom(n: int, context: Context) -> int:
    note(context)
    raise ValueError(f"no {n}")


@capability
def nap(seconds: float, context: Context) -> float:
    note(context)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        context.check_cancelled()
        time.sleep(0.005)
    return seconds


@capability
def poison(context: Context, seconds: float = 0.0) -> float:
    """Harmless here: see poisoned_plane.py."""
    note(context)
    time.sleep(seconds)
    return seconds


if __name__ == "__main__":
    # Tests restart what they killed at once; a worker that waits seconds before it looks again only costs time.
    vars(sdk_worker)["Backoff"] = partial(Backoff, 0.02, 0.3)
    serve(server=sys.argv[1], name=sys.argv[2], concurrency=8)
