"""The workers of the unary contract that this process drives: who is heard of, and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Final

from merit.gateway.door import Door
from merit.gateway.fields import BadField
from merit.gateway.unary.contents import Contents
from merit.gateway.unary.driver import UnaryDriver
from merit.model.limits import SECOND_NS, UNARY_WORKERS_MAX, UNARY_WORKERS_PER_ADDRESS_MAX
from merit.model.workers import Profile, Registration
from merit.ports.blobs import Blobs
from merit.ports.cell import Cell
from merit.wire.unary import PAUSE, RESUME, STOP

log = logging.getLogger("merit")

_LOOK_S: Final = 0.25
_GATHER_S: Final = 0.05
"""What drivers have to tell that can wait is gathered for so long: attempts that begin at many workers come to one record
then, and those that end at once are said to have ended only."""
_LATER_S: Final = 1.0
"""After the cell has given up a worker that is silent its driver does."""
_SLEEP_S: Final = 1.0
"""The loop never takes this long for one turn: if it seems to, the process was stopped."""


class UnaryWorkers:
    """Drives each worker whose registration the state has, from a word of it until it has been silent for too long.

    Args:
        cell: has the registrations.
        door: checks what drivers say of their workers.
        blobs: for large parameters and results.
    """

    def __init__(self, cell: Cell, door: Door, blobs: Blobs) -> None:
        self._cell = cell
        self._door = door
        self._contents = Contents(blobs)
        self._drivers: dict[str, UnaryDriver] = {}
        self._heard: dict[str, tuple[float, int]] = {}
        """By worker: when it said something last, on this process's clock in seconds, and as Unix time."""
        self._closing: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._to_tell: dict[UnaryDriver, None] = {}
        self._coming: dict[str, str] = {}
        """Those that are just being registered, and their addresses."""
        # Whoever was told to pause by the process before may have been resumed since: to be told once too often does no
        # harm.
        self._resume = {name for name, profile in cell.state.profiles.items() if _registered(profile)}

    def start(self) -> None:
        """Take up what is still running at workers that allow it; the others are driven when they are heard of."""
        state = self._cell.state
        for name, profile in state.profiles.items():
            worker = state.workers.get(name)
            if worker is None or profile.removed or profile.registration is None or not profile.registration.reopens:
                continue
            self._hear(name)
            self._drive(name, profile.registration, worker.boot)
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Let go of all of them; what they do goes on there."""
        if self._looking is not None:
            self._looking.cancel()
        for name in list(self._drivers):
            self._drop(name)
        if self._closing:
            await asyncio.wait(self._closing)

    # What workers say

    @contextlib.contextmanager
    def coming(self, worker: str, registration: Registration) -> Iterator[None]:
        """Around the registration of a worker: there is a place for it.

        Raises:
            BadField: there is none; the places of those that are silent are free after a while.
        """
        if worker not in self._drivers:
            others = [driver.registration.address for driver in self._drivers.values()]
            others += [address for name, address in self._coming.items() if name != worker]
            if others.count(registration.address) >= UNARY_WORKERS_PER_ADDRESS_MAX:
                reason = (
                    f"{registration.address} has {UNARY_WORKERS_PER_ADDRESS_MAX} other workers already; register again "
                    f"with an id that you have, or wait until these have been silent for {self._gone_s:.0f} s"
                )
                raise BadField("worker_info.address", reason)
            if len(others) >= UNARY_WORKERS_MAX:
                reason = (
                    f"{UNARY_WORKERS_MAX:,} workers are being dialled, and no more can be; those that open a session "
                    f"(merit worker) are not counted; one that is silent for {self._gone_s:.0f} s leaves its place"
                )
                raise BadField("worker_info.worker_id", reason)
        self._coming[worker] = registration.address
        try:
            yield
        finally:
            self._coming.pop(worker, None)

    def registered(self, worker: str) -> None:
        """Its registration, which the state has, is durable."""
        profile = self._cell.state.profiles.get(worker)
        if profile is None or profile.registration is None or profile.removed:
            return
        self._hear(worker)
        driver = self._drivers.get(worker)
        if driver is not None and not driver.changed(profile.registration):
            self._drop(worker)
        self._drive(worker, profile.registration)

    def heartbeat(self, worker: str) -> list[str] | None:
        """It lives. What it is to be told; None: it has to register (again), since nobody of this id has ever done so, as far
        as is remembered, or there is no place for it."""
        profile = self._cell.state.profiles.get(worker)
        if profile is None or profile.registration is None:
            return None
        if profile.removed:
            return [STOP]
        self._hear(worker)
        driver = self._drive(worker, profile.registration)
        if driver is None:
            # With no place for it, it hears why when it registers again.
            return None if len(self._drivers) >= UNARY_WORKERS_MAX else []
        if driver.left:
            return [STOP]
        said: list[str] = []
        if profile.paused:
            self._resume.add(worker)
            driver.hold()
            said.append(PAUSE)
        elif worker in self._resume:
            self._resume.discard(worker)
            driver.release()
            said.append(RESUME)
        return said + driver.words()

    # What others ask

    def live(self, worker: str) -> bool:
        """Whether it was heard of lately, and has not left."""
        heard, driver = self._heard.get(worker), self._drivers.get(worker)
        if driver is not None and driver.left:
            return False
        return heard is not None and time.monotonic() - heard[0] <= self._stale_s

    def heard_ns(self, worker: str) -> int:
        """When it said something last, Unix time; 0: not to this process, or too long ago."""
        return self._heard.get(worker, (0.0, 0))[1]

    # Inside

    @property
    def _stale_s(self) -> float:
        return self._cell.desk.limits.stale_ns / SECOND_NS

    @property
    def _gone_s(self) -> float:
        """What a worker that has been silent for so long has left behind is lost, and has been given to others."""
        return self._stale_s + self._cell.desk.limits.reconnect_ns / SECOND_NS + _LATER_S

    def _hear(self, worker: str) -> None:
        self._heard[worker] = (time.monotonic(), time.time_ns())

    def _drive(self, worker: str, registration: Registration, boot: str = "") -> UnaryDriver | None:
        driver = self._drivers.get(worker)
        if driver is None:
            if len(self._drivers) >= UNARY_WORKERS_MAX:
                return None
            try:
                driver = UnaryDriver(self._cell, self._door, self._contents, worker, registration, self._gather, boot)
            except BadField as error:
                log.error("unary worker %s cannot be driven until it registers anew: %s", worker, error)
                return None
            self._drivers[worker] = driver
        driver.connect()
        return driver

    def _gather(self, driver: UnaryDriver) -> None:
        if not self._to_tell:
            asyncio.get_running_loop().call_later(_GATHER_S, self._tell)
        self._to_tell[driver] = None

    def _tell(self) -> None:
        to_tell, self._to_tell = self._to_tell, {}
        for driver in to_tell:
            driver.tell()

    def _drop(self, worker: str) -> None:
        driver = self._drivers.pop(worker)
        driver.disconnect()
        closing = asyncio.create_task(driver.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _look(self) -> None:
        before_s = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = time.monotonic()
            slept_s, before_s = now_s - before_s - _LOOK_S, now_s
            if slept_s > _SLEEP_S:
                # This process was stopped, and could hear nobody: that makes no silence of theirs.
                self._heard = {name: (heard_s + slept_s, ns) for name, (heard_s, ns) in self._heard.items()}
            profiles = self._cell.state.profiles
            gone_s = self._gone_s
            for name, (heard_s, _) in list(self._heard.items()):
                silent_s, driver, profile = now_s - heard_s, self._drivers.get(name), profiles.get(name)
                if silent_s > gone_s or profile is None or profile.removed:
                    del self._heard[name]
                    if driver is not None:
                        self._drop(name)
                elif driver is None:
                    continue
                elif silent_s <= self._stale_s:
                    driver.connect()
                    driver.tick()
                elif driver.connected:
                    log.warning("unary worker %s: no heartbeat for %.0f s", name, silent_s)
                    driver.disconnect()


def _registered(profile: Profile) -> bool:
    return profile.registration is not None
