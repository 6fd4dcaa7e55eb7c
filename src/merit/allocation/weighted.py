"""Weighted: several figures, each as much as its weight says; the worker with the smallest sum, and among equals the one
that waits longest.

========== ============================================================================================= =======
weight     what it weighs                                                                                usually
========== ============================================================================================= =======
load       the share of its concurrency in use: 1,000 if all of it                                         1,000
preference how little it likes this kind of work: 0 to 1,000                                                 200
cost       what a task costs: 200 for each doubling                                                          200
locality   the share of the tags that the task prefers which the worker does not have: 0 to 1,000            500
slack      how long its attempts take: 200 for each doubling, in so far as the task is short of time         500
score      how far it performs below the best: 1,000 for a score of 0                                        500
reputation how far its work is not trusted: 1,000 if not at all                                              500
========== ============================================================================================= =======

Weights are thousandths. Costs and times count by their logarithm, so that it does not matter in what they are reckoned.
How short of time a task is goes by the share of the time left that it should need, in steps: all of it counts fully,
half of it half, a quarter of it a quarter; less counts nothing.

**Cost.** For each of the four steps that tasks come with there is an order of the workers, and one more for each tag
that tasks prefer, of the workers that have it, all kept as for any other strategy (``ranked``). So without preferred
tags a choice is exact, and looks at one worker. With them it looks at the first few of all and of each tag, eight in
all. That is exact for one tag if there is time, and as long as it looks at all workers that there are. Otherwise one may
be missed that is among the first of no order, but good enough in several to have the smallest sum.
"""

from __future__ import annotations

from collections.abc import Collection, KeysView, Mapping
from types import MappingProxyType

from merit.allocation.ranked import Key, Ranked
from merit.allocation.strategy import PERMILLE, PLAIN, Candidate, Wish
from merit.allocation.weights import NO_WEIGHTS, weights_of
from merit.model.limits import RUN_TIMEOUT_NS_DEFAULT

WEIGHTS: Mapping[str, int] = MappingProxyType(
    {"load": 1_000, "preference": 200, "cost": 200, "locality": 500, "slack": 500, "score": 500, "reputation": 500}
)
"""By name, in thousandths: what counts how much where an operator has said nothing else."""

_NOTHING: frozenset[str] = frozenset()
_SCORE_MAX = 100_000
_LOOKED_AT_MAX = 8
_DOUBLING_PERMILLE = 200
_SHORT_STEPS = 3
"""All of the time left, half, a quarter."""


