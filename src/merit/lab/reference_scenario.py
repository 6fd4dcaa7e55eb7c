"""The reference scenario: four workers of different speed and reliability, three batches of tasks, virtual time.

What each worker is like shows in what becomes of it: rewards and punishments make its factor, the factor how many tasks it
is given at a time and how fast it does them. It runs on the rules alone (metrics, score, engine, sanctions), so that a
world takes a millisecond; tasks are not tried again, and everything follows from the seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import sqrt
from random import Random
from statistics import mean, stdev
from typing import Final

from msgspec import Struct

from merit.lab.supervised import SupervisedWorker
from merit.model.limits import MILLISECOND_NS, SECOND_NS
from merit.model.supervision import FACTOR_ONE, Policy, Stage, Verdict
from merit.model.tasks import Priority
from merit.supervision.engine import FleetFigures
from merit.supervision.metrics import PERMILLE

BASE_ERROR_PERMILLE: Final = 100
CONCURRENCY: Final = 2
"""Tasks at a time of a worker whose factor is 1."""
SPREAD_PERMILLE: Final = 200
"""A task takes so much more or less than it should."""
FAILING_PERMILLE: Final = (500, 1_500)
"""Of the time that it would take, what one takes that fails."""
UTILISATION_PERMILLE: Final = (300, 800)
POLICY: Final = Policy(engine="threshold", scoring="reference", reward_permille=150, punish_permille=200)


class Character(Struct, frozen=True):
    """What a worker is like; thousandths."""

    name: str
    speed: int
    errors: int
    """Of the base error rate."""


class TaskBatch(Struct, frozen=True):
    """Tasks that come one after the other, and how long there are none after them."""

    tasks: int
    seconds: tuple[int, int]
    priorities: tuple[Priority, ...]
    every_ns: int
    rest_ns: int


CHARACTERS: Final = (
    Character("general", 1_000, 1_000),
    Character("fast", 1_500, 800),
    Character("slow", 700, 1_200),
    Character("reliable", 1_100, 300),
)
BATCHES: Final = (
    TaskBatch(10, (2, 6), (Priority.LOW, Priority.MEDIUM, Priority.HIGH), 300 * MILLISECOND_NS, 20 * SECOND_NS),
    TaskBatch(15, (3, 8), (Priority.MEDIUM, Priority.HIGH, Priority.CRITICAL), 400 * MILLISECOND_NS, 30 * SECOND_NS),
    TaskBatch(3, (1, 3), (Priority.CRITICAL,), 100 * MILLISECOND_NS, 15 * SECOND_NS),
)


class Glance(Struct, frozen=True):
    """How a worker stood."""

    at_ns: int
    score: int
    factor: int


class WorkerOutcome(Struct, frozen=True, kw_only=True):
    """What became of a worker. Scores are thousandths of a point, factors and shares thousandths."""

    name: str
    stage: Stage
    score: int
    factor: int
    completed: int
    failed: int
    critical: int
    """Of its tasks, those that were critical."""
    mean_ns: int
    error_permille: int
    rewards: int
    punishments: int
    history: tuple[Glance, ...]
    """From the beginning on, at each look."""


class ScenarioOutcome(Struct, frozen=True, kw_only=True):
    """What came of one world."""

    seed: int
    workers: tuple[WorkerOutcome, ...]
    processed: int
    waiting: int
    critical_to_best: int
    """Critical tasks that went to a worker with the best score that could be had."""
    critical: int


class _Job(Struct):
    estimate_ns: int
    priority: Priority


class _Hand(Struct):
    """A worker with what it holds."""

    character: Character
    worker: SupervisedWorker
    live: int = 0
    critical: int = 0
    news: bool = False
    given: int = 0
    history: tuple[Glance, ...] = ()

    @property
    def load_permille(self) -> int:
        return self.live * PERMILLE * FACTOR_ONE // (CONCURRENCY * self.worker.dossier.factor)

    @property
    def room(self) -> int:
        dossier = self.worker.dossier
        if dossier.stage is Stage.PROBATION:
            return 1 - self.live
        return max(1, CONCURRENCY * dossier.factor // FACTOR_ONE) - self.live if dossier.stage is Stage.ACTIVE else 0


def run_scenario(seed: int, policy: Policy = POLICY) -> ScenarioOutcome:
    """One world.

    Args:
        seed: everything follows from it.
        policy: what is decided by.
    """
    return _World(seed, policy).run()


class _World:
    def __init__(self, seed: int, policy: Policy) -> None:
        self._seed, self._rng, self._policy = seed, Random(seed), policy
        self._now_ns = 0
        self._order = 0
        self._happenings: list[tuple[int, int, Callable[[], None]]] = []
        self._hands = [_Hand(character, SupervisedWorker(character.name, policy)) for character in CHARACTERS]
        self._pending: deque[_Job] = deque()
        self._given = 0
        self._critical = self._critical_to_best = 0
        self._end_ns = self._plan()
        for at_ns in range(policy.every_ns, self._end_ns + 1, policy.every_ns):
            self._at(at_ns, self._look)
        self._note()

    def run(self) -> ScenarioOutcome:
        while self._happenings and self._happenings[0][0] <= self._end_ns:
            self._now_ns, _, happens = heappop(self._happenings)
            happens()
            self._dispatch()
        return ScenarioOutcome(
            seed=self._seed,
            workers=tuple(map(self._outcome, self._hands)),
            processed=sum(hand.worker.completed + hand.worker.failed for hand in self._hands),
            waiting=len(self._pending) + sum(hand.live for hand in self._hands),
            critical_to_best=self._critical_to_best,
            critical=self._critical,
        )

    def _at(self, at_ns: int, happens: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._happenings, (at_ns, self._order, happens))

    def _plan(self) -> int:
        """The tasks; returns when all is over."""
        rng, at_ns = self._rng, 0
        for batch in BATCHES:
            for _ in range(batch.tasks):
                estimate_ns = rng.randrange(batch.seconds[0] * SECOND_NS, batch.seconds[1] * SECOND_NS + 1)
                job = _Job(estimate_ns, rng.choice(batch.priorities))
                self._at(at_ns, lambda job=job: self._pending.append(job))  # type: ignore[misc]  # bound as it is now
                at_ns += batch.every_ns
            at_ns += batch.rest_ns
        return at_ns

    def _dispatch(self) -> None:
        for job in sorted(self._pending, key=lambda job: -job.priority):
            able = [hand for hand in self._hands if hand.room > 0]
            if not able:
                return
            if job.priority is Priority.CRITICAL:
                chosen = min(able, key=lambda hand: (-hand.worker.dossier.score, hand.load_permille, hand.given))
            else:
                chosen = min(able, key=lambda hand: (hand.load_permille, hand.given))
            self._pending.remove(job)
            self._start(chosen, job, able)

    def _start(self, hand: _Hand, job: _Job, able: list[_Hand]) -> None:
        rng, character = self._rng, hand.character
        if job.priority is Priority.CRITICAL:
            best = max(other.worker.dossier.score for other in able)
            self._critical += 1
            self._critical_to_best += hand.worker.dossier.score == best
            hand.critical += 1
        expected_ns = job.estimate_ns * FACTOR_ONE // hand.worker.dossier.factor
        took_ns = expected_ns * PERMILLE // character.speed
        took_ns = took_ns * rng.randint(PERMILLE - SPREAD_PERMILLE, PERMILLE + SPREAD_PERMILLE) // PERMILLE
        ok = rng.randrange(PERMILLE**2) >= BASE_ERROR_PERMILLE * character.errors
        if not ok:
            took_ns = took_ns * rng.randint(*FAILING_PERMILLE) // PERMILLE
        self._given += 1
        hand.live, hand.given = hand.live + 1, self._given
        self._at(self._now_ns + took_ns, lambda: self._ended(hand, took_ns, ok, expected_ns))

    def _ended(self, hand: _Hand, took_ns: int, ok: bool, expected_ns: int) -> None:
        hand.live, hand.news = hand.live - 1, True
        hand.worker.ended(self._now_ns, took_ns, self._rng.randint(*UTILISATION_PERMILLE), ok, expected_ns)

    def _look(self) -> None:
        """What the cell does every three seconds."""
        fleet = FleetFigures(
            scores=tuple(sorted(hand.worker.dossier.score for hand in self._hands)),
            load_permille=sum(hand.live for hand in self._hands) * PERMILLE // (CONCURRENCY * len(self._hands)),
            backlog=len(self._pending),
        )
        for hand in self._hands:
            if hand.news or hand.worker.dossier.stage is not Stage.ACTIVE:
                others = [
                    other for other in self._hands if other is not hand and other.worker.dossier.stage is Stage.ACTIVE
                ]
                hand.worker.look(self._now_ns, fleet, only_for="" if others else "work")
                hand.news = False
        self._note()

    def _note(self) -> None:
        for hand in self._hands:
            dossier = hand.worker.dossier
            hand.history += (Glance(self._now_ns, dossier.score, dossier.factor),)

    def _outcome(self, hand: _Hand) -> WorkerOutcome:
        worker, dossier = hand.worker, hand.worker.dossier
        metrics = worker.metrics(self._now_ns)
        verdicts = [decided.sanction.verdict for decided in worker.decided]
        return WorkerOutcome(
            name=worker.name,
            stage=dossier.stage,
            score=dossier.score,
            factor=dossier.factor,
            completed=worker.completed,
            failed=worker.failed,
            critical=hand.critical,
            mean_ns=metrics.mean_ns,
            error_permille=metrics.error_permille,
            rewards=verdicts.count(Verdict.REWARD),
            punishments=verdicts.count(Verdict.PUNISH),
            history=hand.history,
        )


class Expectation(Struct, frozen=True):
    """What is expected of the scenario, and whether it came out so."""

    text: str
    holds: bool


WORLDS_MIN: Final = 100
"""For what is expected on average."""
_FIGURES: Final[tuple[tuple[str, int, Callable[[WorkerOutcome], int]], ...]] = (
    ("score", 1_000, lambda worker: worker.score),
    ("factor", 1_000, lambda worker: worker.factor),
    ("tasks", 1, lambda worker: worker.completed + worker.failed),
)


def expectations(outcomes: Sequence[ScenarioOutcome]) -> list[Expectation]:
    """What is expected, held against many worlds (``WORLDS_MIN``): in one of them chance decides.

    Of two workers the better one is expected to be ahead of the other in the same world, on average; how sure that is shows
    in the standard error. All but the slowest rise, and so does that one as a rule: the formula begins at 100, and gives two
    points for each task that was done.
    """
    found = []
    for figure, unit, of in _FIGURES:
        for better, worse in (("fast", "general"), ("reliable", "general"), ("general", "slow")):
            ahead = [of(_named(outcome, better)) / unit - of(_named(outcome, worse)) / unit for outcome in outcomes]
            mean_ahead, error = mean(ahead), stdev(ahead) / sqrt(len(ahead))
            share = sum(1 for one in ahead if one >= 0) / len(ahead)
            text = f"{better} ends above {worse} in {figure}: by {mean_ahead:.2f} ± {error:.2f}; {share:.0%} not below"
            found.append(Expectation(text, mean_ahead > 0))
    critical = sum(outcome.critical for outcome in outcomes)
    to_best = sum(outcome.critical_to_best for outcome in outcomes)
    waiting = sum(outcome.waiting for outcome in outcomes)
    return [
        *found,
        Expectation(
            f"critical tasks go to the best score that can be had: {to_best} of {critical}", to_best == critical
        ),
        Expectation(f"nothing is left waiting: {waiting}", waiting == 0),
    ]


def _named(outcome: ScenarioOutcome, name: str) -> WorkerOutcome:
    return next(worker for worker in outcome.workers if worker.name == name)
