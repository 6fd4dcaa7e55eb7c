import pytest

from merit.allocation.direct import Direct
from merit.allocation.strategy import PLAIN, Candidate
from merit.testing.strategy_contract import StrategyContract


class TestDirect(StrategyContract):
    fair = False

    @pytest.fixture
    def make(self):
        return Direct


def test_it_compares_nothing():
    assert Direct().figures(Candidate("w1", live=3), PLAIN) == {}
