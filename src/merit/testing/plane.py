"""A control plane for tests: the real one, with bounds and times of the test's choice, that may end itself by kill -9 at
the n-th thing which it does to a file.

    python -m merit.testing.plane STATE HOST:PORT [FAULTS as JSON]
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from merit.app import stores
from merit.app.control_plane import Settings
from merit.app.follower import SNAPSHOT_EVENTS
from merit.app.node import run_until_signal
from merit.gateway.server import CannotListen
from merit.kernel.quarantine import Stopped
from merit.model.limits import Limits
from merit.model.record import JournalError
from merit.model.retention import Retention
from merit.ports.journal import LEASE_S
from merit.storage import sqlite_journal
from merit.storage.sqlite_journal import SqliteJournal
from merit.testing.sqlite_faults import FileStep, WatchedVfs

READY = "READY "
"""Followed by the address and the epoch, on a line of its own, when everything is up."""
STANDBY = "STANDBY "
"""Followed by the name of the leader, when a node stands by."""
EXIT_JOURNAL = 3
"""Exit code when the journal could not be led or written."""
EXIT_DEFECT = 4
"""Exit code when the cell met a defect and set its cause aside."""


class PlaneFaults(msgspec.Struct, kw_only=True, frozen=True):
    """What a control plane under test is given. ``die_at``: it kills itself before its n-th write, sync, truncation or
    removal (of the journal, of its log, of blobs), counted from its start; 0: never. With ``torn`` a
    write is half done then. ``log_bytes``: length of the write-ahead log at which it is copied into the journal's file.
    ``store``: of a node; of a database that is open to all, since everybody sees it.
    """

    limits: Limits = Limits()
    die_at: int = 0
    torn: bool = False
    log_bytes: int = sqlite_journal.WAL_BYTES_DUE
    snapshot_events: int = SNAPSHOT_EVENTS
    retention: Retention = Retention()
    store: str = ""
    lease_s: float = LEASE_S


class _Countdown:
    """Ends the process at the step that it was given."""

    def __init__(self, faults: PlaneFaults) -> None:
        self._left = faults.die_at
        self._torn = faults.torn

    def watch(self, step: FileStep, perform: Callable[[bytes], None]) -> None:
        """For a ``WatchedVfs``."""
        if self._due():
            if self._torn and step.kind == "write":
                perform(step.data[: len(step.data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        perform(step.data)

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call`` as one more kind of step."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            if self._due():
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted

    def _due(self) -> bool:
        self._left -= 1
        return self._left == 0


def main(state: str, address: str, faults_json: str = "{}") -> int:
    """Run until SIGTERM; the exit code. Says ``READY HOST:PORT EPOCH`` when it is up."""
    faults = msgspec.json.decode(faults_json, type=PlaneFaults)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
    # A constant to everybody but tests, which cannot wait for so much.
    vars(sqlite_journal)["WAL_BYTES_DUE"] = faults.log_bytes
    if faults.die_at:
        countdown = _Countdown(faults)
        vfs = WatchedVfs("watched", countdown.watch)
        # The control plane opens its journal by this name; there is no setting for a file system that kills.
        vars(stores)["SqliteJournal"] = partial(SqliteJournal, vfs="watched")
        os.fsync = countdown.before(os.fsync)
        Path.replace = countdown.before(Path.replace)  # type: ignore[method-assign]  # renames are steps too
        _KEPT.append(vfs)
    settings = Settings(
        state=Path(state),
        grpc=address,
        limits=faults.limits,
        retention=faults.retention,
        snapshot_events=faults.snapshot_events,
        store=faults.store,
        lease_s=faults.lease_s,
    )
    try:
        asyncio.run(_run(settings))
    except JournalError as error:
        _say(f"journal: {error}")
        return EXIT_JOURNAL
    except Stopped as error:
        _say(f"stopped: {error}")
        return EXIT_DEFECT
    except CannotListen as error:
        _say(f"listen: {error}")
        return 1
    return 0


async def _run(settings: Settings) -> None:
    def ready(where: str, epoch: int) -> None:
        _say(f"{READY}{where} {epoch}")

    await run_until_signal(settings, ready, lambda leader: _say(f"{STANDBY}{leader}"))


def _say(line: str) -> None:
    """To the test that started this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


_KEPT: list[WatchedVfs] = []
"""A file system is registered as long as it lives."""

if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
