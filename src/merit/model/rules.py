"""What an operator may set for queues and tenants."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class RuleKind(IntEnum):
    """What a limit counts by; the numbers are those of the wire."""

    CAPABILITY = 1
    """All attempts at a capability together."""
    TENANT = 2
    """All attempts for a tenant together."""
    KEY = 3
    """The attempts at a capability with the same key, each key by itself. Tasks without a key are not limited."""


class Rule(Struct, frozen=True, array_like=True, gc=False):
    """A limit. ``name`` is that of the capability or the tenant; 0: no limit of that sort."""

    kind: RuleKind
    name: str
    concurrency: int = 0
    """Attempts that may live at once."""
    rate_millihz: int = 0
    """Attempts that may begin in 1,000 seconds: whole numbers, since the machine does not reckon in fractions."""
    burst: int = 1
    """How many may begin at once after a pause, within the rate."""

    @property
    def limits(self) -> bool:
        """Whether it limits anything."""
        return bool(self.concurrency or self.rate_millihz)


class TenantTerms(Struct, frozen=True, array_like=True, gc=False):
    """What a tenant gets. ``weight``: its share of the workers, against those of the others. ``live_max``: tasks that
    are not final, 0: as many as the cell takes."""

    tenant: str
    weight: int = 1
    live_max: int = 0

    @property
    def usual(self) -> bool:
        """Whether it is what every tenant gets."""
        return self.weight == 1 and not self.live_max
