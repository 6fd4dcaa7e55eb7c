"""What every model of reputation must do."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from msgspec.structs import replace

from merit.auditing.evidence import Outcomes, ReputationModel

MakeModel = Callable[[], ReputationModel]

NOTHING: tuple[int, ...] = ()
"""What is remembered of one who is unknown."""
_ROUNDING = 1
_BOUND = 5
"""By so much bounds may be off: they may be approximations."""
_NUMBER_MAX = 2**63
_NUMBERS_MAX = 16


class ReputationContract:
    """Subclass it, override `make`, and say what the model promises beyond what all must do."""

    trusts_unseen = False
    """Whether results at which nobody has looked closely can raise the lower bound above the middle."""
    falls_within = 10
    """After so many wrong results in a row one who had always been good is below the middle."""
    rises_within = 40
    """After so many right results in a row one who had always been bad is above the middle."""

    @pytest.fixture
    def make(self) -> MakeModel:
        """Makes a model; what is registered as entry point."""
        raise NotImplementedError("override this fixture")

    def test_who_is_unknown_is_in_the_middle_with_nothing_below(self, make: MakeModel) -> None:
        unknown = make().rating(NOTHING)
        assert unknown.value == 500
        assert unknown.low == 0
        assert make().rating(make().learn(NOTHING, Outcomes())) == unknown

    def test_ratings_are_within_bounds_whatever_happens(self, make: MakeModel) -> None:
        model = make()
        for seed in range(50):
            rng, memory = Random(seed), NOTHING
            most = rng.choice((1, 1, 5, 10**6))
            for _ in range(100):
                memory = model.learn(memory, _evidence(rng, most))
                rating = model.rating(memory)
                assert 0 <= rating.low <= rating.value <= rating.high <= 1_000
                numbers = (rating.value, rating.low, rating.high, *memory)
                assert {type(number) for number in numbers} == {int}

    def test_what_it_remembers_does_not_grow(self, make: MakeModel) -> None:
        model, rng, memory = make(), Random(1), NOTHING
        for _ in range(2_000):
            memory = model.learn(memory, _evidence(rng, 10**6))
            assert len(memory) <= _NUMBERS_MAX
            assert all(abs(number) < _NUMBER_MAX for number in memory)

    def test_the_same_gives_the_same(self, make: MakeModel) -> None:
        """It keeps nothing of one worker that another one would feel, and nothing between two calls."""
        model, rng = make(), Random(2)
        memories: list[tuple[int, ...]] = [(), ()]
        for _ in range(200):
            one = rng.randrange(2)
            evidence = _evidence(rng, 3)
            learnt = model.learn(memories[one], evidence)
            assert make().learn(memories[one], evidence) == model.learn(memories[one], evidence) == learnt
            assert make().rating(learnt) == model.rating(learnt)
            memories[one] = learnt

    def test_what_another_model_has_remembered_is_as_good_as_nothing(self, make: MakeModel) -> None:
        """As when the model of a fleet is changed: it must go on. Told apart by how many numbers it is."""
        model, news = make(), Outcomes(completed=2, failed=1, passed=1)
        own = len(model.learn(NOTHING, news))
        for numbers in {*range(_NUMBERS_MAX)} - {own}:
            assert model.rating((7,) * numbers) == model.rating(NOTHING)
            assert model.learn((7,) * numbers, news) == model.learn(NOTHING, news)

    def test_no_news_is_no_news(self, make: MakeModel) -> None:
        for model, memory, _ in _histories(make):
            assert model.rating(model.learn(memory, Outcomes())) == model.rating(memory)

    def test_more_that_is_good_never_lowers(self, make: MakeModel) -> None:
        """Neither the value nor the lower bound."""
        for model, memory, evidence in _histories(make):
            usual = model.rating(model.learn(memory, evidence))
            accepted = replace(evidence, completed=evidence.completed + 1)
            for better in (accepted, replace(accepted, passed=evidence.passed + 1)):
                rating = model.rating(model.learn(memory, better))
                assert rating.value >= usual.value - _ROUNDING
                assert rating.low >= usual.low - _BOUND

    def test_more_that_is_bad_never_raises(self, make: MakeModel) -> None:
        """Neither the value nor either bound."""
        for model, memory, evidence in _histories(make):
            usual = model.rating(model.learn(memory, evidence))
            changes = [{kind: getattr(evidence, kind) + 1} for kind in ("failed", "rejected", "wrong")]
            if evidence.slow < evidence.completed:
                changes.append({"slow": evidence.slow + 1})
            if evidence.passed:
                changes.append({"passed": evidence.passed - 1, "wrong": evidence.wrong + 1})
            for change in changes:
                rating = model.rating(model.learn(memory, replace(evidence, **change)))
                assert rating.value <= usual.value + _ROUNDING
                assert rating.low <= usual.low + _BOUND
                if "slow" not in change:
                    assert rating.high <= usual.high + _BOUND

    def test_a_slow_result_is_no_failure(self, make: MakeModel) -> None:
        model = make()
        slow = model.rating(model.learn(NOTHING, Outcomes(completed=3, slow=3, passed=3)))
        quick = model.rating(model.learn(NOTHING, Outcomes(completed=3, passed=3)))
        assert model.rating(NOTHING).value < slow.value < quick.value

    def test_to_come_back_under_a_new_name_does_not_pay(self, make: MakeModel) -> None:
        """Nobody stands below one who is unknown, and whoever has proven itself stands above."""
        unknown = make().rating(NOTHING)
        for model, memory, evidence in _histories(make):
            assert unknown.low <= model.rating(model.learn(memory, evidence)).low
        for results in range(1, 100):
            model = make()
            assert model.rating(_in_a_row(model, NOTHING, results, Outcomes(completed=1, passed=1))).low > unknown.low

    def test_what_nobody_has_looked_at_makes_nobody_trusted(self, make: MakeModel) -> None:
        if self.trusts_unseen:
            pytest.skip("it does not promise that")
        model = make()
        assert model.rating(model.learn(NOTHING, Outcomes(completed=10**9))).low < 500
        assert model.rating(_in_a_row(model, NOTHING, 2_000, Outcomes(completed=1))).low < 500

    def test_one_who_turns_bad_is_found_out_however_good_it_was(self, make: MakeModel) -> None:
        model = make()
        for before in (0, 1, 10, 100, 2_000):
            memory = _in_a_row(model, NOTHING, before, Outcomes(completed=1, passed=1))
            rating = model.rating(_in_a_row(model, memory, self.falls_within, Outcomes(completed=1, wrong=1)))
            assert rating.low < 500

    def test_one_who_turns_good_is_forgiven_however_bad_it_was(self, make: MakeModel) -> None:
        model = make()
        for before in (0, 1, 10, 100, 2_000):
            memory = _in_a_row(model, NOTHING, before, Outcomes(completed=1, wrong=1))
            assert model.rating(memory).value <= 500
            rating = model.rating(_in_a_row(model, memory, self.rises_within, Outcomes(completed=1, passed=1)))
            assert rating.value > 500


def _in_a_row(model: ReputationModel, memory: tuple[int, ...], times: int, evidence: Outcomes) -> tuple[int, ...]:
    for _ in range(times):
        memory = model.learn(memory, evidence)
    return memory


def _evidence(rng: Random, most: int) -> Outcomes:
    completed = rng.randrange(most + 1)
    return Outcomes(
        completed=completed,
        failed=rng.choice((0, rng.randrange(most + 1))),
        rejected=rng.choice((0, rng.randrange(most + 1))),
        slow=rng.choice((0, rng.randrange(completed + 1))),
        passed=rng.choice((0, rng.randrange(completed + 1))),
        wrong=rng.choice((0, rng.randrange(most + 1))),
    )


def _histories(make: MakeModel) -> list[tuple[ReputationModel, tuple[int, ...], Outcomes]]:
    """What is remembered of all kinds of workers, and what comes next."""
    model, found = make(), []
    for seed in range(300):
        rng, memory = Random(seed), NOTHING
        most = rng.choice((1, 2, 20))
        kind = rng.choice((None, Outcomes(completed=1, passed=1), Outcomes(completed=1, wrong=1), Outcomes(failed=1)))
        for _ in range(rng.choice((0, 1, 5, 30, 200))):
            memory = model.learn(memory, kind or _evidence(rng, most))
        found.append((model, memory, _evidence(rng, most)))
    return found
