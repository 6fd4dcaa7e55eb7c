import pytest

from merit.allocation.capability_load import CapabilityLoad
from merit.allocation.strategy import Candidate
from merit.testing.strategy_contract import StrategyContract


class TestCapabilityLoad(StrategyContract):
    @pytest.fixture
    def make(self):
        return CapabilityLoad


def test_load_goes_before_preference_and_preference_before_turn():
    strategy = CapabilityLoad()
    strategy.place(Candidate("keen", 100, 11, turn=1, preference_permille=1_000))
    strategy.place(Candidate("reluctant", 100, 10, turn=3, preference_permille=100))
    strategy.place(Candidate("indifferent", 100, 10, turn=2, preference_permille=500))
    assert strategy.choose() == "indifferent"
    assert strategy.choose(avoid={"indifferent"}) == "reluctant"
