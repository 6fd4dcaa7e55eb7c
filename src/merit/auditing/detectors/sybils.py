"""New names of those that have a bad one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import log, log2
from typing import Final

from merit.auditing.detecting import Accusations, AttemptOver, Fact, Suspicion, WorkerCame, WorkerCaught, weigh
from merit.auditing.detectors.lately import QUESTIONS_MAX, WORKERS_MAX, Lately
from merit.model.limits import SECOND_NS

_BAD_MAX: Final = 256
_FLEET: Final = 200
"""By so many that were heard of last it is known what is usual."""
_LOOKED_AT: Final = frozenset((5, 10, 20, 40, 80))
"""After so many attempts a newcomer is compared with those that were caught."""
_BAR: Final = log(10_000)
"""Lower than usually: few are compared, a few times each."""
_ANSWERS_KEPT: Final = 64
_VOICES_KEPT: Final = 8
_SOON_NS: Final = 60 * SECOND_NS
_PACE_OCTAVES: Final = 0.1
_PACE_KNOWN_AFTER: Final = 5
_SAME_PROCESS: Final = 16.0
"""What it weighs that two names were used by the same process: nothing else explains it."""

# How often each trait is the same under both names of one party; about.
_SAME_TAGS: Final = 0.8
_SAME_TIME: Final = 0.5
_SAME_PACE: Final = 0.6
_SAME_ANSWER: Final = 0.9


class _Pace:
    """How long tasks of a capability take a worker: the mean of the logarithms, in octaves of nanoseconds."""

    __slots__ = ("attempts", "sum")

    def __init__(self) -> None:
        self.attempts = 0
        self.sum = 0.0

    @property
    def known(self) -> bool:
        return self.attempts >= _PACE_KNOWN_AFTER

    def like(self, other: _Pace) -> bool:
        return abs(self.sum / self.attempts - other.sum / other.attempts) <= _PACE_OCTAVES


class _Name:
    """What is known of one name."""

    __slots__ = ("answers", "attempts", "boot", "caught_ns", "first_ns", "paces", "tags")

    def __init__(self) -> None:
        self.boot = ""
        self.tags: tuple[str, ...] = ()
        self.first_ns = 0
        self.caught_ns = 0
        self.attempts = 0
        self.paces: Lately[str, _Pace] = Lately(_VOICES_KEPT, _Pace)
        self.answers: Lately[tuple[str, bytes], list[bytes]] = Lately(_ANSWERS_KEPT, list)

    def came_with(self, bad: _Name) -> bool:
        """Soon after the other was put out, or when the other came."""
        return 0 <= self.first_ns - bad.caught_ns <= _SOON_NS or abs(self.first_ns - bad.first_ns) <= _SOON_NS


class Sybils(Accusations):
    """A newcomer is like one that was caught: the same process, the same tags, came soon after that one was put out or together with
    it, takes as long for the same work, gives the same answers that hardly anybody else gives.

    Traits are weighed as in the linkage of records (Fellegi, Sunter: A theory for record linkage, 1969): by how often two names of
    one party share them, against how many of the fleet share them with the one that was caught. So many newcomers at a time
    prove nothing, since that is what growth looks like too; but once one of them is caught, those that came with it are nearer to
    it the fewer came then. Only the same process is grave; the rest is reason to look at all that the newcomer delivers.
    """

    name = "sybils"

    def __init__(self) -> None:
        super().__init__()
        self._names: Lately[str, _Name] = Lately(WORKERS_MAX, _Name)
        self._bad: Lately[str, _Name] = Lately(_BAD_MAX, _Name)
        self._voices: Lately[tuple[str, bytes], dict[str, bytes]] = Lately(QUESTIONS_MAX, dict)

    def observe(self, fact: Fact) -> None:
        if isinstance(fact, AttemptOver):
            name = self._names.of(fact.worker)
            self._work(fact, name)
            if name.attempts in _LOOKED_AT:
                self._look(fact.worker, name, fact.at_ns)
        elif isinstance(fact, WorkerCame):
            name = self._names.of(fact.worker)
            name.boot, name.tags = fact.boot, tuple(sorted(fact.tags))
            name.first_ns = fact.first_ns or name.first_ns or fact.at_ns
            self._look(fact.worker, name, fact.at_ns)
        elif isinstance(fact, WorkerCaught):
            bad = self._names.of(fact.worker)
            bad.caught_ns = fact.at_ns
            self._bad.of(fact.worker)
            self._bad[fact.worker] = bad
            for worker, name in self._names.items():
                if name.attempts <= max(_LOOKED_AT):
                    self._look(worker, name, fact.at_ns)

    def _work(self, attempt: AttemptOver, name: _Name) -> None:
        name.attempts += 1
        if attempt.wall_ns > 0:
            pace = name.paces.of(attempt.capability)
            pace.attempts += 1
            pace.sum += log2(attempt.wall_ns)
        if attempt.result and attempt.parameters:
            question = (attempt.capability, attempt.parameters)
            name.answers.of(question)[:] = [attempt.result]
            voices = self._voices.of(question)
            if len(voices) < _VOICES_KEPT:
                voices[attempt.worker] = attempt.result

    def _look(self, worker: str, name: _Name, at_ns: int) -> None:
        if name.caught_ns:
            return
        fleet = [known for other, known in islice(reversed(self._names.items()), _FLEET) if other != worker]
        for other, bad in self._bad.items():
            if other == worker or name.first_ns < bad.first_ns - _SOON_NS:
                continue
            same_process = bool(name.boot) and name.boot == bad.boot
            traits = dict(self._traits(worker, name, other, [known for known in fleet if known is not bad]))
            weight = sum(traits.values()) + _SAME_PROCESS * same_process
            if weight >= _BAR:
                alike = [trait for trait, value in traits.items() if value > 1] + ["process"] * same_process
                self.accuse(
                    Suspicion(
                        detector=self.name,
                        worker=worker,
                        at_ns=at_ns,
                        reason=f"it may be {other} under a new name, which was caught: alike in {', '.join(alike)}",
                        others=(other,),
                        figures=tuple((trait, round(1_000 * value)) for trait, value in sorted(traits.items())),
                        grave=same_process,
                    )
                )

    def _traits(self, worker: str, name: _Name, other: str, fleet: Sequence[_Name]) -> Iterator[tuple[str, float]]:
        """By name, what each weighs."""
        bad = self._bad[other]
        if name.tags or bad.tags:
            usual = _usual(sum(known.tags == bad.tags for known in fleet), len(fleet))
            yield "tags", _weigh(name.tags == bad.tags, usual, _SAME_TAGS)
        usual = _usual(sum(known.came_with(bad) for known in fleet), len(fleet))
        yield "time", _weigh(name.came_with(bad), usual, _SAME_TIME)
        for capability, own in name.paces.items():
            theirs = bad.paces.get(capability)
            if own.known and theirs and theirs.known:
                paces = [pace for known in fleet if (pace := known.paces.get(capability)) and pace.known]
                usual = _usual(sum(pace.like(theirs) for pace in paces), len(paces))
                yield f"pace at {capability}", _weigh(own.like(theirs), usual, _SAME_PACE)
        weight = 0.0
        for question, answer in name.answers.items():
            if question in bad.answers:
                said = bad.answers[question]
                thirds = [third for voice, third in self._voices.of(question).items() if voice not in {worker, other}]
                weight += _weigh(answer == said, _usual(thirds.count(said[0]), len(thirds)), _SAME_ANSWER)
        yield "answers", weight


def _usual(hits: int, cases: int) -> float:
    return (hits + 1) / (cases + 2)


def _weigh(same: bool, usual: float, of_one_party: float) -> float:
    """What most share says nothing, either way."""
    return weigh(same, usual, of_one_party) if usual < of_one_party else 0.0
