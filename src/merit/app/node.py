"""One of several processes of which one leads: the others stand by, and one of them takes over when it does not go on.

A node is standby, and leads for a term, and is standby again. Standing by it folds the journal along and asks for the lead
four times a second; it does not listen, so that whoever comes goes elsewhere at once. A term ends when it is asked to, when
somebody else leads by now, or at any doubt; nothing of it is kept, since the journal has all that counts. What stopped it is
set aside where all nodes look, so that the next leader refuses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from typing import Final, Protocol

from merit.app.control_plane import ControlPlane, Ready, Settings
from merit.app.lease import Lease
from merit.app.standby import WarmState
from merit.app.stores import Stores, shared_stores
from merit.gateway.server import CannotListen, check_free
from merit.kernel.quarantine import Stopped
from merit.model.record import JournalCorrupt, JournalError, JournalForeign, Tail
from merit.ports.archive import ArchiveUnavailable
from merit.ports.blobs import BlobError
from merit.ports.journal import JournalUnavailable, LeaderElsewhere, LeasedJournal
from merit.ports.read_model import ReadModelError
from merit.ports.snapshots import SnapshotUnavailable
from merit.runtime.elapsed import elapsed_s
from merit.sdk.channel import Backoff

log = logging.getLogger("merit")

POLL_S: Final = 0.25
"""How often a standby looks for what has come, and asks for the lead."""
_AGAIN_S_MAX: Final = 5.0

Standby = Callable[[str], None]
"""Is told who leads, when it is somebody else."""

_PASSING: Final = (
    JournalError,
    SnapshotUnavailable,
    BlobError,
    ArchiveUnavailable,
    ReadModelError,
    CannotListen,
    Stopped,
)
"""Because of which a node does not lead now, or no more."""
_DAMAGED: Final = (JournalCorrupt, JournalForeign)


class LeasedStores(Stores, Protocol):
    """Stores that several nodes share."""

    def journal(self) -> LeasedJournal:
        """See ``Stores``."""
        ...


async def run_until_signal(
    settings: Settings, ready: Ready = lambda *_: None, standby: Standby = lambda *_: None
) -> None:
    """Run a control plane, or with a store a node, until SIGTERM or SIGINT.

    Raises:
        ValueError: the store is none.
        Exception: what ``ControlPlane.run`` and ``Node.run`` raise.
    """
    plane: ControlPlane
    if not settings.store:
        plane = ControlPlane(settings)
        _stop_on_signals(plane)
        await plane.run(ready)
        return
    stores = await asyncio.to_thread(shared_stores, settings.state, settings.store, settings.lease_s)
    try:
        plane = ControlPlane(settings, stores)
        _stop_on_signals(plane)
        await Node(plane, stores).run(ready, standby)
    finally:
        await asyncio.to_thread(stores.close)


def _stop_on_signals(plane: ControlPlane) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, plane.stop)


class Node:
    """``run`` it; stop it by its control plane.

    Args:
        plane: what it is while it leads.
        stores: those of the control plane.
    """

    def __init__(self, plane: ControlPlane, stores: LeasedStores) -> None:
        self._plane = plane
        self._stores = stores
        self._found = False
        """Whether the database was ever found in order: before that whoever starts this hears what is wrong."""
        self._leader = ""
        """The last one that was told."""

    async def run(self, ready: Ready, standby: Standby) -> None:
        """Stand by and lead until the control plane is stopped.

        Args:
            ready: as for ``ControlPlane.run``; called in each term.
            standby: called with the name of the leader while that is another one, once for each.

        Raises:
            JournalCorrupt, JournalForeign: the journal is damaged, or not this cell's.
            JournalError: the stores could not be used at the very start; later on they are waited for.
            CannotListen: the address cannot be had at the very start; later on it is waited for.
        """
        check_free(self._plane.grpc)
        backoff = Backoff(POLL_S, _AGAIN_S_MAX)
        while not self._plane.stopping.is_set():
            began_s = time.monotonic()
            try:
                await self._turn(ready, standby)
            except _DAMAGED:
                raise
            except _PASSING as error:
                if not self._found and not isinstance(error, LeaderElsewhere):  # who makes the tables just now
                    raise
                level = logging.ERROR if isinstance(error, Stopped) else logging.WARNING
                log.log(level, "this node does not lead, and stands by: %s", error)
            if time.monotonic() - began_s > _AGAIN_S_MAX:
                backoff.reset()
            await self._pause(backoff.next_s())

    async def _turn(self, ready: Ready, standby: Standby) -> None:
        """Stand by, and lead for one term. Raises whatever ends either."""
        journal = await asyncio.to_thread(self._stores.journal)
        try:
            warm = WarmState(journal, self._stores.snapshots())
            led = await self._stand_by(journal, warm, standby)
            if led is None:
                return
            tail, since_s = led
            lease = Lease(journal, since_s)
            try:
                while await asyncio.to_thread(warm.step, tail):
                    lease.check()
                await self._plane.lead(journal, tail, warm.taken(tail), ready, lease)
            finally:
                await lease.end()
        finally:
            await asyncio.to_thread(journal.close)

    async def _stand_by(self, journal: LeasedJournal, warm: WarmState, standby: Standby) -> tuple[Tail, float] | None:
        """Fold along until this node leads: the tail, and when it asked for the lead. None: it is to stop."""
        backoff = Backoff(POLL_S, _AGAIN_S_MAX)
        while not self._plane.stopping.is_set():
            try:
                if await asyncio.to_thread(warm.step):
                    continue
                since_s = elapsed_s()
                tail = await asyncio.to_thread(journal.lead, self._plane.holder, time.time_ns())
            except LeaderElsewhere as elsewhere:
                self._found = True
                if elsewhere.holder and elsewhere.holder != self._leader:
                    self._leader = elsewhere.holder
                    log.info("standby: %s leads", elsewhere.holder)
                    standby(elsewhere.holder)
                backoff.reset()
                await self._pause(POLL_S)
            except JournalUnavailable as error:
                if not self._found:
                    raise
                log.warning("standby: %s", error)
                await self._pause(backoff.next_s())
            else:
                self._found, self._leader = True, ""
                return tail, since_s
        return None

    async def _pause(self, pause_s: float) -> None:
        """Wait, unless it is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._plane.stopping.wait(), pause_s)
