"""What the gateway asks of the follower, which keeps the read model beside the cell: how far it is, and to be told."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class FollowerStanding(Struct, frozen=True):
    """How the follower is doing."""

    sequence: int = 0
    """Up to which the read model knows everything."""
    time_ns: int = 0
    """When the event with this sequence happened."""
    lag_events: int = 0
    """How many durable events it does not know yet."""
    lag_s: float = 0.0
    """For how long it has not known all of them."""
    snapshot: int = 0
    """Sequence of the latest snapshot."""
    journal_first: int = 1
    """Sequence with which the journal begins."""
    alarms: tuple[str, ...] = ()
    """What is wrong with it, in sentences that say what to do; empty: nothing."""


class Following(Protocol):
    """The follower as the cell's process sees it."""

    def standing(self) -> FollowerStanding:
        """Now."""
        ...

    async def reached(self, sequence: int, timeout_s: float) -> bool:
        """Wait until the read model knows the event ``sequence``; False: it does not within the time."""
        ...
