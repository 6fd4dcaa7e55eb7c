"""Good for a while, then bad."""

from __future__ import annotations

from typing import Final

from merit.auditing.detecting import Accusations, Cusum, Fact, Suspicion, VerdictGiven, weigh
from merit.auditing.detectors.lately import WORKERS_MAX, Lately, RecentCases

_USUAL_MIN: Final = 0.05
_USUAL_MAX: Final = 0.9
_KNOWN_AFTER: Final = 10
"""Results by which it is known how good a worker is when it is good."""
_CAPABILITIES_MAX: Final = 256
_PRIOR: Final = 10
_PRIOR_WRONG: Final = 1
_GOOD_AGAIN: Final = 10
"""So many right results in a row: it has become good again."""


class _Phases:
    """A worker at one capability."""

    __slots__ = ("cases", "cusum", "drops", "held", "held_wrong", "in_row", "wrong")

    def __init__(self) -> None:
        self.cases = self.wrong = 0
        """In its good time."""
        self.held = self.held_wrong = 0
        """Since it may have turned bad."""
        self.cusum = Cusum()
        self.drops = 0
        self.in_row = _GOOD_AGAIN


class OnOff(Accusations):
    """The results of a worker that were right turn wrong: a change of its chance to be wrong, from what it was in its good time to
    at least the half (Page's test). What counts as its good time is what was seen before the doubt began. Where others are wrong as
    often just now, the tasks are to blame, or who judges.

    The first time this may be a defect. Once it has become good again and turns bad for a second time, it is grave.
    """

    name = "on_off"

    def __init__(self) -> None:
        super().__init__()
        self._lately: Lately[str, RecentCases] = Lately(_CAPABILITIES_MAX, RecentCases)
        self._workers: Lately[tuple[str, str], _Phases] = Lately(WORKERS_MAX, _Phases)

    def observe(self, fact: Fact) -> None:
        if not isinstance(fact, VerdictGiven):
            return
        phases = self._workers.of((fact.of.worker, fact.of.capability))
        if phases.in_row < _GOOD_AGAIN:
            phases.in_row = phases.in_row + 1 if fact.right else 0
        own = (phases.wrong + _PRIOR_WRONG) / (phases.cases + _PRIOR)
        lately = self._lately.of(fact.of.capability)
        usual = max(_USUAL_MIN, own, min(_USUAL_MAX, lately.rate_without(fact.of.worker)))
        lately.note(fact.of.worker, not fact.right)
        bad = 1 - (1 - usual) / 2
        phases.held += 1
        phases.held_wrong += not fact.right
        reached = phases.cusum.add(weigh(not fact.right, usual, bad), fact.of.task)
        if reached and phases.cases >= _KNOWN_AFTER and phases.in_row >= _GOOD_AGAIN:
            self._tell(fact, phases)
        if not phases.cusum.sum and not reached:
            phases.cases, phases.wrong = phases.cases + phases.held, phases.wrong + phases.held_wrong
            phases.held = phases.held_wrong = 0
        elif reached:
            phases.held = phases.held_wrong = 0

    def _tell(self, fact: VerdictGiven, phases: _Phases) -> None:
        phases.drops += 1
        phases.in_row = 0
        again = f", for the {phases.drops}. time" if phases.drops > 1 else ""
        self.accuse(
            Suspicion(
                detector=self.name,
                worker=fact.of.worker,
                at_ns=fact.at_ns,
                reason=f"it has turned bad{again}: of {phases.cases} results that were looked at {phases.wrong} had been "
                f"wrong, and {phases.held_wrong} of the last {phases.held} are",
                tasks=phases.cusum.tasks,
                figures=(("drops", phases.drops), ("wrong", phases.held_wrong), ("seen", phases.held)),
                grave=phases.drops > 1,
            )
        )
