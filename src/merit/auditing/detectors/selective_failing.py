"""Failing at some tasks only."""

from __future__ import annotations

from typing import Final

from merit.auditing.detecting import Accusations, AttemptOver, Cusum, Fact, Suspicion, VerdictGiven, at_most, weigh
from merit.auditing.detectors.lately import WORKERS_MAX, HitShare, Lately, RecentCases
from merit.model.track_record import Ending

_FAILED: Final = frozenset((Ending.FAILED, Ending.TIMED_OUT, Ending.REJECTED))
_TOLERANCE: Final = 1.5
_USUAL_MIN: Final = 0.02
_USUAL_MAX: Final = 0.6
"""Where that many fail anyway, nothing is told by one more."""
_PRIOR: Final = 10
_ELSEWHERE_MIN: Final = 10
_DOUBTFUL: Final = 7.0
"""Of the sum of evidence."""
_INNOCENT: Final = frozenset(("capability", "size"))
"""What a worker may be bad at without meaning to."""


class _Failing:
    """One worker, and tasks with one feature."""

    __slots__ = ("among_all", "cusum", "share")

    def __init__(self) -> None:
        self.cusum = Cusum()
        self.share = HitShare()
        self.among_all = HitShare()
        """What of it is counted among all workers: what a suspect does is not taken for usual."""


class _Whole:
    """One worker, and all tasks by one kind of feature."""

    __slots__ = ("failed_at", "recent", "share")

    def __init__(self) -> None:
        self.share = HitShare()
        self.recent = RecentCases()
        self.failed_at: str | None = None
        """The feature at which it has failed last, since when it has not done well elsewhere."""


class SelectiveFailing(Accusations):
    """A worker fails at tasks with some feature (capability, size, priority, tenant) and does well at others, more than the feature
    explains: usual is how often others fail there, times how the worker compares with them elsewhere.

    Trouble lasts a while and strikes whatever comes, so a failure counts only if the worker has done well at something else
    since the one before. Refusing openly is no failing, and a lost worker not its own doing.
    """

    name = "selective_failing"

    def __init__(self) -> None:
        super().__init__()
        self._features: Lately[tuple[str, str | None], HitShare] = Lately(WORKERS_MAX, HitShare)
        self._lately: Lately[tuple[str, str], RecentCases] = Lately(WORKERS_MAX, RecentCases)
        self._wholes: Lately[tuple[str, str], _Whole] = Lately(4 * WORKERS_MAX, _Whole)
        self._failing: Lately[tuple[str, str, str], _Failing] = Lately(4 * WORKERS_MAX, _Failing)

    def observe(self, fact: Fact) -> None:
        if isinstance(fact, VerdictGiven) and not fact.right:
            self._note(fact.of, True)
        elif isinstance(fact, AttemptOver) and (fact.ending is Ending.COMPLETED or fact.ending in _FAILED):
            self._note(fact, fact.ending in _FAILED)

    def _note(self, attempt: AttemptOver, failed: bool) -> None:
        for kind, value in (
            ("capability", attempt.capability),
            ("tenant", attempt.tenant),
            ("priority", str(attempt.priority)),
            # In steps of a factor of 16.
            ("size", f"up to {1 << (attempt.parameters_bytes.bit_length() + 3) // 4 * 4} bytes"),
        ):
            self._look(attempt, failed, kind, value)

    def _look(self, attempt: AttemptOver, failed: bool, kind: str, value: str) -> None:
        everything, feature = self._features.of((kind, None)), self._features.of((kind, value))
        lately = self._lately.of((kind, value))
        whole = self._wholes.of((attempt.worker, kind))
        failing = self._failing.of((attempt.worker, kind, value))
        if (failed or failing.cusum.sum) and not (failed and whole.failed_at == value):
            rate = (everything.hits + 1) / (everything.cases + 2)
            others_there = feature.rate(_PRIOR, rate, failing.among_all)
            others_elsewhere = everything.rate(_PRIOR, rate, feature)
            elsewhere = whole.share.rate(_PRIOR, rate, failing.share)
            ever = at_most(min(elsewhere * others_there / others_elsewhere, 1.0), _TOLERANCE)
            # What has just begun to fail fails everybody; and a worker may just have become worse.
            usual = max(ever, lately.rate_without(attempt.worker), whole.recent.rate_without(value), _USUAL_MIN)
            weight = weigh(failed, usual, 1 - (1 - usual) / 2) if usual < _USUAL_MAX else 0.0
            known = whole.share.cases - failing.share.cases >= _ELSEWHERE_MIN
            if failing.cusum.add(weight, attempt.task) and known:
                self._tell(attempt, kind, value, failing, usual)
        for share in (whole.share, failing.share):
            share.note(failed)
        whole.recent.note(value, failed)
        lately.note(attempt.worker, failed)
        if failing.cusum.sum <= _DOUBTFUL:
            for share in (everything, feature, failing.among_all):
                share.note(failed)
        if failed:
            whole.failed_at = value
        elif whole.failed_at != value:
            whole.failed_at = None

    def _tell(self, attempt: AttemptOver, kind: str, value: str, failing: _Failing, usual: float) -> None:
        self.accuse(
            Suspicion(
                detector=self.name,
                worker=attempt.worker,
                at_ns=attempt.at_ns,
                reason=f"it failed at {failing.share.hits + 1} of {failing.share.cases + 1} tasks of {kind} {value!r}; "
                f"by how it does elsewhere, and others there, {100 * usual:.0f} % at most would be usual",
                tasks=failing.cusum.tasks,
                figures=(
                    ("failed", failing.share.hits + 1),
                    ("attempts", failing.share.cases + 1),
                    ("usual_permille", int(1_000 * usual)),
                ),
                grave=kind not in _INNOCENT,
            )
        )
