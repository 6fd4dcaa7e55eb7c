import pytest

from merit.allocation.least_loaded import LeastLoaded
from merit.allocation.strategy import Candidate
from merit.core.codec import state_digest
from merit.testing.builders import a_machine, a_spec, allocate, attach, completed, say, submit
from merit.testing.strategy_contract import StrategyContract


class TestLeastLoaded(StrategyContract):
    @pytest.fixture
    def make(self):
        return LeastLoaded


def test_the_smallest_share_of_its_concurrency_in_use_goes_first():
    strategy = LeastLoaded()
    large = Candidate("large", 12, 3)
    strategy.place(Candidate("small", 2, 1))
    strategy.place(large)
    assert strategy.choose() == "large"
    large.live, large.turn = 7, 1
    strategy.place(large)
    assert strategy.choose() == "small"


def test_above_its_highest_level_all_count_as_equal():
    strategy = LeastLoaded()
    strategy.place(Candidate("w1", 1, 1_000, turn=1))
    strategy.place(Candidate("w2", 1, 900, turn=2))
    assert strategy.choose() == "w1"


def test_tasks_are_spread_by_concurrency_and_bound_late():
    machine = a_machine()
    attach(machine, "small", concurrency=1, granted=100)
    attach(machine, "large", concurrency=4, granted=100)
    submit(machine, *(a_spec(number) for number in range(5)))
    sent = [effect.worker for effect in allocate(machine)]
    assert (sent.count("small"), sent.count("large")) == (1, 4)
    full = a_machine()
    attach(full, granted=2)
    submit(full, *(a_spec(number) for number in range(5)))
    assert len(allocate(full)) == 2
    assert allocate(full) == []
    say(full, reports=[completed(0)], granted=3)
    assert len(allocate(full)) == 1
    assert state_digest(full.state) != state_digest(machine.state)


def test_over_all_capabilities_the_most_urgent_task_goes_first():
    machine = a_machine()
    attach(machine, capabilities=("add", "mul"), granted=3)
    submit(
        machine,
        a_spec(1, "add"),
        a_spec(2, "mul"),
        a_spec(3, "add", priority=4),
        a_spec(4, "mul", priority=3),
    )
    sent = [int(effect.assignment.task[-12:], 16) for effect in allocate(machine)]
    assert sent == [3, 4, 1]


def test_an_allocation_that_was_cut_short_goes_on():
    machine = a_machine()
    attach(machine, capabilities=("add", "mul"), granted=100)
    submit(machine, *(a_spec(number, ("add", "mul")[number % 2]) for number in range(10)))
    assert [len(allocate(machine, count_max=4)) for _ in range(3)] == [4, 4, 2]
    assert not machine.ready
