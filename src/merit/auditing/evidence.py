"""What the machine asks of a model of reputation: what it makes of what has come of a worker's attempts."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from merit.model.track_record import Rating


class Outcomes(Struct, frozen=True, kw_only=True):
    """What has happened to the results of one worker at one capability since a model last learned; the counts of
    ``TrackRecord``. In which order they came is not known, and there are never many at a time."""

    completed: int = 0
    """Accepted, as far as checks go that cost nothing."""
    failed: int = 0
    rejected: int = 0
    """Turned down by such a check."""
    slow: int = 0
    """Of the completed ones: right, but slower than they should have been."""
    passed: int = 0
    """Of the completed ones: looked at closely, and right."""
    wrong: int = 0
    """Looked at closely, and wrong."""


class ReputationModel(Protocol):
    """Turns evidence into a rating. What it remembers of a worker is a few whole numbers in a unit of its own, which are kept
    for it; it keeps nothing itself."""

    def learn(self, memory: tuple[int, ...], evidence: Outcomes) -> tuple[int, ...]:
        """What is to be remembered from now on.

        Args:
            memory: what was returned the last time; empty: nothing is known of the worker yet.
            evidence: what has come since.
        """
        ...

    def rating(self, memory: tuple[int, ...]) -> Rating:
        """How far it is trusted. ``low <= value <= high``, all within 0 and 1,000."""
        ...
