"""Workers that stay as they are, through metrics, score, engine and sanctions, for thousands of rounds."""

from itertools import pairwise
from math import comb
from random import Random

import pytest

from merit.lab.supervised import SupervisedWorker
from merit.model.limits import SECOND_NS
from merit.model.supervision import FACTOR_MAX, FACTOR_MIN, FACTOR_ONE, Policy, Stage, Verdict
from merit.model.track_record import WINDOW, EndedAttempt, Ending
from merit.supervision.catalogue import ENGINES, SCORINGS
from merit.supervision.engine import FleetFigures
from merit.supervision.metrics import metrics_of

POLICY = Policy()


class Life:
    """A worker with whom rounds are made: it does some tasks, and is looked at."""

    def __init__(self, engine="threshold"):
        self.worker = SupervisedWorker("w", Policy(engine=engine))
        self.now_ns, self.rounds = 1_700_000_000 * SECOND_NS, 0

    def round(self, rng, error, lateness=1, tasks=4):
        self.rounds += 1
        self.now_ns += POLICY.every_ns
        for _ in range(tasks if self.stage() in {Stage.ACTIVE, Stage.PROBATION} else 0):
            self.worker.ended(self.now_ns, int(lateness * SECOND_NS), 600, rng.random() >= error, SECOND_NS)
        self.worker.look(self.now_ns, FleetFigures(scores=(90_000,) * 10, load_permille=600, backlog=1))

    def stage(self):
        return self.worker.dossier.stage

    def factor(self):
        return self.worker.dossier.factor

    def attempts(self):
        return self.worker.completed + self.worker.failed

    def verdicts(self):
        return [decided.sanction.verdict for decided in self.worker.decided]

    def turns(self):
        """How often a reward came after a punishment, or the other way round."""
        signs = [verdict for verdict in self.verdicts() if verdict in {Verdict.REWARD, Verdict.PUNISH}]
        return sum(1 for one, other in pairwise(signs) if one is not other)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("error", [0, 0.01, 0.05, 0.1, 0.5, 0.7, 1])
def test_who_is_clearly_good_or_bad_never_hears_the_opposite(engine, error):
    for seed in range(3):
        life, rng = Life(engine), Random(seed)
        for _ in range(700):
            life.round(rng, error)
        assert life.turns() == 0
        good = error <= 0.1
        assert life.factor() == FACTOR_MAX if good else life.factor() < POLICY.pause_below
        assert (life.stage() is Stage.ACTIVE) == good
        assert (Verdict.PUNISH not in life.verdicts()) == good


@pytest.mark.parametrize("engine", ENGINES)
def test_who_is_in_between_hears_the_opposite_seldom(engine):
    """At the worst of all error rates: no more than once in a life, and once in 1,000 attempts."""
    for error in (0.15, 0.2, 0.25, 0.3):
        turns = attempts = 0
        for seed in range(4):
            life, rng = Life(engine), Random(seed)
            for _ in range(1_200):
                life.round(rng, error)
            turns, attempts = turns + life.turns(), attempts + life.attempts()
        assert turns <= 4 + attempts / 1_000


def test_an_honest_worker_with_one_percent_of_errors_is_not_punished():
    """Exactly: the probability that its score, by any number of attempts, is so low. The bar is one in a thousand."""
    scoring = SCORINGS[POLICY.scoring]()
    for attempts in range(POLICY.attempts_min, WINDOW + 1):
        probability = 0.0
        for failed in range(attempts + 1):
            endings = [
                EndedAttempt(number, SECOND_NS, 600, Ending.FAILED if number < failed else Ending.COMPLETED)
                for number in range(attempts)
            ]
            if scoring.score(metrics_of(endings, 0)) <= POLICY.punish_at:
                probability += comb(attempts, failed) * 0.01**failed * 0.99 ** (attempts - failed)
        assert probability < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_that_has_mended_comes_back_and_to_all_that_it_can_earn(engine):
    """It was bad long enough to be paused, and now has one error in a hundred."""
    for seed in range(20):
        life, rng = Life(engine), Random(seed)
        while life.stage() is Stage.ACTIVE:
            life.round(rng, 0.7)
        assert life.stage() is Stage.PAUSED
        for _ in range(400):
            life.round(rng, 0.01)
        assert life.stage() is Stage.ACTIVE
        assert life.factor() == FACTOR_MAX
        assert life.verdicts().count(Verdict.PAUSE) <= 3


def test_a_hopeless_worker_is_tried_ever_more_seldom_and_costs_little():
    life, rng = Life(), Random(1)
    for _ in range(24 * 1_200):  # a day
        life.round(rng, 1)
    assert life.stage() is Stage.PAUSED
    assert life.factor() >= FACTOR_MIN
    tried = [decided.at_ns for decided in life.worker.decided if decided.sanction.verdict is Verdict.PROBATION]
    waits = [after - before for before, after in pairwise(tried)]
    assert waits == sorted(waits)
    assert 5 <= len(tried) <= 11
    assert life.worker.failed < 100


def test_slowness_alone_is_punished_when_it_is_gross():
    verdicts = {}
    for lateness in (1, 1.4, 2, 3.5):
        life, rng = Life(), Random(1)
        for _ in range(300):
            life.round(rng, 0, lateness)
        verdicts[lateness] = set(life.verdicts())
    assert verdicts[1] == verdicts[1.4] == {Verdict.REWARD}
    assert verdicts[2] == set()
    assert verdicts[3.5] >= {Verdict.PUNISH, Verdict.PAUSE}
    assert Verdict.REWARD not in verdicts[3.5]


def test_a_change_is_noticed():
    """A good worker that turns bad, and one that was bad and turns good: a few rounds, not hours."""
    life, rng = Life(), Random(2)
    for _ in range(200):
        life.round(rng, 0.01)
    assert life.factor() == FACTOR_MAX
    turned = life.rounds
    while life.factor() > FACTOR_ONE:
        life.round(rng, 0.8)
    assert life.rounds - turned <= 20
    while life.stage() is Stage.ACTIVE:
        life.round(rng, 0.8)
    assert life.rounds - turned <= 40
