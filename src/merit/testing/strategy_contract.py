"""What every allocation strategy must do."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from random import Random
from types import BuiltinFunctionType, FunctionType, ModuleType
from zlib import crc32

import pytest
from msgspec.structs import replace

from merit.allocation.strategy import PLAIN, Candidate, MakeStrategy, Strategy, Wish
from merit.testing.costs import lines_run

TAGS = ("north", "south", "fast", "gpu")
_AVOIDED = 8
_ALLOWED_GROWTH = 2.3
"""A logarithm is fine: that of 5,000 is 2.2 times that of 50."""


class StrategyContract:
    """Subclass it, override `make`, and say what the strategy promises beyond what all must do."""

    fair = True
    """Workers that are alike get the same share, each within one task of every other, whatever the tasks wish."""
    told_apart = 5
    """Of so many candidates the one with the lowest figures is the one chosen; 0: the strategy is no such order."""

    @pytest.fixture
    def make(self) -> MakeStrategy:
        """Makes a strategy that knows of no worker, from weights by name; what is registered as entry point."""
        raise NotImplementedError("override this fixture")

    def test_nobody_is_chosen_when_nobody_has_room(self, make: MakeStrategy) -> None:
        strategy = make({})
        assert strategy.choose() is None
        strategy.place(Candidate("w1"))
        assert strategy.choose() == "w1"
        strategy.remove("w1")
        assert strategy.choose() is None
        strategy.remove("w1")
        strategy.remove("never seen")
        assert not strategy.placed()

    def test_it_chooses_somebody_who_has_room_if_anybody_has(self, make: MakeStrategy) -> None:
        for seed in range(20):
            story = _Story(seed, make({}))
            for _ in range(200):
                story.go_on()
                assert set(story.strategy.placed()) == set(story.fleet)
                chosen = story.strategy.choose(story.wish())
                assert chosen in story.fleet if story.fleet else chosen is None

    def test_those_to_avoid_are_chosen_by_nobody(self, make: MakeStrategy) -> None:
        """Somebody else is, if anybody else has room; whoever would be chosen anyway still is; and it leaves no trace."""
        for seed in range(20):
            story = _Story(seed, make({}), names=8)
            for _ in range(100):
                story.go_on()
                wish = story.wish()
                avoid = {f"w{story.rng.randrange(8)}" for _ in range(story.rng.randrange(9))} | {"never seen"}
                usual = story.strategy.choose(wish)
                chosen = story.strategy.choose(wish, avoid)
                able = set(story.fleet) - avoid
                assert chosen in able if able else chosen is None
                assert usual in avoid or chosen == usual
                assert story.strategy.choose(wish, ()) == usual

    def test_a_choice_follows_from_the_candidates_and_the_wish_alone(self, make: MakeStrategy) -> None:
        """Not from what has been before: one that was there all the time, and those who get to know of the same candidates
        only now, in whatever order, choose the same, and go on to."""
        for seed in range(40):
            story = _Story(seed, make({}))
            for _ in range(story.rng.randrange(300)):
                story.go_on()
                story.strategy.choose(story.wish(), story.avoid())
            fleet = {worker: replace(candidate) for worker, candidate in story.fleet.items()}
            strategies = [story.strategy]
            for names in (sorted(fleet), sorted(fleet, reverse=True), story.rng.sample(sorted(fleet), len(fleet))):
                strategy = make({})
                for name in names:
                    strategy.place(Candidate(name, live=story.rng.randrange(9), tags=frozenset(TAGS)))
                    strategy.place(fleet[name])
                strategies.append(strategy)
            for _ in range(60):
                wish, avoid = story.wish(), story.avoid()
                chosen, *others = [strategy.choose(wish, avoid) for strategy in strategies]
                assert others == [chosen] * 3
                if chosen is not None:
                    fleet[chosen].live += 1
                    fleet[chosen].given = fleet[chosen].turn = story.next_turn()
                    for strategy in strategies:
                        strategy.place(replace(fleet[chosen]))

    def test_a_choice_does_not_depend_on_the_order_of_sets(self, make: MakeStrategy) -> None:
        """That order differs from process to process, as the hashes of strings do."""

        def choices(salt: int) -> list[str | None]:
            class Salted(str):
                __slots__ = ()

                def __hash__(self) -> int:
                    return crc32(self.encode(), salt)

            story, chosen = _Story(7, make({}), text=Salted), []
            for _ in range(200):
                story.go_on()
                chosen.append(story.strategy.choose(story.wish(), story.avoid()))
            return [worker and str(worker) for worker in chosen]

        usual = choices(0)
        assert usual == choices(1) == choices(2)
        assert any(usual)

    def test_whoever_does_not_read_wishes_goes_by_none(self, make: MakeStrategy) -> None:
        for seed in range(20):
            story = _Story(seed, make({}))
            if story.strategy.reads_wish:
                return
            for _ in range(50):
                story.go_on()
                assert story.strategy.choose(story.wish()) == story.strategy.choose(PLAIN)

    def test_its_figures_say_who_is_chosen(self, make: MakeStrategy) -> None:
        """The one with the lowest, in their order; all are whole numbers, and of all candidates the same ones."""
        for seed in range(200):
            story = _Story(seed, make({}), names=max(1, self.told_apart))
            for _ in range(20):
                story.go_on()
            # Who was given something has a turn of its own.
            for candidate in story.fleet.values():
                candidate.given = candidate.turn = story.next_turn()
                story.strategy.place(candidate)
            for _ in range(10):
                wish = story.wish()
                figures = {worker: story.strategy.figures(candidate, wish) for worker, candidate in story.fleet.items()}
                assert len({tuple(of_one) for of_one in figures.values()}) <= 1
                assert all(type(figure) is int for of_one in figures.values() for figure in of_one.values())
                if self.told_apart:
                    lowest = min(figures, key=lambda worker: (*figures[worker].values(), worker), default=None)
                    assert story.strategy.choose(wish) == lowest

    def test_equals_get_equal_shares(self, make: MakeStrategy) -> None:
        if not self.fair:
            pytest.skip("it does not promise to be fair")
        story = _Story(3, make({}))
        fleet = {f"w{number}": Candidate(f"w{number}", 8) for number in range(10)}
        for candidate in fleet.values():
            story.strategy.place(candidate)
        for _ in range(75):
            chosen = fleet[str(story.strategy.choose(story.wish()))]
            chosen.live += 1
            chosen.given = chosen.turn = story.next_turn()
            story.strategy.place(chosen)
        live = [candidate.live for candidate in fleet.values()]
        assert max(live) - min(live) <= 1

    def test_equals_that_finish_at_once_take_turns(self, make: MakeStrategy) -> None:
        if not self.fair:
            pytest.skip("it does not promise to be fair")
        story, given = _Story(4, make({})), Counter[str]()
        fleet = {f"w{number}": Candidate(f"w{number}") for number in range(10)}
        for candidate in fleet.values():
            story.strategy.place(candidate)
        for _ in range(100):
            chosen = fleet[str(story.strategy.choose(story.wish()))]
            given[chosen.worker] += 1
            story.strategy.remove(chosen.worker)
            chosen.given = chosen.turn = story.next_turn()
            story.strategy.place(chosen)
        assert set(given.values()) == {10}

    def test_what_it_keeps_goes_with_the_workers(self, make: MakeStrategy) -> None:
        """A fleet that comes and goes for ever leaves nothing behind, whatever it has offered."""

        def fleet(first: int) -> int:
            rng = Random(5)
            for number in range(100):
                name, tag = f"w{first + number}", f"tag {first + number}"
                tags = frozenset({tag, *rng.sample(TAGS, 2)})
                strategy.place(Candidate(name, 4, number % 5, given=number, turn=number, tags=tags))
                strategy.choose(Wish(rng.getrandbits(40), rng.choice((-1, number)), number, (tag, "north")))
                strategy.choose(avoid={name})
            for number in range(100):
                strategy.remove(f"w{first + number}")
            return _size(strategy)

        strategy = make({})
        before = fleet(10_000)
        # What is swept in bulk may differ by some; what stayed of each of 2,000 workers would be more.
        assert max(fleet(first) for first in range(20_000, 40_000, 1_000)) <= before + 1_000

    def test_what_it_keeps_does_not_grow_with_what_it_has_seen(self, make: MakeStrategy) -> None:
        story = _Story(6, make({}), names=30)
        # While the same one would always be chosen, the others change behind it.
        story.strategy.place(Candidate("best", took_ns=1, preference_permille=1_000, tags=frozenset(TAGS)))

        def live_on(times: int) -> int:
            largest = 0
            for number in range(times):
                story.go_on()
                story.strategy.choose(story.wish(), story.avoid())
                if number % 100 == 0:
                    largest = max(largest, _size(story.strategy))
            return largest

        before = live_on(1_000)
        assert live_on(5_000) <= 1.5 * before

    def test_its_cost_does_not_grow_with_the_fleet(self, make: MakeStrategy) -> None:
        """Neither when workers take more nor when they are full, and have room again, nor for tasks that wish much."""

        def steps(story: _Story) -> Iterator[None]:
            for number in range(100):
                wish = story.wish()
                chosen = story.fleet[str(story.strategy.choose(wish))]
                chosen.given = chosen.turn = story.next_turn()
                chosen.live = number % 16
                story.strategy.place(chosen)
                if number % 3 == 0:
                    story.strategy.remove(chosen.worker)
                    story.strategy.place(chosen)
                yield

        assert _cost(make({}), 5_000, steps) <= _ALLOWED_GROWTH * _cost(make({}), 50, steps)

    def test_avoiding_some_costs_the_same_in_a_large_fleet(self, make: MakeStrategy) -> None:
        def steps(story: _Story) -> Iterator[None]:
            for _ in range(20):
                wish = story.wish()
                avoid: set[str] = set()
                for _ in range(_AVOIDED):
                    avoid.add(str(story.strategy.choose(wish, avoid)))
                yield

        assert _cost(make({}), 5_000, steps) <= _ALLOWED_GROWTH * _cost(make({}), 50, steps)


class _Story:
    """A fleet that lives: what a strategy is told of it, and what the tasks that come meanwhile wish."""

    def __init__(self, seed: int, strategy: Strategy, *, names: int = 12, text: Callable[[str], str] = str) -> None:
        self.rng = Random(seed)
        self.strategy = strategy
        self.fleet: dict[str, Candidate] = {}
        self._names = names
        self._text = text
        self._turn = 0
        self._unmeasured = self.rng.random() < 0.3

    def next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def go_on(self) -> None:
        """Somebody comes, is given something, has done something, is full or goes."""
        rng, name = self.rng, self._text(f"w{self.rng.randrange(self._names)}")
        candidate = self.fleet.get(name)
        happens = rng.random()
        if candidate is None:
            self.join(name)
            return
        if happens < 0.2:
            self.strategy.remove(name)
            del self.fleet[name]
            return
        if happens < 0.5:
            candidate.live += 1
            candidate.given = candidate.turn = self.next_turn()
        elif happens < 0.9:
            candidate.live, candidate.turn = max(0, candidate.live - 1), self.next_turn()
            candidate.took_ns = 0 if self._unmeasured else rng.randrange(10**9)
            candidate.misfit_permille = rng.choice((0, rng.randrange(3_000)))
        else:
            candidate.tags = self.tags()
        self.strategy.place(candidate)

    def join(self, name: str) -> None:
        rng = self.rng
        self.fleet[name] = Candidate(
            name,
            rng.choice((1, 1, 2, 8, 100)),
            rng.choice((0, rng.randrange(10))),
            given=self._turn if rng.random() < 0.5 else 0,
            turn=self._turn if rng.random() < 0.5 else 0,
            took_ns=0 if self._unmeasured or rng.random() < 0.2 else rng.randrange(10**9),
            preference_permille=rng.choice((500, rng.randrange(1_001))),
            cost_micros=rng.choice((0, rng.randrange(10**6))),
            misfit_permille=rng.choice((0, rng.randrange(3_000))),
            tags=self.tags(),
        )
        self.strategy.place(self.fleet[name])

    def tags(self) -> frozenset[str]:
        return frozenset(map(self._text, self.rng.sample(TAGS, self.rng.randrange(4))))

    def wish(self) -> Wish:
        rng = self.rng
        return Wish(
            rng.getrandbits(40),
            rng.choice((-1, -1, 0, rng.randrange(10**9))),
            rng.choice((0, rng.randrange(10**9))),
            tuple(map(self._text, rng.sample((*TAGS, "nobody has it"), rng.choice((0, 0, 1, 2))))),
        )

    def avoid(self) -> Collection[str]:
        return {self._text(f"w{self.rng.randrange(self._names)}") for _ in range(self.rng.choice((0, 0, 1, 3)))}


class _Counted(str):
    """A text whose comparisons are lines of Python: so that it shows when something goes through many of them."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)

    def __lt__(self, other: str) -> bool:
        return str.__lt__(self, other)

    def __hash__(self) -> int:
        return str.__hash__(self)


def _cost(strategy: Strategy, workers: int, steps: Callable[[_Story], Iterator[None]]) -> int:
    """Lines of Python that the steps run through: a measure of cost that no other load disturbs."""
    story = _Story(8, strategy, text=_Counted)
    for number in range(workers):
        story.join(_Counted(f"w{number}"))
    # What is made when it is first needed, and for one task in many, is made now.
    for _ in range(10):
        for _ in steps(story):
            pass

    def all_steps() -> None:
        for _ in steps(story):
            pass

    return lines_run(all_steps)


def _size(strategy: Strategy) -> int:
    """Objects and entries in everything that the strategy keeps, however deep."""
    seen: set[int] = set()
    found: list[object] = [strategy]
    size = 0
    while found:
        thing = found.pop()
        size += 1
        if isinstance(thing, type | ModuleType | FunctionType | BuiltinFunctionType) or id(thing) in seen:
            continue
        seen.add(id(thing))
        found += gc.get_referents(thing)
    return size
