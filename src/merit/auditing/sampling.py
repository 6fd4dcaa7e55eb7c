"""How often results are looked at closely (copies, gold tasks, judges, persons), which costs extra work; and which ones."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from merit.model.track_record import Rating

ALL: Final = 1_000


def audit_permille(rating: Rating, looked_at: int, in_row: int, *, newcomer_tasks: int, floor_permille: int) -> int:
    """How many in a thousand of the results of a worker are to be looked at.

    All of a newcomer, and all of one who was caught with a wrong one, until half as many in a row were right. Of others the
    fewer the better their reputation is for sure, by the third power of what it lacks: with the square, an honest fleet
    of which one result in twenty is wrong would have half as many again looked at, for little that is found. Never fewer than
    the floor: whoever knew itself unobserved could do as it likes.

    Args:
        rating: at this capability.
        looked_at: how many results of the worker have been looked at.
        in_row: how many of them were right since the last wrong one.
        newcomer_tasks, floor_permille: as ``AuditPolicy`` has them.
    """
    if looked_at < newcomer_tasks or 2 * in_row < newcomer_tasks:
        return ALL
    return floor_permille + -(-(ALL - floor_permille) * (ALL - rating.low) ** 3 // ALL**3)


def is_looked_at(task: str, salt: bytes, permille: int) -> bool:
    """Whether the result of this task is one of so many in a thousand that are looked at; whoever is looked at at one share is
    at any larger one.

    A worker knows the ids of its tasks, and learns of some that they were looked at. So the choice is a keyed hash: from that
    of CRC-32, some dozen answers would tell all others.

    Args:
        task: its id.
        salt: a secret of the cell, up to 64 bytes.
        permille: how many.
    """
    drawn = int.from_bytes(blake2b(task.encode(), digest_size=8, key=salt).digest(), "big")
    return drawn * ALL >> 64 < permille