class Weighted:
    """See the module."""

    reads_wish = True

    def __init__(self, weights: Mapping[str, int] = NO_WEIGHTS) -> None:
        """``weights``: those of ``WEIGHTS`` that are to be others, in thousandths.

        Raises:
            ValueError: A weight that is not in ``WEIGHTS``, or that is out of bounds.
        """
        self._scales = _Scales(weights_of(weights, WEIGHTS))
        self._placed: dict[str, Candidate] = {}
        self._orders: dict[int, _Sums] = {}
        """Of all, by how short of time tasks are."""
        self._tags: dict[str, frozenset[str]] = {}
        """By worker: under which tags it stands in the next two."""
        self._tagged: dict[str, dict[str, None]] = {}
        self._tag_orders: dict[str, _Sums] = {}
        """Of the workers that have the tag, for tasks that have time; only for tags that were asked for."""

    def place(self, candidate: Candidate) -> None:
        worker, tags = candidate.worker, candidate.tags
        self._placed[worker] = candidate
        for order in self._orders.values():
            order.place(candidate)
        before = self._tags.get(worker)
        if before is not tags and before != tags:
            self._untag(worker)
            self._tags[worker] = tags
            for tag in tags:
                self._tagged.setdefault(tag, {})[worker] = None
        if self._tag_orders:
            for tag in self._tag_orders.keys() & tags:
                self._tag_orders[tag].place(candidate)

    def remove(self, worker: str) -> None:
        if self._placed.pop(worker, None) is None:
            return
        for order in self._orders.values():
            order.remove(worker)
        self._untag(worker)

    def placed(self) -> KeysView[str]:
        return self._placed.keys()

    def choose(self, wish: Wish = PLAIN, avoid: Collection[str] = ()) -> str | None:
        if wish.slack_ns < 0 and not wish.prefers:
            return self._order(0).choose(wish, avoid)
        prefers, shortness = frozenset(wish.prefers), self._shortness_permille(wish)
        chosen = self._choose(prefers, shortness, ())
        return self._choose(prefers, shortness, avoid) if chosen in avoid else chosen

    def figures(self, candidate: Candidate, wish: Wish) -> Mapping[str, int]:
        """The sum and the turn, which decide, and then what the sum consists of."""
        parts = self._scales.parts(candidate, self._shortness_permille(wish), frozenset(wish.prefers))
        names = (f"{name}_permille" for name in WEIGHTS)
        return {"sum_permille": sum(parts), "turn": candidate.turn, **dict(zip(names, parts, strict=True))}

    def _choose(self, prefers: frozenset[str], shortness: int, avoid: Collection[str]) -> str | None:
        order = self._order(shortness)
        # A tag that nobody has sets nobody apart.
        tags = prefers & self._tagged.keys()
        if not tags:
            return order.choose(PLAIN, avoid)
        each = 1 if len(tags) == 1 and not shortness else max(1, _LOOKED_AT_MAX // (len(tags) + 1))
        looked_at = set(order.leading(each, avoid))
        for tag in tags:
            looked_at.update(self._tag_order(tag).leading(each, avoid))
        placed, parts = self._placed, self._scales.parts
        best: Key | None = None
        for worker in looked_at:
            candidate = placed[worker]
            key = (sum(parts(candidate, shortness, prefers)), candidate.turn, worker)
            if best is None or key < best:
                best = key
        return best[-1] if best is not None else None

    def _order(self, shortness: int) -> _Sums:
        order = self._orders.get(shortness)
        if order is None:
            order = self._orders[shortness] = _Sums(self._scales, shortness)
            for candidate in self._placed.values():
                order.place(candidate)
        return order

    def _tag_order(self, tag: str) -> _Sums:
        order = self._tag_orders.get(tag)
        if order is None:
            order = self._tag_orders[tag] = _Sums(self._scales, 0)
            for worker in self._tagged[tag]:
                order.place(self._placed[worker])
        return order

    def _untag(self, worker: str) -> None:
        for tag in self._tags.pop(worker, ()):
            del self._tagged[tag][worker]
            if not self._tagged[tag]:
                del self._tagged[tag]
                self._tag_orders.pop(tag, None)
            elif tag in self._tag_orders:
                self._tag_orders[tag].remove(worker)

    def _shortness_permille(self, wish: Wish) -> int:
        """How much of the time left the task should need, as 1,000, 500, 250 or 0. If the task does not say how long
        it runs: as long as it takes the worker that it would go to if it had time."""
        if wish.slack_ns < 0:
            return 0
        estimate_ns = wish.estimate_ns
        if not estimate_ns:
            usual = self._order(0).choose()
            estimate_ns = _took_ns(self._placed[usual]) if usual is not None else RUN_TIMEOUT_NS_DEFAULT
        step = (max(0, wish.slack_ns - 1) // estimate_ns).bit_length()
        return PERMILLE >> step if step < _SHORT_STEPS else 0


class _Scales:
    """What each figure of a worker weighs."""

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._load, self._preference, self._cost, self._locality, self._slack, self._score, self._reputation = (
            weights[name] for name in WEIGHTS
        )

    def parts(self, candidate: Candidate, shortness: int, prefers: frozenset[str]) -> tuple[int, ...]:
        """What the sum consists of, in thousandths, in the order of ``WEIGHTS``."""
        cost = locality = slack = 0
        if candidate.cost_micros:
            cost = self._cost * _doublings_permille(candidate.cost_micros) // PERMILLE
        if prefers:
            locality = self._locality * len(prefers - candidate.tags) // len(prefers)
        if shortness:
            slack = self._slack * shortness * _doublings_permille(_took_ns(candidate)) // PERMILLE**2
        return (
            self._load * candidate.live // candidate.concurrency,
            self._preference * (PERMILLE - candidate.preference_permille) // PERMILLE,
            cost,
            locality,
            slack,
            self._score * (_SCORE_MAX - candidate.score) // _SCORE_MAX,
            self._reputation * (PERMILLE - candidate.reputation) // PERMILLE,
        )


class _Sums(Ranked):
    """The workers in the order of their sums, for tasks that prefer nothing and are as short of time as is said."""

    def __init__(self, scales: _Scales, shortness: int) -> None:
        super().__init__()
        self._scales = scales
        self._shortness = shortness

    def key(self, candidate: Candidate) -> Key:
        return (sum(self._scales.parts(candidate, self._shortness, _NOTHING)), candidate.turn, candidate.worker)


def _took_ns(candidate: Candidate) -> int:
    return candidate.took_ns or RUN_TIMEOUT_NS_DEFAULT  # whom nobody has measured may need all of the usual time-out


def _doublings_permille(figure: int) -> int:
    """How often 1 must be doubled to come to the figure and one more, between two powers in proportion, as it counts."""
    number = figure + 1
    doublings = number.bit_length() - 1
    return _DOUBLING_PERMILLE * (PERMILLE * doublings + (number * PERMILLE >> doublings) - PERMILLE) // PERMILLE
