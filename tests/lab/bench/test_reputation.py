import pytest

from merit.auditing.reputation import BetaReputation
from merit.lab.bench.reputation import (
    BUSIEST_MAX,
    EXCESS_PCT_MAX,
    ON_OFF_ACCEPTED_MAX,
    OUT_WITHIN,
    ROUNDS,
    SAMPLED_EXCESS_PCT_MAX,
    Arena,
    Attack,
)
from merit.model.track_record import UNKNOWN


class Indifferent(BetaReputation):
    """Learns nothing of anybody."""

    def rating(self, memory):
        return UNKNOWN


@pytest.mark.parametrize("attack", Attack)
@pytest.mark.parametrize(("floor_permille", "bar"), [(1_000, EXCESS_PCT_MAX), (50, SAMPLED_EXCESS_PCT_MAX)])
def test_few_bad_results_get_by_and_the_work_is_spread_among_the_honest(attack, floor_permille, bar):
    contests = [Arena(f"test {seed}", attack, floor_permille).go(ROUNDS) for seed in range(2)]
    assert sum(contest.excess_pct for contest in contests) / 2 <= bar
    assert all(contest.busiest <= BUSIEST_MAX for contest in contests)
    assert all(contest.honest_out_pct <= 3 for contest in contests), "one of 35"
    if floor_permille < 1_000:
        # Judges err too, and whoever seems to have been wrong is looked at more often.
        most_pct = 20 if attack is Attack.BALLOT_STUFFING else 12
        assert all(7 < contest.looked_at_pct < most_pct for contest in contests)


def test_who_always_cheats_is_out_soon():
    contest = Arena("test", Attack.CONSTANT, 50).go(ROUNDS)
    assert len(contest.out_after) == 15
    assert max(contest.out_after) <= OUT_WITHIN


def test_who_turns_bad_gets_few_bad_results_by():
    contests = [Arena(f"test {seed}", Attack.ON_OFF, 50).go(ROUNDS) for seed in range(3)]
    assert sum(contest.accepted for contest in contests) / 3 <= ON_OFF_ACCEPTED_MAX


def test_without_reputation_more_than_a_quarter_of_all_results_is_wrong():
    """27.5 hundredths, of which 5 are honest errors: so the fleet is the one that is meant."""
    contest = Arena("test", Attack.CONSTANT, 50, model=Indifferent()).go(ROUNDS)
    assert contest.excess_pct == pytest.approx(22.5, abs=1)


def test_the_same_seed_gives_the_same():
    for attack in Attack:
        one, again, other = (Arena(seed, attack, 50).go(50) for seed in ("test", "test", "other"))
        assert one == again != other
