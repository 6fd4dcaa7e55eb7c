import pytest

from merit.lab.bench.cheats import HONEST_WRONG, SAME_ANSWER_WITHIN, TASKS, Cheat, CheatTrial


@pytest.mark.parametrize("cheat", Cheat)
def test_nearly_all_cheats_are_noticed_and_no_honest_worker_is_taken_for_one(cheat):
    found = CheatTrial(f"test {cheat}", cheat, HONEST_WRONG[1]).go(TASKS)
    assert found.alarms == ()
    assert sum(delay is not None for delay in found.delays) >= 0.75 * len(found.delays)
    if cheat is Cheat.SAME_ANSWER:
        assert all(delay is not None and delay <= SAME_ANSWER_WITHIN for delay in found.delays)


@pytest.mark.parametrize("wrong", HONEST_WRONG)
def test_among_honest_workers_nobody_is_accused(wrong):
    """One in 500 may be; of these 40 nobody is. At size: ``merit bench merit``."""
    found = CheatTrial("test", None, wrong).go(TASKS)
    assert found.alarms == ()
    assert found.honest == 40


def test_the_same_seed_gives_the_same():
    one, again, other = (CheatTrial(seed, Cheat.ON_OFF, 0.05).go(60) for seed in ("test", "test", "other"))
    assert one == again != other
