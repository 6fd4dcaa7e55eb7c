"""Simulated followers: the real one, in a process that is slow, dies between any two writes, and may have a rival."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from merit.app import follower
from merit.app.follower import FollowerOrders, FollowerReport, JournalFollower
from merit.lab.disk import SimulatedDisk, SimulatedReader
from merit.lab.instead import instead
from merit.lab.kept import Kept, SometimesSigns
from merit.lab.mortal import Killed, LaterJobs, Mortal
from merit.lab.violation import Violation
from merit.lab.world import World
from merit.model.record import JournalCorrupt
from merit.ports.journal import JournalCompacted
from merit.ports.read_model import Superseded

Written = dict[str, Callable[..., None]]


class SimulatedFollower:
    """One process.

    Args:
        world: where it lives.
        disk: has the journal.
        kept: what it writes.
        orders: what it is told.
        clock: of its machine.
        written: by name of each write of any port: who looks at it.
        said: is told how far it is.
        ended: is called when it is gone.
    """

    def __init__(
        self,
        world: World,
        disk: SimulatedDisk,
        kept: Kept,
        orders: FollowerOrders,
        clock: Callable[[], int],
        written: Written,
        said: Callable[[FollowerReport], None],
        ended: Callable[[SimulatedFollower], None],
    ) -> None:
        self._world = world
        self._said = said
        self._ended = ended
        self._jobs = LaterJobs()
        self._reader = SimulatedReader(disk, lambda: world.chance(world.weather.misread, "record misread"))
        self._begun = False
        self._keyless_until_ns = 0
        self._patience = world.rng.choice((30, 150, 600))
        self.alive = True
        self.rivaled = False
        """There was somebody else at the same work."""

        def mortal(port: object, *writes: str, fate: Callable[[str], None] = self._fate) -> Any:
            return Mortal(port, fate, {name: written[name] for name in writes})

        with instead(follower, "ThreadPoolExecutor", lambda *_: self._jobs):
            self._follower = JournalFollower(
                self._reader,
                mortal(kept.snapshots, "save", "drop", fate=self._fate_of_job),
                mortal(kept.archive, "add_anchor", "add_segment"),
                mortal(kept.read_model, "write", "forget", fate=self._fate_of_job),
                SometimesSigns(kept.signer, self._is_keyless),
                orders,
                clock,
            )
        world.after(world.between(0.1, 30), "follower starts", self._step)

    def kill(self) -> None:
        """It is gone at once."""
        if self.alive:
            self.alive = False
            self._ended(self)

    def _fate(self, when: str) -> None:
        world = self._world
        if world.chance(world.weather.follower_crash, f"follower killed {when}"):
            raise Killed(when)

    def _fate_of_job(self, when: str) -> None:
        if self._jobs.failed:
            raise Violation("follower", "", f"goes on behind a job that failed: {when}")
        self._fate(when)

    def _is_keyless(self) -> bool:
        """The key is away for a while now and then."""
        world = self._world
        if world.chance(world.weather.no_key, "key not to be had"):
            self._keyless_until_ns = world.now_ns + world.between(100, 1_000)
        return world.now_ns < self._keyless_until_ns

    def _step(self) -> None:
        if not self.alive:
            return
        world = self._world
        try:
            more = self._go_on()
        except Killed:
            self.kill()
            return
        except (Superseded, JournalCompacted) as error:
            # What it needs was removed, or written, for somebody else who is further than it is.
            if not self.rivaled:
                raise Violation("follower", "", f"without a rival: {error!r}") from error
            world.coverage[f"follower ended: {type(error).__name__}"] += 1
            self.kill()
            return
        except JournalCorrupt as error:
            if not self._reader.misread:
                raise Violation("follower", "", f"what was written is not what is read: {error}") from error
            world.coverage["follower ended: JournalCorrupt"] += 1
            self.kill()
            return
        except Violation:
            raise
        except Exception as error:
            raise Violation("follower", "", f"{type(error).__name__}: {error}") from error
        if self.alive:
            if world.chance(world.weather.follower_lag, "follower lags"):
                wait_ns = world.between(200, 1_500)
            else:
                wait_ns = world.between(0.1, 5) if more else world.between(10, self._patience)
            world.after(wait_ns, "follower goes on", self._step)

    def _go_on(self) -> bool:
        world, one = self._world, self._follower
        self._fate("between steps")
        if not self._begun:
            self._begun = True
            one.begin()
            return True
        if world.chance(world.weather.follower_crash, "follower ends in an orderly way"):
            one.end()
            self.kill()
            return False
        more = one.step()
        for _ in range(world.rng.randrange(4)):
            self._jobs.do_one()
        self._said(one.report())
        return more
