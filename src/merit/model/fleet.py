"""What an operator may set for the fleet: who chooses, who is admitted, which version gets how much."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct

from merit.model.workers import PERMILLE


class Weight(Struct, frozen=True, array_like=True, gc=False):
    """How much a figure counts in a strategy that weighs several, in thousandths."""

    name: str
    permille: int


class Allocation(Struct, frozen=True, array_like=True, gc=False):
    """How workers are chosen for the tasks of a capability; ``capability`` empty: of all that have none of their own."""

    capability: str
    strategy: str
    """Empty: as for all others; for the system as a whole: the default."""
    weights: tuple[Weight, ...] = ()
    """Of the strategy's figures; those not named have its defaults."""


class Probe(Struct, frozen=True, array_like=True, gc=False):
    """A small known task. ``expected`` is the JSON of the right result; empty: any that the output schema allows."""

    parameters: bytes
    expected: bytes = b""
    run_timeout_ns: int = 30_000_000_000


class Admission(Struct, frozen=True, array_like=True, gc=False):
    """What a worker has to do right before it gets tasks of a capability; no probes: nothing."""

    capability: str
    probes: tuple[Probe, ...] = ()


class RolloutState(IntEnum):
    """Where the introduction of a version has come to; the numbers are those of the wire."""

    RUNNING = 1
    """The version gets its share."""
    PROMOTED = 2
    """It, and later ones, get everything."""
    ABORTED = 3
    """It gets nothing."""


class Tally(Struct, array_like=True, gc=False):
    """What came of attempts."""

    completed: int = 0
    failed: int = 0
    took_ns: int = 0
    """All completed ones together."""


class Rollout(Struct, array_like=True, gc=False):
    """A new version of a capability that takes a share of the traffic, and how it does beside the others."""

    capability: str
    version: str
    share_permille: int
    state: RolloutState
    since_ns: int
    canary: Tally
    """Of attempts by workers with the version, since it began."""
    stable: Tally
    """Of those by all others."""
    floors: tuple[str, ...] = ()
    """Versions that were promoted before, oldest first: nothing older than the last one gets anything."""
    barred: tuple[str, ...] = ()
    """Versions that were aborted before: they get nothing either."""

    @property
    def whole(self) -> bool:
        """Whether all tasks go the same way."""
        return self.state is not RolloutState.RUNNING or self.share_permille in {0, PERMILLE}
