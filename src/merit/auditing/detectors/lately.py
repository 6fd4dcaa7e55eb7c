"""What is remembered of those that were heard of lately."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

WORKERS_MAX: Final = 10_000
PAIRS_MAX: Final = 30_000
QUESTIONS_MAX: Final = 10_000
_RECENT: Final = 50
_RECENT_MIN: Final = 10


class Lately(OrderedDict[K, V], Generic[K, V]):
    """A bounded dictionary: what was not asked for longest goes first."""

    def __init__(self, most: int, make: Callable[[], V]) -> None:
        super().__init__()
        self._most = most
        self._make = make

    def of(self, key: K) -> V:
        """What is remembered of this one, made if it is new."""
        found = self.get(key)
        if found is None:
            if len(self) >= self._most:
                self.popitem(last=False)
            found = self[key] = self._make()
        else:
            self.move_to_end(key)
        return found


class HitShare:
    """How often something has happened, ever."""

    __slots__ = ("cases", "hits")

    def __init__(self) -> None:
        self.cases = self.hits = 0

    def note(self, hit: bool) -> None:
        """One more case."""
        self.cases += 1
        self.hits += hit

    def rate(self, prior: int, usual: float, without: HitShare | None = None) -> float:
        """How often, where so many cases are imagined that went as usual; without those that are counted in another one too."""
        cases, hits = self.cases, self.hits
        if without is not None:
            cases, hits = cases - without.cases, hits - without.hits
        return (hits + prior * usual) / (cases + prior)


class RecentCases:
    """The last cases, each of somebody or something. What has just changed shows here, long before it does in all cases."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: deque[tuple[str, bool]] = deque(maxlen=_RECENT)

    def note(self, whose: str, hit: bool) -> None:
        """One more case."""
        self._last.append((whose, hit))

    def rate_without(self, one: str) -> float:
        """How often it has happened with others than that one; 0: with none that is known."""
        others = [hit for whose, hit in self._last if whose != one]
        return sum(others) / len(others) if len(others) >= _RECENT_MIN else 0.0
