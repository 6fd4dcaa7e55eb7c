from itertools import pairwise
from math import sqrt

from hypothesis import given
from hypothesis import strategies as st

from merit.auditing import sampling
from merit.auditing.evidence import Outcomes
from merit.auditing.reputation import BetaReputation
from merit.auditing.sampling import ALL, is_looked_at
from merit.model.auditing import AuditPolicy
from merit.model.track_record import UNKNOWN, Rating

POLICY = AuditPolicy("translate")
NEWCOMER_TASKS, FLOOR_PERMILLE = POLICY.newcomer_tasks, POLICY.floor_permille
TASKS = [f"task {number}" for number in range(20_000)]


def audit_permille(rating, looked_at, in_row, floor_permille=FLOOR_PERMILLE):
    return sampling.audit_permille(
        rating, looked_at, in_row, newcomer_tasks=NEWCOMER_TASKS, floor_permille=floor_permille
    )


def test_newcomers_are_looked_at_in_full():
    perfect = Rating(1_000, 1_000, 1_000)
    assert [audit_permille(perfect, results, results) for results in range(NEWCOMER_TASKS)] == [ALL] * NEWCOMER_TASKS
    assert audit_permille(perfect, NEWCOMER_TASKS, NEWCOMER_TASKS) == FLOOR_PERMILLE
    assert audit_permille(UNKNOWN, 10**6, 10**6) == ALL


def test_one_who_was_caught_is_looked_at_in_full_until_it_has_done_well_again():
    perfect, half = Rating(1_000, 1_000, 1_000), NEWCOMER_TASKS // 2
    assert [audit_permille(perfect, 10**6, in_row) for in_row in range(half)] == [ALL] * half
    assert audit_permille(perfect, 10**6, half) == FLOOR_PERMILLE


COUNT = st.integers(0, 30)
SHARE = st.integers(0, 1_000)


@given(SHARE, SHARE, COUNT, COUNT, SHARE)
def test_never_below_the_floor_and_never_less_for_a_worse_reputation(low, more, looked_at, in_row, floor):
    worse, better = Rating(low, low), Rating(min(low + more, 1_000), min(low + more, 1_000))
    of_worse, of_better = (audit_permille(one, looked_at, in_row, floor) for one in (worse, better))
    assert floor <= of_better <= of_worse <= ALL


def test_the_well_reputed_are_looked_at_little_more_often_than_the_floor():
    model = BetaReputation()
    rates = [
        audit_permille(model.rating(model.learn((), Outcomes(completed=results, passed=results))), results, results)
        for results in (10, 15, 20, 30, 50)
    ]
    assert all(later <= earlier for earlier, later in pairwise(rates))
    assert rates[-1] < FLOOR_PERMILLE + 5


def test_as_many_are_looked_at_as_is_said_and_of_any_worker_at_a_larger_share_the_same_ones_too():
    before: set[str] = set()
    for permille in (0, 50, 300, 999, ALL):
        found = {task for task in TASKS if is_looked_at(task, b"salt", permille)}
        mean = len(TASKS) * permille / ALL
        assert abs(len(found) - mean) <= 4 * sqrt(mean * (1 - permille / ALL))
        assert before <= found
        before = found


def test_the_same_are_looked_at_every_time_and_others_under_another_secret():
    one, again, other = (
        [is_looked_at(task, salt, 500) for task in TASKS] for salt in (b"secret", b"secret", b"another")
    )
    assert one == again
    assert 0.48 < sum(mine == theirs for mine, theirs in zip(one, other, strict=True)) / len(TASKS) < 0.52


def test_what_is_known_of_some_tasks_tells_nothing_of_others():
    """With CRC-32 the exclusive or of three ids of the same length gives that of the three choices."""
    drawn = {task: is_looked_at(task, b"salt", 500) for task in map("{:04x}".format, range(2**12))}
    foretold = [
        drawn[f"{one:04x}"] ^ drawn[f"{one ^ 1:04x}"] ^ drawn[f"{one ^ 2:04x}"] == drawn[f"{one ^ 3:04x}"]
        for one in range(2**12)
    ]
    assert 0.45 < sum(foretold) / len(foretold) < 0.55
