from collections import Counter

import pytest

from merit.allocation.least_expected import LeastExpected
from merit.allocation.strategy import PLAIN, Candidate, Wish
from merit.testing.strategy_contract import StrategyContract

SECOND_NS = 10**9


class TestLeastExpected(StrategyContract):
    @pytest.fixture
    def make(self):
        return LeastExpected


def test_a_fast_worker_that_is_busy_may_still_be_done_before_a_slow_one_that_is_not():
    strategy = LeastExpected()
    slow, fast = Candidate("slow", 2, took_ns=4 * SECOND_NS), Candidate("fast", 2, took_ns=SECOND_NS)
    strategy.place(slow)
    given = []
    for turn in range(9):
        strategy.place(fast)
        given.append(strategy.choose())
        fast.live, fast.turn = fast.live + 1, turn
    assert given == ["fast"] * 7 + ["slow"] * 2
    assert strategy.figures(fast, PLAIN)["expected_ns"] == 5 * SECOND_NS


def test_one_that_nobody_has_measured_is_tried_but_with_one_task_only():
    strategy = LeastExpected()
    unknown = Candidate("unknown", 100)
    strategy.place(Candidate("known", 1, 3, took_ns=SECOND_NS))
    strategy.place(unknown)
    assert strategy.choose() == "unknown"
    unknown.live = 1
    strategy.place(unknown)
    assert strategy.choose() == "known"


def test_where_nobody_is_measured_load_decides():
    strategy = LeastExpected()
    strategy.place(Candidate("one of two", 2, 1))
    strategy.place(Candidate("one of eight", 8, 1))
    assert strategy.choose() == "one of eight"


def test_one_task_in_some_goes_to_whoever_has_waited_longest_unless_it_has_a_deadline():
    strategy = LeastExpected()
    strategy.place(Candidate("was slow once", given=1, turn=1, took_ns=60 * SECOND_NS))
    strategy.place(Candidate("fast", given=2, turn=2, took_ns=SECOND_NS))
    given = Counter(strategy.choose(Wish(order << 8)) for order in range(6_400))
    assert 70 <= given["was slow once"] <= 130
    assert {strategy.choose(Wish(order << 8, slack_ns=SECOND_NS)) for order in range(6_400)} == {"fast"}
    assert strategy.choose() == "fast"
