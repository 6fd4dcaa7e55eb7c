"""Results that were copied from another worker."""

from __future__ import annotations

from typing import Final

from merit.auditing.detecting import Accusations, AttemptOver, Cusum, Fact, Suspicion, at_most, weigh
from merit.auditing.detectors.agreement import Agreement, suspected
from merit.auditing.detectors.lately import PAIRS_MAX, QUESTIONS_MAX, WORKERS_MAX, HitShare, Lately

_ANSWERS_KEPT: Final = 4
"""To one question, by different workers."""
_LATER_MIN: Final = 0.9
"""Of the answers that two have in common, the one that copies gives so many later than the other."""
_ANYBODY: Final = ""
_CAPABILITIES_MAX: Final = 256
_TOLERANCE: Final = 2.0
_USUAL_MIN: Final = 0.02
_USUAL_MAX: Final = 0.98
_PRIOR: Final = 5
"""As many cases are imagined in which the answers were the same."""


class _Copying:
    __slots__ = ("cusum", "earlier", "later")

    def __init__(self) -> None:
        self.cusum = Cusum()
        self.earlier = 0
        self.later = 0


class CopiedResults(Accusations):
    """A worker gives answers that others gave before to the same questions (parameters), more often than others do; or those of one
    other worker, more often than both agree with third ones. And it gives nearly all of them later.

    Where most answers are the same anyway that tells little and takes long; where answers are long or rare, a few are
    enough. Two workers that run the same program agree as well, so it is never grave; but their copies prove nothing.
    """

    name = "copied_results"

    def __init__(self) -> None:
        super().__init__()
        self._agreement = Agreement(by_the_good=False)
        self._all: Lately[str, HitShare] = Lately(_CAPABILITIES_MAX, HitShare)
        self._each: Lately[tuple[str, str], HitShare] = Lately(WORKERS_MAX, HitShare)
        self._asked: Lately[tuple[str, bytes], dict[str, bytes]] = Lately(QUESTIONS_MAX, dict)
        self._copying: Lately[tuple[str, str], _Copying] = Lately(PAIRS_MAX, _Copying)

    def observe(self, fact: Fact) -> None:
        if not isinstance(fact, AttemptOver) or not fact.result or not fact.parameters:
            return
        before = self._asked.of((fact.capability, fact.parameters))
        if fact.worker in before:
            return
        if before:
            everybody = self._all.of(fact.capability)
            own = self._each.of((fact.capability, fact.worker))
            usual = at_most(everybody.rate(_PRIOR, 1.0, own), _TOLERANCE)
            same = [other for other, answer in before.items() if answer == fact.result]
            for share in (everybody, own):
                share.note(bool(same))
            self._weigh(fact, _ANYBODY, bool(same), min(max(usual, _USUAL_MIN), _USUAL_MAX))
            for other in same:
                self._copying.of((other, _ANYBODY)).earlier += 1
            for other in before:
                usual = self._agreement.usual(fact.capability, fact.worker, other)
                self._agreement.note(fact.capability, fact.worker, other, other in same)
                self._weigh(fact, other, other in same, usual)
                self._copying.of((other, fact.worker)).earlier += other in same
        if len(before) < _ANSWERS_KEPT:
            before[fact.worker] = fact.result

    def _weigh(self, fact: AttemptOver, other: str, same: bool, usual: float) -> None:
        found = self._copying.of((fact.worker, other))
        found.later += same
        reached = found.cusum.add(weigh(same, usual, suspected(usual)), fact.task)
        if not reached or found.later < _LATER_MIN * (found.later + found.earlier):
            return
        self.accuse(
            Suspicion(
                detector=self.name,
                worker=fact.worker,
                at_ns=fact.at_ns,
                reason=f"it gave {found.later} answers that {other or 'others'} had given before, "
                f"where by chance {100 * usual:.0f} % would agree at most",
                tasks=found.cusum.tasks,
                others=(other,) if other else (),
                figures=(("later", found.later), ("earlier", found.earlier), ("usual_permille", int(1_000 * usual))),
            )
        )
