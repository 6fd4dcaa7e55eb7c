"""Power of two choices: the less loaded of two workers that are drawn by the task's place among all; of equals, the one
that waits longest.

Nearly as even as to look at all (Mitzenmacher: The power of two choices in randomized load balancing, 2001), and of many
who decide by old figures not all take the same one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, KeysView, Mapping

from merit.allocation.chance import chance
from merit.allocation.strategy import PERMILLE, PLAIN, Candidate, Wish
from merit.allocation.weights import NO_WEIGHTS, weights_of

_HALF_BITS = 32
_HALF_MASK = (1 << _HALF_BITS) - 1


class TwoChoices:
    """See the module. Any two workers are drawn as often as any other two."""

    reads_wish = True

    def __init__(self, weights: Mapping[str, int] = NO_WEIGHTS) -> None:
        """``weights``: it knows none.

        Raises:
            ValueError: There are any.
        """
        weights_of(weights, NO_WEIGHTS)
        self._placed: dict[str, Candidate] = {}
        self._ids: list[str] = []
        """The same, in order, so that a draw does not depend on who came first. To put one in moves some of the others, in
        one go: 2 µs for 20,000 workers."""

    def place(self, candidate: Candidate) -> None:
        worker = candidate.worker
        if worker not in self._placed:
            insort(self._ids, worker)
        self._placed[worker] = candidate

    def remove(self, worker: str) -> None:
        if self._placed.pop(worker, None) is not None:
            del self._ids[bisect_left(self._ids, worker)]

    def placed(self) -> KeysView[str]:
        return self._placed.keys()

    def choose(self, wish: Wish = PLAIN, avoid: Collection[str] = ()) -> str | None:
        chosen = self._better(self._drawn(wish))
        if chosen is not None and chosen in avoid:
            chosen = self._better(self._drawn(wish, avoid))
        return chosen

    def figures(self, candidate: Candidate, wish: Wish) -> Mapping[str, int]:
        return {
            "not_drawn": int(candidate.worker not in self._drawn(wish)),
            "load_permille": candidate.live * PERMILLE // candidate.concurrency,
            "turn": candidate.turn,
        }

    def _drawn(self, wish: Wish, avoid: Collection[str] = ()) -> tuple[str, ...]:
        """Two of those that are placed and not to be avoided, or as many as there are."""
        ids = self._ids
        out = sorted(bisect_left(ids, worker) for worker in avoid if worker in self._placed) if avoid else ()
        count = len(ids) - len(out)
        if not count:
            return ()
        bits = chance(wish.order)
        first = (bits & _HALF_MASK) * count >> _HALF_BITS
        second = (bits >> _HALF_BITS) * (count - 1) >> _HALF_BITS
        if second >= first:
            second += 1
        if count == 1:
            second = first
        for place in out:
            first += first >= place
            second += second >= place
        return (ids[first], ids[second]) if first != second else (ids[first],)

    def _better(self, drawn: tuple[str, ...]) -> str | None:
        if len(drawn) < 2:
            return drawn[0] if drawn else None
        one, other = self._placed[drawn[0]], self._placed[drawn[1]]
        # Shares compared by multiplying across would tell more apart than the figures that people are shown.
        loads = one.live * PERMILLE // one.concurrency, other.live * PERMILLE // other.concurrency
        if loads[0] != loads[1]:
            return drawn[loads[1] < loads[0]]
        if one.turn != other.turn:
            return drawn[other.turn < one.turn]
        return min(drawn)
