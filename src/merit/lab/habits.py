"""What the people of one simulated world are given to: which tenants there are, and what of the product they use."""

from __future__ import annotations

from random import Random

from merit.model.limits import MILLISECOND_NS
from merit.model.workers import Offer

CAPABILITIES = ("parse", "weigh", "paint")
KEYS = 5
"""Idempotency keys that the clients of a tenant use, again and again."""


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
        """How each capability is offered, by whomsoever."""
