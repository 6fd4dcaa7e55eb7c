from functools import cache

import pytest

from merit.lab.reference_scenario import BATCHES, CHARACTERS, POLICY, expectations, run_scenario
from merit.model.supervision import FACTOR_MAX, FACTOR_MIN, SCORE_MAX, Policy, Stage

WORLDS = 200
TASKS = sum(batch.tasks for batch in BATCHES)


@cache
def outcomes(worlds):
    return [run_scenario(seed) for seed in range(worlds)]


def test_it_is_the_reference_scenario():
    assert (POLICY.engine, POLICY.scoring) == ("threshold", "reference")
    assert (POLICY.reward_at, POLICY.punish_at) == (85_000, 50_000)
    assert (POLICY.reward_permille, POLICY.punish_permille) == (150, 200)
    assert [batch.tasks for batch in BATCHES] == [10, 15, 3]
    assert {one.name: (one.speed, one.errors) for one in CHARACTERS} == {
        "general": (1_000, 1_000),
        "fast": (1_500, 800),
        "slow": (700, 1_200),
        "reliable": (1_100, 300),
    }


def test_a_world_follows_from_its_seed():
    assert run_scenario(7) == run_scenario(7) == outcomes(WORLDS)[7]
    assert len({outcome.workers for outcome in outcomes(WORLDS)}) == WORLDS


def test_what_is_expected_comes_out_so():
    assert [one.text for one in expectations(outcomes(WORLDS)) if not one.holds] == []


def mean_of(worlds, name, figure):
    return sum(figure(worker) for one in worlds for worker in one.workers if worker.name == name) / len(worlds)


@pytest.mark.parametrize(
    ("figure", "ahead"),
    [
        (lambda worker: worker.score, 1_500),
        (lambda worker: worker.factor, 30),
        (lambda worker: worker.completed, 0.3),
    ],
    ids=["score", "factor", "completed"],
)
def test_fast_and_reliable_are_ahead_of_general_and_slow_is_last(figure, ahead):
    """By more than chance could do in so many worlds: the margins are several standard errors of the means."""
    worlds = outcomes(600)
    fast, reliable, general, slow = (mean_of(worlds, name, figure) for name in ("fast", "reliable", "general", "slow"))
    assert min(fast, reliable) > general + ahead
    assert general > slow + ahead


def test_workers_get_what_they_are_worth():
    worlds = outcomes(WORLDS)
    critical = {one.name: mean_of(worlds, one.name, lambda worker: worker.critical) for one in CHARACTERS}
    assert critical["fast"] + critical["reliable"] > 0.6 * sum(critical.values())
    assert critical["slow"] < critical["general"] < min(critical["fast"], critical["reliable"])
    punished = {one.name: mean_of(worlds, one.name, lambda worker: worker.punishments) for one in CHARACTERS}
    assert punished["reliable"] == min(punished.values())
    for outcome in worlds:
        assert (outcome.processed, outcome.waiting) == (TASKS, 0)
        assert outcome.critical_to_best == outcome.critical >= 3


def test_its_figures_agree_with_one_another():
    for outcome in outcomes(WORLDS):
        assert sum(worker.completed + worker.failed for worker in outcome.workers) == outcome.processed
        assert sum(worker.critical for worker in outcome.workers) == outcome.critical
        for worker in outcome.workers:
            assert worker.history[0].score == SCORE_MAX
            assert (worker.history[-1].score, worker.history[-1].factor) == (worker.score, worker.factor)
            assert all(0 <= moment.score <= SCORE_MAX for moment in worker.history)
            assert all(FACTOR_MIN <= moment.factor <= FACTOR_MAX for moment in worker.history)
            changes = sum(
                1 for one, other in zip(worker.history, worker.history[1:], strict=False) if one.factor != other.factor
            )
            assert changes == worker.rewards + worker.punishments


def test_who_is_punished_hard_enough_is_paused_and_gets_nothing():
    """With a policy that punishes everybody: all are paused but the last, who is kept."""
    harsh = Policy(scoring="reference", reward_at=100_001, punish_at=100_000, punish_permille=400, attempts_min=1)
    outcome = run_scenario(1, harsh)
    assert {worker.stage for worker in outcome.workers} <= {Stage.PAUSED, Stage.PROBATION, Stage.ACTIVE}
    assert sum(1 for worker in outcome.workers if worker.stage is Stage.ACTIVE) == 1
    assert outcome.processed + outcome.waiting == TASKS


def test_the_default_scoring_keeps_the_slow_one_from_rising():
    usual = [run_scenario(seed, Policy(reward_permille=150, punish_permille=200)) for seed in range(100)]
    assert mean_of(usual, "slow", lambda worker: worker.rewards) == 0
    assert mean_of(outcomes(WORLDS), "slow", lambda worker: worker.rewards) > 0.5
