"""The control plane's side of the follower: starts it, hears how far it is, starts it again when it dies.

Whatever the follower does or does not do, the cell goes on. What is wrong with it is an alarm, in the log and in the status.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import time
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from merit.app.follower import SNAPSHOT_EVENTS_AT_END, FollowerOrders, FollowerReport
from merit.app.stores import Stores
from merit.pools.tether import tethered
from merit.ports.following import FollowerStanding

log = logging.getLogger("merit")

LAG_S_MAX: Final = 300.0
LAG_EVENTS_MAX: Final = 10_000_000
"""Further behind than one of these it is not in order; from half of it on it takes its share of the processors. Until then a
machine that has nothing left but for the cell may go on like that: what the follower takes, the cell does not get."""
STOP_S: Final = 10.0
"""How long it may take to end when asked to, with a snapshot; after that it is killed, which loses time at most."""
_FIRST_S: Final = 0.2
_LAST_S: Final = 30.0
_LIVED_S: Final = 10.0
_MARK_S: Final = 0.25
_MARKS_MAX: Final = 1_000
_LINE_BYTES_MAX: Final = 1024 * 1024


class FollowerProcess:
    """Implements ``merit.ports.following.Following``. ``run`` it in a task, ``look`` now and then, and ``stop`` it.

    Args:
        stores: which it follows.
        orders: what it is told.
        durable: the last sequence of the cell.
        command: what is run, before the orders.
    """

    def __init__(
        self,
        stores: Stores,
        orders: FollowerOrders,
        durable: Callable[[], int],
        command: tuple[str, ...] = (sys.executable, "-m", "merit.app.follow"),
    ) -> None:
        self._stores = stores
        self._orders = orders
        self._durable = durable
        self._command = command
        self._said = FollowerReport(0, 0, 0, 0, 1, 0, False, {})
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._hurries = False
        """Whether the process that runs takes its share of the processors."""
        self._changing_since_s: float | None = None
        """When it was asked to end so that another one, which hurries, takes its place."""
        self._down = ""
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._marks: deque[tuple[float, int]] = deque()
        """When the cell had come how far, of what the follower does not know yet."""
        self.beside: dict[str, str] = {}
        """Alarms of whoever does what it says, by what they are about: told with its own."""
        self._told: set[str] = set()
        """The alarms that are in the log."""

    # What others ask

    @property
    def compact(self) -> int:
        """All before this sequence may leave the journal."""
        return self._said.compact

    def standing(self) -> FollowerStanding:
        """See ``Following.standing``."""
        said = self._said
        return FollowerStanding(
            said.sequence,
            said.time_ns,
            self._lag_events(),
            self._lag_s(),
            said.snapshot,
            said.journal_first,
            tuple(self._alarms().values()),
        )

    async def reached(self, sequence: int, timeout_s: float) -> bool:
        """See ``Following.reached``."""
        if self._said.sequence >= sequence:
            return True
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = sequence
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            del self._waiting[future]
        return True

    # Its life

    async def run(self) -> None:
        """Keep a follower running until ``stop``."""
        again_s = _FIRST_S
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                how = await self._one_life()
            except OSError as error:  # no memory or no process to be had just now
                how = f"could not be started ({error})"
            except Exception as error:  # whatever it is: the cell goes on, and somebody has to hear of it
                log.exception("the follower cannot be kept going")
                how = f"cannot be kept going ({error!r})"
            if self._stopping.is_set():
                return
            if self._changing_since_s is not None:
                self._hurries, self._changing_since_s = True, None
                continue
            if time.monotonic() - began_s >= _LIVED_S:
                again_s = _FIRST_S
            self._hurries = False
            self._down = (
                f"the follower {how}, and is started again: until it has caught up, what has become final cannot be searched, "
                f"no snapshots are taken, and the journal is not compacted; the log says why it ended"
            )
            self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), again_s * random.uniform(0.5, 1.0))
            again_s = min(_LAST_S, again_s * 2)

    async def stop(self) -> None:
        """Have it end; it has ended when this returns.

        It may be killed at any time. Only for a snapshot that spares the next start much is it asked to end and waited for,
        since it gets there late when others want the processors.
        """
        self._stopping.set()
        process = self._process
        if process is None:
            return
        if self._durable() - self._said.snapshot >= SNAPSHOT_EVENTS_AT_END and self._said.sequence:
            _tell(process, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_S)
                return
            log.warning("the follower did not end within %.0f s and is killed: the next start takes longer", STOP_S)
        _tell(process, signal.SIGKILL)
        await process.wait()

    def look(self) -> None:
        """Measure how far behind it is, do something about it, and log what has changed. Costs next to nothing."""
        now_s = time.monotonic()
        marks, durable = self._marks, self._durable()
        while marks and marks[0][1] <= self._said.sequence:
            marks.popleft()
        if durable > self._said.sequence and (
            not marks or (now_s - marks[-1][0] >= _MARK_S and durable > marks[-1][1])
        ):
            marks.append((now_s, durable))
            if len(marks) > _MARKS_MAX:
                # Ever coarser in the past: the first one counts, and those that come to be the first.
                self._marks = deque(mark for place, mark in enumerate(marks) if place % 2 == 0)
        if self._changing_since_s is not None:
            if now_s - self._changing_since_s > STOP_S and self._process is not None:
                _tell(self._process, signal.SIGKILL)
        elif self._process is not None and not self._hurries and self._is_behind(0.5):
            log.info(
                "the follower is far behind: another one takes its place, at the usual priority until it has caught up"
            )
            self._changing_since_s = now_s
            _tell(self._process, signal.SIGTERM)
        alarms = self._alarms()
        for about in alarms.keys() - self._told:
            log.warning("%s", alarms[about])
        for about in self._told - alarms.keys():
            log.info("the follower: %s: in order again", about)
        self._told = set(alarms)

    async def _one_life(self) -> str:
        """How it ended, as a predicate."""
        orders = msgspec.json.encode(replace(self._orders, hurry=self._hurries)).decode()
        process = self._process = await asyncio.create_subprocess_exec(
            *self._command,
            orders,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES_MAX,
            env={**tethered(), **self._stores.environment()},
        )
        assert process.stdout is not None
        try:
            if self._stopping.is_set():
                _tell(process, signal.SIGKILL)  # `stop` has not seen it any more; it has done nothing yet
            async for line in process.stdout:
                self._hear(msgspec.json.decode(line, type=FollowerReport))
        except ValueError as error:  # also a line that is too long
            _tell(process, signal.SIGKILL)
            return f"said what is no report ({error})"
        finally:
            if not self._stopping.is_set():
                # It has closed its stdout, or this is cut off: either way nobody hears it any more.
                _tell(process, signal.SIGKILL)
            code = await process.wait()
            self._process = None
        return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def _hear(self, said: FollowerReport) -> None:
        self._said, self._down = said, ""
        for future, sequence in self._waiting.items():
            if sequence <= said.sequence and not future.done():
                future.set_result(None)
        self._hurries = said.hurries

    # How it is doing

    def _lag_events(self) -> int:
        return max(0, self._durable() - self._said.sequence)

    def _lag_s(self) -> float:
        since_s = next((at_s for at_s, sequence in self._marks if sequence > self._said.sequence), None)
        return 0.0 if since_s is None else time.monotonic() - since_s

    def _is_behind(self, share: float) -> bool:
        return self._lag_events() > share * LAG_EVENTS_MAX or self._lag_s() > share * LAG_S_MAX

    def _alarms(self) -> dict[str, str]:
        """What is wrong, by what it is about."""
        alarms = {**self._said.alarms, **self.beside}
        if self._down:
            alarms["down"] = self._down
        if self._is_behind(1):
            alarms["lag"] = (
                f"the follower is {self._lag_events():,} events and {self._lag_s():,.0f} s behind: final tasks are found late, "
                f"and starts take longer; it needs more of the processors or of the disk"
            )
        return alarms


def _tell(process: Process, number: signal.Signals) -> None:
    """Signal a process that may be gone by now. Not by its own method, which may find out that it is gone and then keeps the
    exit code from those who wait for it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
