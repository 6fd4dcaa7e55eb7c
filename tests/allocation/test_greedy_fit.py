import pytest

from merit.allocation.greedy_fit import GreedyFit
from merit.allocation.strategy import Candidate
from merit.testing.strategy_contract import StrategyContract


class TestGreedyFit(StrategyContract):
    @pytest.fixture
    def make(self):
        return GreedyFit


def test_the_closest_fit_goes_first_and_among_equal_ones_whoever_waits_longest():
    strategy = GreedyFit()
    strategy.place(Candidate("empty", misfit_permille=2_400, turn=1))
    strategy.place(Candidate("half full", live=5, misfit_permille=700, turn=3))
    strategy.place(Candidate("half full too", live=5, misfit_permille=700, turn=2))
    assert strategy.choose() == "half full too"
