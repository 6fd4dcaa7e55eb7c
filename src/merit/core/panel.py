"""Who reckons and decides about workers and results: models of reputation, scorings, decision engines, comparers, by name.

Merit's own, and those of packages that are installed beside it; whoever makes a machine says which there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import Struct, field

from merit.auditing.catalogue import COMPARERS, MODELS
from merit.auditing.compare import EXACTLY, Comparer, Difference
from merit.auditing.evidence import Outcomes, ReputationModel
from merit.auditing.grouping import Grouping, group_answers
from merit.model.auditing import Comparison
from merit.model.supervision import SCORE_MAX, Policy
from merit.model.track_record import Rating
from merit.supervision.catalogue import ENGINES, SCORINGS
from merit.supervision.engine import DecisionEngine, FleetFigures, Opinion, Subject
from merit.supervision.metrics import Metrics
from merit.supervision.scoring import Scoring

_USUAL: Final = Policy()
_Member = TypeVar("_Member")
_Word = TypeVar("_Word")


class Panel(Struct, frozen=True):
    """By name. One that a policy names and that is not here (of a plug-in that this process does not have), or that fails, is
    stood in for by the usual one: better another judge than none, and no plug-in may stop the cell."""

    models: Mapping[str, ReputationModel]
    scorings: Mapping[str, Scoring]
    engines: Mapping[str, DecisionEngine]
    comparers: Mapping[str, Comparer]
    troubles: dict[str, str] = field(default_factory=dict)
    """By name: how one has failed last."""

    def learn(self, policy: Policy, memory: tuple[int, ...], outcomes: Outcomes) -> tuple[tuple[int, ...], Rating]:
        """What is to be remembered of a worker at a capability, and how far it is trusted."""

        def ask(model: ReputationModel) -> tuple[tuple[int, ...], Rating]:
            learned = model.learn(memory, outcomes)
            return learned, model.rating(learned)

        return self._ask(self.models, policy.reputation, _USUAL.reputation, ask)

    def score(self, policy: Policy, metrics: Metrics) -> int:
        """How well a worker performs."""
        weights = dict(policy.weights)

        def ask(scoring: Scoring) -> int:
            return max(0, min(SCORE_MAX, int(scoring.score(metrics, weights))))

        return self._ask(self.scorings, policy.scoring, _USUAL.scoring, ask)

    def judge(self, policy: Policy, subject: Subject, fleet: FleetFigures) -> Opinion | None:
        """What is to be done about a worker."""
        return self._ask(
            self.engines, policy.engine, _USUAL.engine, lambda engine: engine.judge(subject, fleet, policy)
        )

    def difference(self, comparison: Comparison, one: Any, other: Any) -> Difference | None:
        """Where two results differ; None: they are the same."""
        return self._ask(
            self.comparers,
            comparison.method,
            EXACTLY.method,
            lambda comparer: comparer.difference(one, other, comparison),
        )

    def group(self, comparison: Comparison, answers: Sequence[Any]) -> Grouping:
        """Which of several answers are the same."""
        return self._ask(
            self.comparers,
            comparison.method,
            EXACTLY.method,
            lambda comparer: group_answers(answers, comparison, comparer),
        )

    def _ask(
        self, members: Mapping[str, _Member], name: str, usual: str, question: Callable[[_Member], _Word]
    ) -> _Word:
        member = members.get(name)
        if member is not None and name != usual:
            try:
                return question(member)
            except Exception as error:  # noqa: BLE001 - a plug-in's may raise anything, and must not stop the cell
                self.troubles[name] = f"{type(error).__name__}: {error}"
        return question(members[usual])


BUILT_IN_PANEL: Final = Panel(
    {name: make() for name, make in MODELS.items()},
    {name: make() for name, make in SCORINGS.items()},
    {name: make() for name, make in ENGINES.items()},
    {name: make() for name, make in COMPARERS.items()},
)
