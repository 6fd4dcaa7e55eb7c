"""The follower in a process of its own: ``python -m merit.app.follow`` and the argument of ``main``. It is started by
``merit.app.following``, beside the running cell, which it does not slow; and it ends with whoever started it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import msgspec

from merit.pools.tether import tether

if TYPE_CHECKING:
    from merit.app.follower import JournalFollower

log = logging.getLogger("merit")

_POLL_S: Final = 0.1
"""How often it looks for what is new, and how often it says how far it is."""
_OWN_SHARE: Final = 0.5
"""Who works for less than this part of the time is kept waiting by others, …"""
_PAUSES: Final = 4.0
"""… and leaves them alone for so many times as long."""
_PAUSE_S_MAX: Final = 5.0


def stand_back() -> None:
    """Run only when nobody else wants the processor: at the usual lowest priority the tail of the cell's latency was four
    times as long while this ran beside it on two cores. There is no way back for a process without rights."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main(orders_json: str) -> int:
    """Follow until SIGTERM; the exit code. What it says on stdout are ``FollowerReport`` as JSON, each on a line.

    Args:
        orders_json: ``FollowerOrders`` as JSON.
    """
    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    tether()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the control plane, which then asks this one to end
    if not msgspec.json.decode(orders_json).get("hurry"):
        stand_back()
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s follower: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    # Not before it stands back: reading all of this is the first thing by which it could be in the way.
    from merit.app.follower import FollowerOrders, JournalFollower
    from merit.app.stores import stores_of_environment
    from merit.core.codec import UnreadableEvent
    from merit.core.lifecycles import IllegalTransition
    from merit.model.record import JournalError
    from merit.ports.archive import ArchiveUnavailable
    from merit.ports.read_model import ReadModelError
    from merit.ports.snapshots import SnapshotUnavailable
    from merit.storage.key_file import KeyFile

    orders = msgspec.json.decode(orders_json, type=FollowerOrders)
    try:
        with ExitStack() as opened:
            stores = opened.enter_context(contextlib.closing(stores_of_environment()))
            reader = opened.enter_context(contextlib.closing(stores.reader()))
            archive = opened.enter_context(contextlib.closing(stores.archive()))
            read_model = opened.enter_context(contextlib.closing(stores.read_model()))
            signer = KeyFile(stores.directory.key)
            _follow(
                JournalFollower(reader, stores.snapshots(), archive, read_model, signer, orders, blobs=stores.blobs()),
                orders.hurry,
                lambda: stopping,
            )
    except BrokenPipeError:
        pass  # nobody listens any more
    except (JournalError, ReadModelError, SnapshotUnavailable, ArchiveUnavailable, UnreadableEvent) as error:
        log.error("%s", error)
        return 1
    except (IllegalTransition, OSError, ValueError) as error:
        log.exception("%s", error)
        return 1
    return 0


def _follow(follower: JournalFollower, hurries: bool, is_stopping: Callable[[], bool]) -> None:
    said, said_s = b"", 0.0

    def say() -> None:
        nonlocal said, said_s
        line = msgspec.json.encode(follower.report(hurries)) + b"\n"
        if line != said:
            said, said_s = line, time.monotonic()
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()

    follower.begin(is_stopping)
    if is_stopping():
        return
    _settle_memory()
    while not is_stopping():
        began_s, worked_s = time.monotonic(), time.process_time()
        more = follower.step()
        took_s, worked_s = time.monotonic() - began_s, time.process_time() - worked_s
        if not more and hurries:
            hurries = False
            log.info("it has caught up, and stands back again")
            stand_back()
        if time.monotonic() - said_s >= _POLL_S:
            say()
        if not more:
            time.sleep(_POLL_S)
        elif not hurries and worked_s < _OWN_SHARE * took_s:
            _pause(min(_PAUSES * took_s, _PAUSE_S_MAX), is_stopping)
    follower.end()
    say()


def _pause(wait_s: float, is_stopping: Callable[[], bool]) -> None:
    """Others want the processors. Even what nobody else wants of them costs those who share their caches and their disk."""
    until_s = time.monotonic() + wait_s
    while not is_stopping() and (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(left_s, _POLL_S))


def _settle_memory() -> None:
    """As the control plane does: what is there stays, and nothing that is made in numbers has cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
