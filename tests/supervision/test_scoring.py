import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.model.limits import SECOND_NS
from merit.model.supervision import SCORE_MAX
from merit.model.track_record import EndedAttempt, Ending
from merit.supervision.catalogue import SCORINGS
from merit.supervision.metrics import Metrics, metrics_of
from merit.supervision.scoring import PRIOR, Reference, Relative
from merit.testing.engine_contract import ScoringContract

NOW_NS = 1_700_000_000 * SECOND_NS


class TestReference(ScoringContract):
    @pytest.fixture
    def make(self):
        return Reference


class TestRelative(ScoringContract):
    @pytest.fixture
    def make(self):
        return Relative


def worked(completed, failed, **figures):
    attempts = completed + failed
    return Metrics(
        attempts=attempts,
        completed=completed,
        failed=failed,
        error_permille=1_000 * failed // attempts,
        **{"life_completed": completed, "life_failed": failed, **figures},
    )


def test_the_default_policy_and_the_catalogue_agree():
    assert set(SCORINGS) == {"relative", "reference"}


@given(
    completed=st.integers(0, 50),
    failed=st.integers(0, 50),
    mean_ms=st.integers(0, 60_000),
    used=st.integers(0, 1_000),
    life=st.tuples(st.integers(0, 200), st.integers(0, 200)),
)
def test_the_reference_is_the_formula_to_the_thousandth(completed, failed, mean_ms, used, life):
    attempts = completed + failed
    metrics = Metrics(
        attempts=attempts,
        completed=completed,
        failed=failed,
        mean_ns=mean_ms * 1_000_000,
        utilisation_permille=used,
        life_completed=life[0],
        life_failed=life[1],
    )
    points = 100 - 80 * (failed / attempts if attempts else 0) + 2 * (life[0] - life[1])
    points -= 2 * max(0, mean_ms / 1_000 - 5)
    points -= 30 * abs(used / 1_000 - 0.6) if used else 0
    assert abs(Reference().score(metrics) - 1_000 * max(0, min(points, 100))) <= 1


def test_the_reference_in_figures():
    reference = Reference()
    assert reference.score(Metrics()) == 100_000
    # 100 − 80·0.5 − 2·(8 − 5) − 30·0.2 + 2·0
    assert reference.score(worked(5, 5, mean_ns=8 * SECOND_NS, utilisation_permille=800)) == 48_000
    # What the default does not do: volume makes up for nearly anything.
    assert reference.score(worked(25, 25, life_completed=100, life_failed=50)) == 100_000


def test_whom_nobody_has_seen_at_work_is_in_the_middle():
    assert Relative().score(Metrics()) == PRIOR


@pytest.mark.parametrize(("completed", "score"), [(1, 72), (3, 76), (9, 84), (10, 85), (50, 95)])
def test_trust_comes_with_attempts(completed, score):
    assert Relative().score(worked(completed, 0)) // 1_000 == score


@pytest.mark.parametrize(
    ("metrics", "score"),
    [
        (worked(45, 5), 85),
        (worked(40, 10), 75),
        (worked(28, 22), 51),
        (worked(27, 23), 49),
        (worked(50, 0, lateness_permille=2_000), 70),
        (worked(50, 0, lateness_permille=3_000), 45),
        (worked(50, 0, lateness_permille=9_000), 45),
        (worked(50, 0, checked=200, quality_permille=950), 83),
        (worked(50, 0, checked=200, quality_permille=800), 47),
        (worked(50, 0, checked=1, quality_permille=0), 72),
        (worked(25, 25, availability_permille=500), 28),
        (worked(0, 50), 11),
    ],
)
def test_the_default_in_figures(metrics, score):
    assert Relative().score(metrics) // 1_000 == score


def test_the_default_is_not_moved_by_how_long_tasks_are_or_how_many_there_were():
    relative = Relative()
    usual = relative.score(worked(40, 10))
    assert relative.score(worked(40, 10, mean_ns=3_600 * SECOND_NS)) == usual
    assert relative.score(worked(40, 10, life_completed=10**6)) == usual
    assert relative.score(worked(40, 10, utilisation_permille=10)) == usual
    assert relative.score(worked(40, 10, utilisation_permille=100), {"utilisation": 30_000}) == usual - 12_500


endings = st.lists(
    st.builds(
        EndedAttempt,
        ended_ns=st.integers(NOW_NS - 10**12, NOW_NS),
        took_ns=st.integers(0, 10**12),
        load_permille=st.integers(0, 1_000),
        ending=st.sampled_from(Ending),
    ),
    max_size=60,
)


@given(
    endings=endings,
    passed=st.integers(0, 10**6),
    wrong=st.integers(0, 10**6),
    lateness=st.integers(0, 10**9),
    life=st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)),
    weights=st.dictionaries(st.sampled_from([*Relative.weights, *Reference.weights]), st.integers(0, 10**6)),
)
def test_scores_stay_within_their_bounds(endings, passed, wrong, lateness, life, weights):
    metrics = metrics_of(
        endings,
        NOW_NS,
        passed=passed,
        wrong=wrong,
        lateness_permille=lateness,
        life_completed=life[0],
        life_failed=life[1],
    )
    for make in SCORINGS.values():
        assert 0 <= make().score(metrics, weights) <= SCORE_MAX


@given(checked=st.integers(0, 1_000), wrong=st.integers(0, 1_000), more=st.integers(1, 100))
def test_wrong_results_never_make_the_default_better(checked, wrong, more):
    before = metrics_of([], NOW_NS, passed=checked, wrong=wrong)
    after = metrics_of([], NOW_NS, passed=checked, wrong=wrong + more)
    relative = Relative()
    shift = {"attempts": 50, "completed": 50}
    assert (
        relative.score(_with(after, shift)) <= relative.score(_with(before, shift)) + 300
    )  # its share is known to a thousandth


def _with(metrics, figures):
    return Metrics(**{**{name: getattr(metrics, name) for name in metrics.__struct_fields__}, **figures})
