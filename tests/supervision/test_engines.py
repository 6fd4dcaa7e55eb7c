import pytest

from merit.model.limits import SECOND_NS
from merit.model.supervision import Objective, Policy, Verdict
from merit.supervision.adaptive import Adaptive, thresholds
from merit.supervision.catalogue import ENGINES
from merit.supervision.engine import FleetFigures, Subject
from merit.supervision.metrics import Metrics
from merit.supervision.thresholds import Thresholds
from merit.testing.engine_contract import EngineContract

POLICY = Policy()
ALONE = FleetFigures()
GOOD_FLEET = FleetFigures(scores=tuple(range(88_000, 98_000, 500)))


class TestThresholds(EngineContract):
    @pytest.fixture
    def make(self):
        return Thresholds


class TestAdaptive(EngineContract):
    @pytest.fixture
    def make(self):
        return Adaptive


def subject(score, **figures):
    given = {"factor": 1_000, "metrics": Metrics(attempts=50), "since_ns": 60 * SECOND_NS, "attempts_since": 50}
    return Subject(worker="w", score=score, **{**given, **figures})


def verdict(engine, subject, fleet=ALONE, policy=POLICY):
    opinion = engine.judge(subject, fleet, policy)
    return opinion and opinion.verdict


def test_the_default_policy_names_an_engine():
    assert POLICY.engine in ENGINES
    assert set(ENGINES) == {"threshold", "adaptive"}


@pytest.mark.parametrize("engine", [make() for make in ENGINES.values()], ids=ENGINES)
def test_alone_both_go_by_what_the_operator_has_set(engine):
    assert verdict(engine, subject(85_000)) is Verdict.REWARD
    assert verdict(engine, subject(84_999)) is None
    assert verdict(engine, subject(50_001)) is None
    assert verdict(engine, subject(50_000)) is Verdict.PUNISH
    assert verdict(engine, subject(60_000), policy=Policy(punish_at=60_000)) is Verdict.PUNISH


def test_an_opinion_says_what_it_went_by():
    opinion = Thresholds().judge(subject(42_512), ALONE, POLICY)
    assert opinion is not None
    assert opinion.reason == "its score 42.5 is not above 50.0"
    assert dict(opinion.figures) == {"score": 42_512, "reward_at": 85_000, "punish_at": 50_000}


@pytest.mark.parametrize("engine", [make() for make in ENGINES.values()], ids=ENGINES)
def test_a_reward_after_a_punishment_rests_on_other_attempts(engine):
    punished = {"last": Verdict.PUNISH, "since_ns": 60 * SECOND_NS}
    assert verdict(engine, subject(95_000, attempts_since=24, **punished)) is None
    assert verdict(engine, subject(95_000, attempts_since=25, **punished)) is Verdict.REWARD
    # The other way round it is quick.
    assert verdict(engine, subject(30_000, last=Verdict.REWARD, attempts_since=3)) is Verdict.PUNISH


def test_in_a_good_fleet_more_is_asked_but_nobody_is_punished_for_being_the_last_of_the_good():
    reward_at, punish_at = thresholds(GOOD_FLEET, POLICY)
    assert (reward_at, punish_at) == (95_000, 60_000)
    adaptive = Adaptive()
    assert verdict(adaptive, subject(88_000), GOOD_FLEET) is None
    assert verdict(adaptive, subject(60_000), GOOD_FLEET) is Verdict.PUNISH


def test_in_a_bad_fleet_the_work_may_be_to_blame():
    fleet = FleetFigures(scores=tuple(range(20_000, 60_000, 1_000)))
    assert thresholds(fleet, POLICY) == (75_000, 40_000)
    assert verdict(Adaptive(), subject(41_000), fleet) is None
    assert verdict(Adaptive(), subject(59_000), fleet) is None


def test_percentiles_of_few_say_nothing():
    assert thresholds(FleetFigures(scores=(97_000,) * 7), POLICY) == (85_000, 50_000)
    assert thresholds(FleetFigures(scores=(97_000,) * 8), POLICY) == (95_000, 60_000)


def test_at_peak_punishments_are_relaxed():
    assert [thresholds(FleetFigures(load_permille=load), POLICY)[1] for load in (0, 800, 900, 1_000)] == [
        50_000,
        50_000,
        45_000,
        40_000,
    ]


def test_missed_objectives_make_it_strict_unless_there_is_a_peak_to_blame():
    def punish_at(reached, load=0):
        objectives = ((Objective("c", 990), 1_000), (Objective("d", 980), reached))
        return thresholds(FleetFigures(objectives=objectives, load_permille=load), POLICY)[1]

    assert [punish_at(reached) for reached in (1_000, 980, 970, 960, 0)] == [50_000, 50_000, 55_000, 60_000, 60_000]
    assert punish_at(960, 900) == 50_000
    assert punish_at(960, 1_000) == 40_000


def test_whoever_does_not_use_what_it_has_is_given_no_more():
    adaptive = Adaptive()
    idle, unknown = Metrics(attempts=50, utilisation_permille=150), Metrics(attempts=50)
    assert verdict(adaptive, subject(90_000, metrics=idle)) is None
    assert verdict(adaptive, subject(90_000, metrics=unknown)) is Verdict.REWARD
    # But it gets back what was taken from it.
    assert verdict(adaptive, subject(90_000, metrics=idle, factor=900)) is Verdict.REWARD


def test_whoever_was_punished_gets_back_without_being_among_the_best():
    adaptive, good = Adaptive(), subject(90_000, factor=700)
    assert verdict(adaptive, good, GOOD_FLEET) is Verdict.REWARD
    assert verdict(adaptive, subject(90_000), GOOD_FLEET) is None


def test_a_good_worker_that_fails_is_reset_once_before_it_is_punished():
    adaptive = Adaptive()
    broken = Metrics(attempts=50, failed=25, error_permille=500, life_completed=900, life_failed=40)
    always = Metrics(attempts=50, failed=25, error_permille=500, life_completed=25, life_failed=25)
    assert verdict(adaptive, subject(40_000, metrics=broken)) is Verdict.RESET
    assert verdict(adaptive, subject(40_000, metrics=broken, last=Verdict.RESET)) is Verdict.PUNISH
    assert verdict(adaptive, subject(40_000, metrics=broken, last=Verdict.PUNISH)) is Verdict.PUNISH
    assert verdict(adaptive, subject(40_000, metrics=always)) is Verdict.PUNISH


def test_whoever_finishes_its_work_but_wrong_is_to_learn_again():
    adaptive = Adaptive()
    unlearnt = Metrics(attempts=50, completed=50, checked=10, quality_permille=600, life_completed=50)
    assert verdict(adaptive, subject(40_000, metrics=unlearnt)) is Verdict.RETRAIN
    assert verdict(adaptive, subject(40_000, metrics=unlearnt, last=Verdict.RETRAIN)) is Verdict.PUNISH
