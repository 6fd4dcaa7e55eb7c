"""Voting together."""

from __future__ import annotations

from itertools import combinations
from typing import Final

from merit.auditing.detecting import Accusations, Cusum, Fact, Suspicion, VoteHeld, weigh
from merit.auditing.detectors.agreement import Agreement, suspected
from merit.auditing.detectors.lately import PAIRS_MAX, WORKERS_MAX, Lately

_VOTERS_MAX: Final = 32
"""Of larger votes, those whose names come first: pairs are many."""
_PARTNERS_KEPT: Final = 8
_GRAVE_BELOW: Final = 0.5
"""Whoever agrees with others less often than this is wrong most of the time: that two such agree is no accident."""


class _Group:
    """A worker, and those with whom it agrees where it should not."""

    __slots__ = ("cusum", "partners")

    def __init__(self) -> None:
        self.cusum = Cusum()
        self.partners: Lately[str, bool] = Lately(_PARTNERS_KEPT, bool)


class Collusion(Accusations):
    """Two workers agree in votes more often than both agree with third ones: when one is wrong the other is wrong in the same way.
    Of larger groups no two need meet often: what a worker has in common with all those who, like it, agree with few others is
    weighed together.

    Who wins such a vote does not matter, so that colluders cannot hide by being many in it. It is grave where both are hardly ever
    of the others' opinion; else they may run the same program, and are no two voices either.
    """

    name = "collusion"

    def __init__(self) -> None:
        super().__init__()
        self._agreement = Agreement(by_the_good=True)
        self._pairs: Lately[tuple[str, str], Cusum] = Lately(PAIRS_MAX, Cusum)
        self._groups: Lately[str, _Group] = Lately(WORKERS_MAX, _Group)

    def observe(self, fact: Fact) -> None:
        if not isinstance(fact, VoteHeld):
            return
        for (one, answer), (other, others) in combinations(sorted(dict(fact.answers).items())[:_VOTERS_MAX], 2):
            self._compare(fact, one, other, answer == others)

    def _compare(self, fact: VoteHeld, one: str, other: str, same: bool) -> None:
        usual = self._agreement.usual(fact.capability, one, other)
        self._agreement.note(fact.capability, one, other, same)
        weight = weigh(same, usual, suspected(usual))
        pair = self._pairs.of((one, other))
        together = pair.add(weight, fact.task)
        outside = sum(not self._agreement.is_good(fact.capability, worker) for worker in (one, other))
        for worker, partner in ((one, other), (other, one)):
            if together:
                self._tell(fact, worker, pair, (partner,), usual)
            if outside < 2:
                continue
            group = self._groups.of(worker)
            if same:
                group.partners.of(partner)
            if group.cusum.add(weight, fact.task):
                self._tell(fact, worker, group.cusum, tuple(group.partners), usual)
            if not group.cusum.sum:
                group.partners.clear()

    def _tell(self, fact: VoteHeld, worker: str, cusum: Cusum, others: tuple[str, ...], usual: float) -> None:
        self.accuse(
            Suspicion(
                detector=self.name,
                worker=worker,
                at_ns=fact.at_ns,
                reason=f"it votes as {', '.join(others)} {'does' if len(others) == 1 else 'do'}: "
                f"by what each agrees with others, that would be so in {100 * usual:.0f} % of cases at most",
                tasks=cusum.tasks,
                others=others,
                figures=(("usual_permille", int(1_000 * usual)),),
                grave=usual < _GRAVE_BELOW,
            )
        )
