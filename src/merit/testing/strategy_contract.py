"""What every allocation strategy must do."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from random import Random
from types import FrameType
from typing import Any

import pytest

from merit.allocation.strategy import Strategy

MakeStrategy = Callable[[], Strategy]

CAPABILITIES = ("add", "mul", "sub")


class StrategyContract:
    """Subclass it and override `make`, which gives a fresh strategy at each call."""

    @pytest.fixture
    def make(self) -> MakeStrategy:
        """A strategy that knows of no worker."""
        raise NotImplementedError("override this fixture")

    def test_nobody_is_chosen_when_nobody_has_room(self, make: MakeStrategy) -> None:
        strategy = make()
        assert strategy.choose("add") is None
        strategy.place("w1", ("add",), 0, 1)
        assert strategy.choose("mul") is None
        strategy.remove("w1")
        assert strategy.choose("add") is None
        strategy.remove("w1")
        strategy.remove("never seen")

    def test_it_never_chooses_one_without_room_or_without_the_capability(self, make: MakeStrategy) -> None:
        for seed in range(20):
            rng, strategy, rooms = Random(seed), make(), {}
            for _ in range(300):
                worker = f"w{rng.randrange(12)}"
                capabilities = tuple(rng.sample(CAPABILITIES, rng.randint(1, 3)))
                if rng.random() < 0.7:
                    strategy.place(worker, capabilities, rng.randrange(10), rng.randint(1, 8))
                    rooms[worker] = capabilities
                else:
                    strategy.remove(worker)
                    rooms.pop(worker, None)
                assert strategy.placed() == set(rooms)
                for capability in CAPABILITIES:
                    able = {name for name, offered in rooms.items() if capability in offered}
                    chosen = strategy.choose(capability)
                    assert chosen in able if able else chosen is None

    def test_those_to_avoid_are_chosen_by_nobody(self, make: MakeStrategy) -> None:
        """And somebody else is, if anybody else has room: the one who would be chosen if they were not there."""
        for seed in range(20):
            rng, strategy, rooms = Random(seed), make(), {}
            for _ in range(100):
                worker = f"w{rng.randrange(8)}"
                capabilities = tuple(rng.sample(CAPABILITIES, rng.randint(1, 3)))
                strategy.place(worker, capabilities, rng.randrange(10), rng.randint(1, 8))
                rooms[worker] = capabilities
                if rng.random() < 0.3:
                    strategy.remove(worker)
                    del rooms[worker]
                avoid = {f"w{rng.randrange(8)}" for _ in range(rng.randrange(9))} | {"never seen"}
                for capability in CAPABILITIES:
                    able = {name for name, offered in rooms.items() if capability in offered} - avoid
                    chosen = strategy.choose(capability, avoid)
                    assert chosen in able if able else chosen is None
                    usual = strategy.choose(capability)
                    assert usual in avoid or chosen == usual
                    assert strategy.choose(capability, ()) == usual

    def test_avoiding_some_costs_the_same_in_a_large_fleet(self, make: MakeStrategy) -> None:
        avoid = {f"w{number}" for number in range(8)}

        def cost(workers: int) -> int:
            strategy = make()
            for number in range(workers):
                strategy.place(f"w{number}", CAPABILITIES, number % 8, 8)

            def some() -> None:
                assert strategy.choose("add", avoid) is not None

            return _lines_run(some)

        assert cost(5_000) <= 1.3 * cost(50)

    def test_the_same_calls_give_the_same_choices(self, make: MakeStrategy) -> None:
        def choices() -> list[str | None]:
            rng, strategy, chosen = Random(7), make(), []
            for _ in range(500):
                strategy.place(f"w{rng.randrange(20)}", CAPABILITIES, rng.randrange(6), 4)
                if rng.random() < 0.2:
                    strategy.remove(f"w{rng.randrange(20)}")
                chosen.append(strategy.choose(rng.choice(CAPABILITIES)))
            return chosen

        assert choices() == choices()

    def test_equals_are_treated_equally(self, make: MakeStrategy) -> None:
        """Workers that are alike get the same share, each within one of every other."""
        strategy, live = make(), Counter[str]()
        for number in range(10):
            strategy.place(f"w{number}", CAPABILITIES, 0, 8)
        for _ in range(75):
            worker = strategy.choose("add")
            assert worker is not None
            live[worker] += 1
            strategy.place(worker, CAPABILITIES, live[worker], 8)
        assert max(live.values()) - min(live.values()) <= 1
        assert len(live) == 10

    def test_equals_that_finish_at_once_take_turns(self, make: MakeStrategy) -> None:
        strategy, given = make(), Counter[str]()
        for number in range(10):
            strategy.place(f"w{number}", CAPABILITIES, 0, 1)
        for _ in range(100):
            worker = strategy.choose("add")
            assert worker is not None
            given[worker] += 1
            strategy.remove(worker)
            strategy.place(worker, CAPABILITIES, 0, 1)
        assert set(given.values()) == {10}

    def test_what_it_keeps_goes_with_the_workers(self, make: MakeStrategy) -> None:
        """A fleet that comes and goes for ever leaves nothing behind."""

        def fleet(strategy: Strategy, first: int) -> None:
            for number in range(first, first + 50):
                strategy.place(f"w{number}", (f"capability {number}",), number % 5, 4)
            for number in range(first, first + 50):
                strategy.remove(f"w{number}")

        strategy = make()
        fleet(strategy, 0)
        before = _size(strategy)
        fleet(strategy, 1_000)
        assert _size(strategy) <= before

    def test_its_cost_does_not_grow_with_the_fleet(self, make: MakeStrategy) -> None:
        def cost(workers: int) -> int:
            strategy = make()
            for number in range(workers):
                strategy.place(f"w{number}", CAPABILITIES, number % 8, 8)

            def some() -> None:
                for _ in range(20):
                    worker = strategy.choose("add")
                    assert worker is not None
                    strategy.place(worker, CAPABILITIES, 3, 8)
                    strategy.remove(worker)
                    strategy.place(worker, CAPABILITIES, 0, 8)

            return _lines_run(some)

        assert cost(5_000) <= 1.3 * cost(50)


def _size(strategy: Strategy) -> int:
    """Entries in everything that the strategy keeps, however deep."""

    def entries(thing: object) -> int:
        if isinstance(thing, dict):
            return len(thing) + sum(map(entries, thing.values()))
        if isinstance(thing, list | tuple | set):
            return len(thing) + sum(map(entries, thing))
        return 0

    return sum(map(entries, vars(strategy).values())) if hasattr(strategy, "__dict__") else 0


def _lines_run(action: Callable[[], None]) -> int:
    """Lines of Python that an action runs through: a measure of its cost that no other load disturbs."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count
