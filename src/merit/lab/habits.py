"""What the people of one simulated world are given to: which tenants there are, what of the product they use, what their
workers are like and what they ask of them."""

from __future__ import annotations

from random import Random

from msgspec import Struct, structs

from merit.allocation.catalogue import BUILT_IN
from merit.model.limits import MILLISECOND_NS
from merit.model.tasks import Demand
from merit.model.workers import Amount, Offer

CAPABILITIES = ("parse", "weigh", "paint")
VERSIONS = ("1.0.0", "1.1.0", "2.0.0")
RANGES = ("==1.0.0", "!=1.0.0", ">=1.1.0", "<2.0.0", ">=1.0.0,<2.0.0", "==2.0.0", ">2.0.0")
TAGS = ("north", "south", "fast")
STRATEGIES = tuple(BUILT_IN)
KEYS = 5
"""Idempotency keys that the clients of a tenant use, again and again."""


class Kit(Struct, frozen=True):
    """What a worker says of itself when it comes."""

    offers: tuple[Offer, ...]
    tags: tuple[str, ...] = ()
    capacity: tuple[Amount, ...] = ()
    tenants: tuple[str, ...] = ()


class Habits:
    """Shares of tasks that ask for something, drawn once for the whole world: most know a few things only, since many
    at once hide each other.

    Args:
        rng: of the world.
    """

    def __init__(self, rng: Random) -> None:
        def some(most: float, share: float = 0.3) -> float:
            return rng.random() * most if rng.random() < share else 0.0

        self.tenants = rng.choice((("default",), ("default",), ("default", "acme"), ("default", "acme", "globex")))
        self.delays = some(0.4)
        self.deadlines = some(0.6, 0.4)
        self.queue_timeouts = some(0.3)
        self.heartbeats = some(0.5)
        self.retry_policies = some(0.6)
        self.unrepeatable = some(0.6)
        self.keys = some(0.9, 0.4)
        self.idempotency_keys = some(0.8)
        self.inputs = some(1.0, 0.5)
        self.despite_dead = some(0.8)
        self.estimates = some(0.5)
        self.follows = some(0.8, 0.5)
        self.operates = rng.random() < 0.7
        """Whether somebody sets limits, pauses queues, plans schedules and looks after dead letters."""
        unsafe = rng.choice(CAPABILITIES) if rng.random() < 0.15 else ""
        watched = rng.choice(CAPABILITIES) if rng.random() < 0.15 else ""
        self.offers = {
            name: Offer(
                name,
                safe_to_repeat=name != unsafe,
                heartbeat_timeout_ns=300 * MILLISECOND_NS if name == watched else 0,
            )
            for name in CAPABILITIES
        }
        """How each capability is offered, by whomsoever, but for what ``kit`` makes of it."""
        self.audits = rng.random() < 0.3
        """Whether somebody sees to it above all that results are looked at."""
        self.governs = self.audits or rng.random() < 0.6
        """Whether somebody pauses, drains, removes and tells workers, sets strategies and probes, introduces versions."""
        self.demands = some(0.9, 0.4)
        self._versions = rng.random() < (0.75 if self.governs else 0.3)
        self._tagged = rng.random() < 0.3
        self._measured = rng.random() < 0.3
        self._crowded = rng.random() < 0.2
        self._walled = some(0.7, 0.5) if len(self.tenants) > 1 else 0.0
        self._stateful = rng.choice(CAPABILITIES) if rng.random() < 0.3 else ""
        if self._stateful:
            self.keys = max(self.keys, 0.5)

    def kit(self, rng: Random, *, whole: bool) -> Kit:
        """What a worker brings; ``whole``: it can do everything, for anybody."""
        offered = CAPABILITIES if whole else rng.sample(CAPABILITIES, rng.randint(1, len(CAPABILITIES)))
        offers = tuple(self._offer(rng, name) for name in sorted(offered))
        tags = tuple(sorted(rng.sample(TAGS, rng.randint(0, 2)))) if self._tagged else ()
        capacity: tuple[Amount, ...] = ()
        if self._measured:
            capacity = (Amount("cpu", rng.choice((1_000, 2_000, 4_000))),)
            if rng.random() < 0.5:
                capacity += (Amount("gpu", rng.choice((1_000, 2_000))),)
        walled = not whole and rng.random() < self._walled
        tenants = tuple(sorted(rng.sample(self.tenants, rng.randint(1, len(self.tenants) - 1)))) if walled else ()
        return Kit(offers, tags, capacity, tenants)

    def _offer(self, rng: Random, name: str) -> Offer:
        return structs.replace(
            self.offers[name],
            version=rng.choice(VERSIONS) if self._versions else VERSIONS[0],
            tags=(rng.choice(TAGS),) if self._tagged and rng.random() < 0.5 else (),
            resources=(Amount("cpu", rng.choice((250, 1_000))),) if self._measured and rng.random() < 0.7 else (),
            concurrency_max=rng.choice((1, 2)) if self._crowded and rng.random() < 0.7 else 0,
            cost_micros=rng.choice((0, 100, 1_000)),
            preference_permille=rng.choice((0, 500, 1_000)),
            stateful=name == self._stateful,
        )

    def demand(self, rng: Random) -> Demand:
        """What a task asks of whoever does it; now and then what nobody has."""
        resources: tuple[Amount, ...] = ()
        if self._measured and rng.random() < 0.6:
            resources = (Amount("cpu", rng.choice((100, 500, 1_000, 2_000, 8_000))),)
            if rng.random() < 0.4:
                resources += (Amount("gpu", 1_000),)
        return Demand(
            versions=rng.choice(RANGES) if self._versions and rng.random() < 0.5 else "",
            worker=f"w{rng.randrange(5)}" if rng.random() < 0.2 else "",
            tags=(rng.choice(TAGS),) if self._tagged and rng.random() < 0.4 else (),
            without_tags=(rng.choice(TAGS),) if self._tagged and rng.random() < 0.3 else (),
            resources=resources,
            strategy=rng.choice((*STRATEGIES, "dice")) if rng.random() < 0.3 else "",
            prefers=(rng.choice(TAGS),) if rng.random() < 0.2 else (),
        )
