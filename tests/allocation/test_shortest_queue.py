import pytest

from merit.allocation.shortest_queue import ShortestQueue
from merit.allocation.strategy import Candidate
from merit.testing.strategy_contract import StrategyContract


class TestShortestQueue(StrategyContract):
    @pytest.fixture
    def make(self):
        return ShortestQueue


def test_it_counts_attempts_whatever_the_concurrency():
    strategy = ShortestQueue()
    strategy.place(Candidate("large", 100, 2))
    strategy.place(Candidate("small", 1, 1))
    assert strategy.choose() == "small"
