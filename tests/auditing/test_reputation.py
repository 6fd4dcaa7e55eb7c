import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.auditing.catalogue import MODELS
from merit.auditing.evidence import Outcomes
from merit.auditing.reputation import BetaReputation, SimpleReputation, overall
from merit.model.track_record import UNKNOWN, Rating
from merit.testing.reputation_contract import ReputationContract

GOOD = Outcomes(completed=1, passed=1)
COUNTS = st.integers(0, 30)
RATINGS = (
    st.lists(st.integers(0, 1_000), min_size=3, max_size=3)
    .map(sorted)
    .map(lambda three: Rating(value=three[1], low=three[0], high=three[2]))
)


class TestSimple(ReputationContract):
    trusts_unseen = True

    @pytest.fixture
    def make(self):
        return SimpleReputation


class TestBeta(ReputationContract):
    falls_within = 3

    @pytest.fixture
    def make(self):
        return BetaReputation


@st.composite
def evidences(draw):
    completed = draw(COUNTS)
    return Outcomes(
        completed=completed,
        slow=draw(st.integers(0, completed)),
        passed=draw(st.integers(0, completed)),
        failed=draw(COUNTS),
        rejected=draw(COUNTS),
        wrong=draw(COUNTS),
    )


def learnt(model, *evidence, memory=()):
    for one in evidence:
        memory = model.learn(memory, one)
    return memory


def test_the_catalogue_makes_all_of_them():
    assert {name: make().rating(()) for name, make in MODELS.items()} == {"beta": UNKNOWN, "simple": UNKNOWN}


def test_the_simple_rule_is_that_of_the_field():
    model, values = SimpleReputation(), []
    memory: tuple[int, ...] = ()
    for evidence in (*[Outcomes(completed=1)] * 6, Outcomes(failed=1), Outcomes(wrong=1), *[Outcomes(rejected=1)] * 4):
        memory = model.learn(memory, evidence)
        values.append(model.rating(memory).value)
    assert values == [600, 700, 800, 900, 1_000, 1_000, 800, 600, 400, 200, 0, 0]
    assert model.rating(learnt(model, Outcomes(completed=1, slow=1))).value == 550


def test_under_the_simple_rule_one_of_whom_little_is_known_stands_low():
    model = SimpleReputation()
    one, many = learnt(model, Outcomes(completed=1)), learnt(model, *[Outcomes(completed=1)] * 9)
    assert (model.rating(one), model.rating(many)) == (Rating(600, 300, 1_000), Rating(1_000, 900, 1_000))


def test_beta_is_the_share_of_right_results_when_nothing_else_goes_wrong():
    """With one of each beforehand, and wrong ones weighing three times."""
    model = BetaReputation()
    assert model.rating(learnt(model, *[Outcomes(passed=1)] * 8)).value == 900
    assert model.rating(learnt(model, Outcomes(passed=6, wrong=2))).value == 500


def test_beta_takes_failures_and_wrong_results_for_two_things():
    """Of whom one result in twenty is looked at, and who fails at one attempt in ten, is right in nine of ten attempts: not in
    a third of what is known of it."""
    model, memory = BetaReputation(), ()
    for _ in range(40):
        memory = learnt(model, Outcomes(completed=18, failed=2, passed=1), memory=memory)
    assert 850 < model.rating(memory).value < 900


def test_rejected_results_weigh_more_than_failures_and_wrong_ones_most():
    model = BetaReputation()
    start = learnt(model, Outcomes(completed=20, passed=20))
    values = [
        model.rating(learnt(model, one, memory=start)).value
        for one in (Outcomes(failed=1), Outcomes(rejected=1), Outcomes(wrong=1))
    ]
    assert model.rating(start).value > values[0] > values[1] > values[2]


def test_unseen_results_together_are_worth_one_that_was_looked_at():
    model = BetaReputation()
    unseen, seen = (model.rating(learnt(model, one)) for one in (Outcomes(completed=10**7), Outcomes(passed=1)))
    assert unseen.value == pytest.approx(seen.value, abs=2)
    assert unseen.low == pytest.approx(seen.low, abs=2)


@given(st.lists(evidences(), max_size=30), st.integers(0, 200))
def test_beta_falls_below_trust_within_few_wrong_results(history, before):
    """Whatever came before: an on-off worker that was good for long too."""
    model = BetaReputation()
    memory = learnt(model, *history, *[GOOD] * before)
    lows = [model.rating(learnt(model, *[Outcomes(wrong=1)] * times, memory=memory)).low for times in range(1, 9)]
    assert lows[0] < 750
    assert lows[2] < 500
    assert lows[7] < 200


def test_one_slip_is_forgiven_soon():
    model = BetaReputation()
    memory = learnt(model, *[GOOD] * 50, Outcomes(wrong=1))
    assert model.rating(memory).low < 750
    assert model.rating(learnt(model, *[GOOD] * 10, memory=memory)).low > 800


@given(evidences(), evidences())
def test_beta_forgets(one, other):
    """After a thousand right results it does not matter any more how it began."""
    model = BetaReputation()
    ratings = [model.rating(learnt(model, first, *[GOOD] * 1_000)) for first in (one, other)]
    assert abs(ratings[0].value - ratings[1].value) <= 1
    assert ratings[0].low > 900


@given(st.lists(evidences(), max_size=10), st.randoms(use_true_random=False))
def test_beta_hardly_minds_in_what_order_a_batch_came(batch, rng):
    """Of a batch only sums are known; shuffled and learnt one by one it comes to much the same while nothing is forgotten."""
    model = BetaReputation()
    few = [Outcomes(passed=one.passed % 3, failed=one.failed % 2, wrong=one.wrong % 2) for one in batch]
    ratings = []
    for _ in range(3):
        rng.shuffle(few)
        ratings.append(model.rating(learnt(model, *few)))
    assert ratings == [ratings[0]] * 3


@given(st.lists(st.tuples(RATINGS, st.integers(0, 10**6)), max_size=6))
def test_overall_is_between_the_ratings_it_is_made_of(rated):
    found = overall(rated)
    assert 0 <= found.low <= found.value <= found.high <= 1_000
    weighty = [rating for rating, weight in rated if weight]
    if not weighty:
        assert found == UNKNOWN
    else:
        assert min(one.value for one in weighty) <= found.value <= max(one.value for one in weighty)
        assert min(one.low for one in weighty) <= found.low <= max(one.low for one in weighty)
        assert min(one.high for one in weighty) <= found.high <= max(one.high for one in weighty)


@given(st.lists(st.tuples(RATINGS, st.integers(1, 10**6)), min_size=1, max_size=6))
def test_overall_goes_by_weights_not_by_their_order(rated):
    assert overall(rated) == overall(reversed(rated)) == overall([(one, 7 * weight) for one, weight in rated])


def test_overall_counts_what_is_done_often():
    proven, poor = Rating(950, 900, 990), Rating(200, 100, 300)
    assert overall([(proven, 9), (poor, 1)]) == Rating(875, 820, 921)
    assert overall([(proven, 0), (poor, 1)]) == poor
    assert overall([]) == UNKNOWN
