"""A worker under supervision, by the rules alone: metrics, score, decision engine and sanctions, without the machine."""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from merit.model.supervision import Policy, Stage, Verdict
from merit.model.track_record import WINDOW, EndedAttempt, Ending
from merit.supervision.catalogue import ENGINES, SCORINGS
from merit.supervision.engine import FleetFigures, Subject
from merit.supervision.metrics import PERMILLE, Metrics, metrics_of
from merit.supervision.sanctions import FRESH, Dossier, Sanction, sanctions

_STAGES: Final = {
    Verdict.PAUSE: Stage.PAUSED,
    Verdict.PROBATION: Stage.PROBATION,
    Verdict.RESTORE: Stage.ACTIVE,
    Verdict.DEACTIVATE: Stage.OUT,
}


class Decided(Struct, frozen=True):
    """A decision, and when it was made."""

    at_ns: int
    sanction: Sanction


class SupervisedWorker:
    """What is known of a worker, and what is decided about it.

    Args:
        name: of the worker.
        policy: whose engine and scoring come with Merit.
    """

    def __init__(self, name: str, policy: Policy) -> None:
        self.name = name
        self.dossier = Dossier()
        self.decided: list[Decided] = []
        self.completed = 0
        self.failed = 0
        self._policy = policy
        self._engine = ENGINES[policy.engine]()
        self._scoring = SCORINGS[policy.scoring]()
        self._weights = dict(policy.weights)
        self._endings: deque[EndedAttempt] = deque(maxlen=WINDOW)
        self._expected: deque[int] = deque(maxlen=WINDOW)
        """How long each of these should have taken."""
        self._fresh_ns = 0
        self._ended_since = 0
        self._rate(0)

    def ended(self, now_ns: int, took_ns: int, load_permille: int, ok: bool, expected_ns: int) -> None:
        """An attempt of it has, which should have taken so long with the resources that the worker has."""
        self._expected.append(expected_ns)
        self._endings.append(EndedAttempt(now_ns, took_ns, load_permille, Ending.COMPLETED if ok else Ending.FAILED))
        self._ended_since += 1
        self.completed += ok
        self.failed += not ok
        dossier = self.dossier
        if dossier.stage is Stage.PROBATION:
            self.dossier = replace(dossier, right=dossier.right + ok, wrong=dossier.wrong + (not ok))

    def metrics(self, now_ns: int) -> Metrics:
        """Those by which it is judged."""
        fresh = [
            (ended, expected_ns)
            for ended, expected_ns in zip(self._endings, self._expected, strict=True)
            if ended.ended_ns > self._fresh_ns
        ]
        should_ns = sum(expected_ns for _, expected_ns in fresh)
        return metrics_of(
            (ended for ended, _ in fresh),
            now_ns,
            lateness_permille=PERMILLE * sum(ended.took_ns for ended, _ in fresh) // should_ns if fresh else PERMILLE,
            life_completed=self.completed,
            life_failed=self.failed,
        )

    def look(self, now_ns: int, fleet: FleetFigures, *, only_for: str = "") -> list[Sanction]:
        """Rate it, and decide; what was decided holds from now on.

        Args:
            now_ns: Unix time.
            fleet: all workers; what waits there is for this one too.
            only_for: a capability of which there would be nobody left without it.
        """
        metrics = self._rate(now_ns)
        self.dossier = dossier = replace(self.dossier, backlog=fleet.backlog, only_for=only_for)
        subject = Subject(
            worker=self.name,
            score=dossier.score,
            factor=dossier.factor,
            metrics=metrics,
            last=self.decided[-1].sanction.verdict if self.decided else None,
            since_ns=now_ns - dossier.decided_ns,
            attempts_since=self._ended_since,
        )
        made = sanctions(dossier, self._engine.judge(subject, fleet, self._policy), self._policy, now_ns)
        for sanction in made:
            self._take(sanction, now_ns)
        return made

    def _rate(self, now_ns: int) -> Metrics:
        metrics = self.metrics(now_ns)
        self.dossier = replace(self.dossier, score=self._scoring.score(metrics, self._weights))
        return metrics

    def _take(self, sanction: Sanction, now_ns: int) -> None:
        before, verdict = self.dossier, sanction.verdict
        after = replace(before, factor=sanction.factor, decided_ns=now_ns, right=0, wrong=0)
        if verdict in _STAGES:
            after = replace(after, stage=_STAGES[verdict], since_ns=now_ns)
        if verdict is Verdict.PUNISH:
            after = replace(after, punishments=before.punishments + 1)
        elif verdict in {Verdict.REWARD, Verdict.RESTORE, Verdict.PAUSE}:
            after = replace(after, punishments=0)
        if verdict is Verdict.RESTORE:
            after = replace(after, relapses=0)
        elif verdict is Verdict.PAUSE and before.stage is Stage.PROBATION:
            after = replace(after, relapses=before.relapses + 1)
        elif verdict is Verdict.PAUSE:
            after = replace(after, pauses=(*before.pauses, now_ns)[-self._policy.pauses_max :])
        if verdict in FRESH:
            self._fresh_ns = now_ns
        self.dossier = after
        self.decided.append(Decided(now_ns, sanction))
        self._ended_since = 0
