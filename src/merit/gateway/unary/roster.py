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
from merit.gateway.report_check import ReportCheck
from merit.gateway.unary.contents import Contents
from merit.gateway.unary.driver import UnaryDriver
from merit.model.limits import NAME_LENGTH_MAX, SECOND_NS, UNARY_WORKERS_MAX, UNARY_WORKERS_PER_ADDRESS_MAX
from merit.model.workers import Profile, Registration, WorkerState
from merit.ports.blobs import Blobs
from merit.ports.cell import Cell
from merit.wire.unary import PAUSE, RESUME, STOP
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary

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
        check: looks at results.
    """

    def __init__(self, cell: Cell, door: Door, blobs: Blobs, check: ReportCheck) -> None:
        self._cell = cell
        self._door = door
        self._check = check
        self._contents = Contents(blobs)
        self._drivers: dict[str, UnaryDriver] = {}
        self._heard: dict[str, tuple[float, int]] = {}
        """By worker: when it said something last, on this process's clock in seconds, and as Unix time."""
        self._closing: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._to_tell: dict[UnaryDriver, None] = {}
        self._coming: list[tuple[str, str]] = []
        """Those that are just being registered, and their addresses."""
        self._told: dict[str, tuple[str, ...]] = {}
        """By worker: commands of operators in the last answer to it."""
        self._closed = False
        # Whoever was told to pause by the process before may have been resumed since: to be told once too often does no
        # harm.
        self._resume = {name for name, profile in cell.state.profiles.items() if _registered(profile)}

    def start(self) -> None:
        """Take up what is still running at workers that allow it; the others are driven when they are heard of. All that
        were here when the process before this one ended count as heard of now: it could hear them, and nobody can say
        since when they are silent."""
        state = self._cell.state
        for name, profile in state.profiles.items():
            worker = state.workers.get(name)
            if worker is None or profile.removed or profile.registration is None:
                continue
            self._heard[name] = (time.monotonic(), 0)
            if profile.registration.reopens:
                self._drive(name, profile.registration, worker.boot)
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Let go of all of them; what they do goes on there. Whoever calls from now on is told nothing."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
        for name in list(self._drivers):
            self._drop(name, abandons=False)
        if self._closing:
            await asyncio.wait(self._closing)

    # What workers say

    @contextlib.contextmanager
    def coming(self, worker: str, registration: Registration) -> Iterator[None]:
        """Around the registration of a worker: there is a place for it.

        Raises:
            BadField: there is none; the places of those that are silent are free after a while.
        """
        if self._closed:
            raise BadField("worker_info", "the control plane is shutting down; register again in a moment")
        driver = self._drivers.get(worker)
        if driver is None or driver.registration.address != registration.address:
            refused = self._no_place(worker, registration.address)
            if refused is not None:
                raise refused
        coming = (worker, registration.address)
        self._coming.append(coming)
        try:
            yield
        finally:
            self._coming.remove(coming)

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

    def heartbeat(self, worker: str) -> unary.HeartbeatResponse:
        """It lives. The answer: what it is to be told, or why it is given nothing. Only without success it has to register:
        nobody of this id has ever done so, as far as is remembered."""
        profile = self._cell.state.profiles.get(worker)
        if profile is None or profile.registration is None:
            message = f"worker_id: {worker[:NAME_LENGTH_MAX]!r} has not registered; register first"
            return unary.HeartbeatResponse(message=message)
        if profile.removed:
            return unary.HeartbeatResponse(success=True, commands=[STOP])
        known = self._cell.state.workers.get(worker)
        drains = known is not None and known.state is WorkerState.DRAINING
        driver = self._drive(worker, profile.registration, drains=drains)
        if driver is None:
            refused = None if self._closed else self._no_place(worker, profile.registration.address)
            return unary.HeartbeatResponse(success=True, message=str(refused or ""))
        self._hear(worker)
        if driver.left:
            return unary.HeartbeatResponse(success=True, commands=[STOP])
        commands: list[str] = []
        if profile.paused:
            self._resume.add(worker)
            driver.hold()
            commands.append(PAUSE)
        elif worker in self._resume:
            self._resume.discard(worker)
            driver.release()
            commands.append(RESUME)
        self._told.pop(worker, None)
        if profile.words:
            if len(self._told) >= UNARY_WORKERS_MAX:
                del self._told[next(iter(self._told))]  # it is told once more
            self._told[worker] = profile.words
        return unary.HeartbeatResponse(success=True, commands=[*commands, *profile.words])

    def heard(self, worker: str) -> tuple[str, ...]:
        """The commands of operators in the last answer to a worker, which has just said something again: so it has heard
        them, or is the next process of one that has. They are not said twice."""
        return self._told.pop(worker, ())

    def drain(self, worker: str) -> None:
        """A worker that has registered, and is not here as far as the cell knows, says that it is about to end."""
        profile = self._cell.state.profiles.get(worker)
        if profile is None or profile.registration is None or profile.removed:
            return
        self._hear(worker)
        driver = self._drivers.get(worker)
        if driver is None:
            self._drive(worker, profile.registration, drains=True)
        else:
            driver.drain()

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

    def _no_place(self, worker: str, address: str) -> BadField | None:
        """Why a worker cannot be dialled at an address, if it cannot."""
        others = {(name, driver.registration.address) for name, driver in self._drivers.items() if name != worker}
        others.update(coming for coming in self._coming if coming[0] != worker)
        if sum(at == address for _, at in others) >= UNARY_WORKERS_PER_ADDRESS_MAX:
            reason = (
                f"{address} has {UNARY_WORKERS_PER_ADDRESS_MAX} other workers already; register again "
                f"with an id that you have, or wait until these have been silent for {self._gone_s:.0f} s"
            )
            return BadField("worker_info.address", reason)
        if worker not in self._drivers and len({name for name, _ in others}) >= UNARY_WORKERS_MAX:
            reason = (
                f"{UNARY_WORKERS_MAX:,} workers are being dialled, and no more can be; those that open a session "
                f"(merit worker) are not counted; one that is silent for {self._gone_s:.0f} s leaves its place"
            )
            return BadField("worker_info.worker_id", reason)
        return None

    def _drive(
        self, worker: str, registration: Registration, boot: str = "", *, drains: bool = False
    ) -> UnaryDriver | None:
        """Its driver, which asks for a session. ``drains``: if it is a new one, the worker has been draining before; None:
        there is no place for it, or no cell any more."""
        if self._closed:
            return None
        driver = self._drivers.get(worker)
        if driver is None:
            if self._no_place(worker, registration.address) is not None:
                return None
            try:
                driver = UnaryDriver(
                    self._cell, self._door, self._check, self._contents, worker, registration, self._gather, boot
                )
            except BadField as error:
                log.error("unary worker %s cannot be driven until it registers anew: %s", worker, error)
                return None
            self._drivers[worker] = driver
            if drains:
                driver.drain()
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

    def _drop(self, worker: str, *, abandons: bool = True) -> None:
        driver = self._drivers.pop(worker)
        driver.disconnect()
        closing = asyncio.create_task(driver.close(abandons=abandons))
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
