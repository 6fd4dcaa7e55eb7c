"""How long a control plane keeps what has happened, and how much of it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

from msgspec import Struct

_GIB: Final = 1024**3
_DAY_S: Final = 86_400.0
SNAPSHOTS_KEPT: Final = 2
"""So many of the newest snapshots always stay: the last but one is for the case that the latest is damaged."""


class Retention(Struct, frozen=True, kw_only=True):
    """Times in seconds, sizes in bytes. What is over a size goes before its time, the oldest first."""

    journal_keep_s: float = 7 * _DAY_S
    """How long the journal has everything: contents of tasks, the state of any moment, why something was decided."""
    trails_keep_s: float = 90 * _DAY_S
    """How long final tasks are found, and their trails can be exported and verified."""
    audit_horizon_s: float = _DAY_S
    """Nothing younger ever leaves the journal, whatever its size."""
    journal_bytes_max: int = 20 * _GIB
    archive_bytes_max: int = 20 * _GIB
    """Of the trails of what has left the journal."""
    search_bytes_max: int = 20 * _GIB
    """Of the read model."""
    snapshots_bytes_max: int = 4 * _GIB

    def check(self) -> None:
        """Raises `ValueError`, which names the options of ``merit up``, if it contradicts itself."""
        if self.journal_keep_s < self.audit_horizon_s:
            raise ValueError(
                f"--keep ({self.journal_keep_s:,.0f} s) must not be less than --audit-horizon ({self.audit_horizon_s:,.0f} s), "
                f"within which nothing leaves the journal"
            )
        if self.trails_keep_s < self.journal_keep_s:
            raise ValueError(
                f"--keep-trails ({self.trails_keep_s:,.0f} s) must not be less than --keep ({self.journal_keep_s:,.0f} s)"
            )


def superfluous(
    snapshots: Mapping[int, int], journal_first: int, bytes_max: int, stay: Container[int] = ()
) -> list[int]:
    """Which snapshots can go.

    Those go that lie before the journal's beginning, since nothing follows on them; and then, until the rest is not too
    large, always the one without which the way from the one before it to the one behind it is shortest, of several such the
    oldest: so every second one goes, from the oldest on. The newest stay, and the one at the journal's beginning, without
    which what follows it could not be looked at; so does one at which it may soon begin.

    Args:
        snapshots: bytes by sequence, in order.
        journal_first: the sequence with which the journal begins.
        bytes_max: how much they may take together.
        stay: sequences at which the journal may soon begin.
    """
    kept = [one for one in snapshots if one + 1 >= journal_first]
    size = sum(snapshots[one] for one in kept)
    while size > bytes_max:
        places = [at for at in range(1, len(kept) - SNAPSHOTS_KEPT) if kept[at] not in stay]
        if not places:
            break
        place = min(places, key=lambda at: kept[at + 1] - kept[at - 1])
        size -= snapshots[kept.pop(place)]
    left = {*kept, *list(snapshots)[-SNAPSHOTS_KEPT:]}
    return [one for one in snapshots if one not in left]
