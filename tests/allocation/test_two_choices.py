from collections import Counter
from itertools import combinations

import pytest

from merit.allocation.strategy import Candidate, Wish
from merit.allocation.two_choices import TwoChoices
from merit.testing.strategy_contract import StrategyContract


class TestTwoChoices(StrategyContract):
    fair = False

    @pytest.fixture
    def make(self):
        return TwoChoices


def drawn(strategy, workers, order):
    return {name for name in workers if not strategy.figures(Candidate(name), Wish(order))["not_drawn"]}


def test_any_two_are_drawn_as_often_as_any_other_two():
    strategy, workers = TwoChoices(), [f"w{number}" for number in range(7)]
    for name in workers:
        strategy.place(Candidate(name))
    # As the machine counts: tasks one after the other, in steps of 256.
    pairs = Counter(frozenset(drawn(strategy, workers, order << 8)) for order in range(21_000))
    assert set(pairs) == {frozenset(pair) for pair in combinations(workers, 2)}
    # 1,000 each; the deviation of a fair draw is 31.
    assert all(850 < count < 1_150 for count in pairs.values())


def test_of_the_two_the_less_loaded_gets_the_task():
    strategy = TwoChoices()
    for number in range(20):
        strategy.place(Candidate(f"w{number:02}", 100, number))
    for order in range(200):
        assert strategy.choose(Wish(order)) == min(drawn(strategy, sorted(strategy.placed()), order))


def test_everybody_else_is_drawn_when_some_are_to_be_avoided():
    strategy = TwoChoices()
    for number in range(6):
        strategy.place(Candidate(f"w{number}"))
    avoid = {"w0", "w2", "w5", "never seen"}
    assert {strategy.choose(Wish(order), avoid) for order in range(100)} == {"w1", "w3", "w4"}


def test_much_of_what_chance_does_is_made_good():
    """The most that one of 1,000 gets of 1,000 tasks: about 2 or 3; drawn one at a time it would be 5 to 7."""
    strategy, fleet = TwoChoices(), {f"w{number}": Candidate(f"w{number}", 8) for number in range(1_000)}
    for candidate in fleet.values():
        strategy.place(candidate)
    for order in range(1_000):
        chosen = fleet[str(strategy.choose(Wish(order)))]
        chosen.live += 1
        strategy.place(chosen)
    assert max(candidate.live for candidate in fleet.values()) <= 4
