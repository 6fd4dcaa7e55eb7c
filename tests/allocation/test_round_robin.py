import pytest

from merit.allocation.round_robin import RoundRobin
from merit.allocation.strategy import Candidate
from merit.testing.strategy_contract import StrategyContract


class TestRoundRobin(StrategyContract):
    @pytest.fixture
    def make(self):
        return RoundRobin


def test_whoever_has_waited_longest_goes_first_however_much_it_has():
    strategy = RoundRobin()
    strategy.place(Candidate("idle", given=2))
    strategy.place(Candidate("busy", live=9, given=1))
    assert strategy.choose() == "busy"
