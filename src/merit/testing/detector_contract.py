"""What every detector of cheats must do."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from random import Random
from types import BuiltinFunctionType, FunctionType, ModuleType

import pytest

from merit.auditing.detecting import (
    AttemptOver,
    Fact,
    MakeDetector,
    SignatureWrong,
    Suspicion,
    VerdictGiven,
    VoteHeld,
    WorkerCame,
    WorkerCaught,
)
from merit.model.limits import MILLISECOND_NS, SECOND_NS
from merit.model.track_record import Ending

_START_NS = 1_700_000_000 * SECOND_NS
_REASON_LENGTH_MAX = 500
_TASKS_MAX = 100
_MANY = 14_000
_GROWTH_MAX = 1.1


class DetectorContract:
    """Subclass it and override `make` and `cheating`."""

    @pytest.fixture
    def make(self) -> MakeDetector:
        """Makes a detector that has seen nothing; what is registered as entry point."""
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def cheating(self) -> tuple[Sequence[Fact], set[str]]:
        """Facts that show its cheat among honest workers, and who they show."""
        raise NotImplementedError("override this fixture")

    def test_whoever_cheats_is_named_and_nobody_else(
        self, make: MakeDetector, cheating: tuple[Sequence[Fact], set[str]]
    ) -> None:
        facts, cheats = cheating
        assert {suspicion.worker for suspicion in _found(make, facts)} == cheats

    def test_what_it_says_can_be_read_and_looked_into(
        self, make: MakeDetector, cheating: tuple[Sequence[Fact], set[str]]
    ) -> None:
        for suspicion in _found(make, cheating[0]):
            assert suspicion.detector
            assert 0 < len(suspicion.reason) <= _REASON_LENGTH_MAX
            assert suspicion.reason.isprintable()
            assert suspicion.tasks or suspicion.others, "evidence"
            assert len(suspicion.tasks) <= _TASKS_MAX
            assert suspicion.worker not in suspicion.others
            assert all(type(name) is str and type(figure) is int for name, figure in suspicion.figures)

    def test_honest_workers_are_left_alone(self, make: MakeDetector) -> None:
        for seed in range(5):
            assert _found(make, list(an_honest_fleet(Random(seed), workers=20, tasks=1_500))) == []

    def test_the_same_facts_give_the_same_findings(
        self, make: MakeDetector, cheating: tuple[Sequence[Fact], set[str]]
    ) -> None:
        facts = [*cheating[0], *an_honest_fleet(Random(1), workers=5, tasks=300)]
        assert _found(make, facts) == _found(make, facts)

    def test_it_does_not_matter_when_it_is_asked(
        self, make: MakeDetector, cheating: tuple[Sequence[Fact], set[str]]
    ) -> None:
        """And what was said once is not said again."""
        patient, asked = make(), make()
        said = []
        for fact in cheating[0]:
            patient.observe(fact)
            asked.observe(fact)
            said += asked.findings()
        at_last = patient.findings()
        assert patient.findings() == asked.findings() == []
        assert {one.worker: one for one in said} == {one.worker: one for one in at_last}

    def test_any_fact_is_taken(self, make: MakeDetector) -> None:
        """As they come: of workers and tasks that it has never heard of, with nothing in them, and back in time."""
        for seed in range(20):
            rng, detector = Random(seed), make()
            for _ in range(200):
                detector.observe(_any_fact(rng))
            detector.findings()

    def test_what_it_remembers_is_bounded(self, make: MakeDetector) -> None:
        """Whoever takes a new name for each task cannot fill the memory."""
        detector, counts = make(), []
        for number in range(2 * _MANY):
            worker, at_ns = f"w{number}", _START_NS + number * MILLISECOND_NS
            attempt = AttemptOver(
                at_ns=at_ns,
                task=f"t{number}",
                worker=worker,
                capability=f"c{number}",
                tenant=f"n{number}",
                parameters=b"%d" % (number // 16),
                parameters_bytes=100,
                result=b"%d" % number,
                ending=Ending.COMPLETED if number % 2 else Ending.FAILED,
                claimed_wall_ns=SECOND_NS,
                wall_ns=SECOND_NS,
            )
            detector.observe(WorkerCame(at_ns=at_ns, worker=worker, boot=worker))
            detector.observe(attempt)
            detector.observe(VerdictGiven(at_ns=at_ns, of=attempt, right=False))
            answers = tuple((f"w{number - voter}", "ab"[voter % 2]) for voter in range(4))
            detector.observe(VoteHeld(at_ns=at_ns, task=f"t{number}", capability="c", answers=answers))
            detector.observe(SignatureWrong(at_ns=at_ns, worker=worker, task=f"t{number}"))
            if number % _MANY == _MANY - 1:
                counts.append(_objects(detector))
        assert counts[1] <= _GROWTH_MAX * counts[0]


def an_honest_fleet(rng: Random, *, workers: int, tasks: int) -> Iterator[Fact]:
    """Workers of different speed and quality, who do what they can: what nobody is to be accused of."""
    fleet = [f"honest-{number}" for number in range(workers)]
    pace_s = {worker: 5 * rng.lognormvariate(0, 0.4) for worker in fleet}
    wrong = {worker: rng.uniform(0.01, 0.05) for worker in fleet}
    at_ns = _START_NS
    for worker in fleet:
        yield WorkerCame(at_ns=at_ns, worker=worker, boot=f"boot of {worker}", tags=(rng.choice("abc"),))
    for number in range(tasks):
        at_ns += SECOND_NS // 2
        right, answers = rng.randrange(4), []
        for worker in rng.sample(fleet, min(workers, 3 if rng.random() < 0.3 else 1)):
            failed = rng.random() < 0.03
            answer = (right + (rng.randrange(1, 4) if rng.random() < wrong[worker] else 0)) % 4
            took_s = pace_s[worker] * rng.lognormvariate(0, 0.3)
            attempt = AttemptOver(
                at_ns=at_ns,
                task=f"honest task {number}",
                worker=worker,
                capability="label",
                tenant=rng.choice(("north", "south")),
                priority=rng.randrange(4),
                parameters=b"question %d" % number,
                parameters_bytes=rng.randrange(1, 10_000),
                result=b"" if failed else b"%d" % answer,
                ending=Ending.FAILED if failed else Ending.COMPLETED,
                claimed_wall_ns=int(took_s * SECOND_NS),
                claimed_cpu_ns=int(took_s * SECOND_NS * rng.random()),
                wall_ns=int((took_s + 0.1 * rng.random()) * SECOND_NS),
                cores=2,
            )
            yield attempt
            if not failed:
                answers.append((worker, str(answer)))
                if rng.random() < 0.2:
                    yield VerdictGiven(at_ns=at_ns, of=attempt, right=answer == right)
        if len(answers) > 1:
            yield VoteHeld(at_ns=at_ns, task=f"honest task {number}", capability="label", answers=tuple(answers))


def _found(make: MakeDetector, facts: Sequence[Fact]) -> list[Suspicion]:
    detector, found = make(), []
    for fact in facts:
        detector.observe(fact)
        found += detector.findings()
    return found


def _any_fact(rng: Random) -> Fact:
    at_ns, worker, task = rng.randrange(2**62), f"w{rng.randrange(3)}", f"t{rng.randrange(9)}"
    attempt = AttemptOver(
        at_ns=at_ns,
        task=task,
        worker=worker,
        capability=rng.choice(("", "c")),
        parameters=rng.choice((b"", b"p")),
        result=rng.choice((b"", b"r")),
        ending=rng.choice(list(Ending)),
        claimed_wall_ns=rng.choice((0, 1, 2**62)),
        wall_ns=rng.choice((0, 1, 2**62)),
        claimed_cpu_ns=rng.choice((0, 1, 2**62)),
        cpu_ns=rng.choice((0, 1, 2**62)),
        cores=rng.choice((0, 1)),
    )
    voters = tuple((f"w{rng.randrange(3)}", rng.choice("ab")) for _ in range(rng.randrange(4)))
    return rng.choice(
        (
            attempt,
            VerdictGiven(at_ns=at_ns, of=attempt, right=rng.random() < 0.5),
            VoteHeld(at_ns=at_ns, task=task, capability="c", answers=voters),
            WorkerCame(at_ns=at_ns, worker=worker, boot=rng.choice(("", "b")), tags=rng.choice(((), ("x",)))),
            WorkerCaught(at_ns=at_ns, worker=worker),
            SignatureWrong(at_ns=at_ns, worker=worker, task=task),
        )
    )


def _objects(root: object) -> int:
    """How many it holds."""
    seen, todo = {id(root)}, [root]
    while todo:
        for found in gc.get_referents(todo.pop()):
            if id(found) not in seen and not isinstance(found, type | FunctionType | BuiltinFunctionType | ModuleType):
                seen.add(id(found))
                todo.append(found)
    return len(seen)
