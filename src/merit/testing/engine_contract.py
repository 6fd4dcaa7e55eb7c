"""What every decision engine and every scoring must do."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from merit.model.limits import SECOND_NS
from merit.model.supervision import FACTOR_MAX, FACTOR_MIN, SCORE_MAX, Objective, Policy, Verdict
from merit.model.track_record import WINDOW, EndedAttempt, Ending, Rating
from merit.supervision.catalogue import MakeEngine, MakeScoring
from merit.supervision.engine import FleetFigures, Subject
from merit.supervision.metrics import PERMILLE, Metrics, metrics_of

_NOW_NS = 1_700_000_000 * SECOND_NS
_OPINIONS = {Verdict.REWARD, Verdict.PUNISH, Verdict.RESET, Verdict.RETRAIN}
_REASON_LENGTH_MAX = 200


class EngineContract:
    """Subclass it and override `make`."""

    @pytest.fixture
    def make(self) -> MakeEngine:
        """Makes the engine; what is registered as entry point."""
        raise NotImplementedError("override this fixture")

    def test_an_opinion_has_a_reason_and_whole_numbers(self, make: MakeEngine) -> None:
        """Whatever it is shown."""
        engine, rng = make(), Random(1)
        for _ in range(2_000):
            opinion = engine.judge(a_subject(rng), a_fleet(rng), a_policy(rng))
            if opinion is None:
                continue
            assert opinion.verdict in _OPINIONS
            assert 0 < len(opinion.reason) <= _REASON_LENGTH_MAX
            assert opinion.reason.isprintable()
            assert all(type(name) is str and type(figure) is int for name, figure in opinion.figures)

    def test_the_same_view_gives_the_same_opinion(self, make: MakeEngine) -> None:
        """Of an engine that has seen a lot, and of one that was just made: the machine may ask again to explain."""
        engine, rng = make(), Random(2)
        views = [(a_subject(rng), a_fleet(rng), a_policy(rng)) for _ in range(300)]
        opinions = [engine.judge(*view) for view in views]
        assert [engine.judge(*view) for view in reversed(views)] == opinions[::-1]
        assert [make().judge(*view) for view in views] == opinions

    def test_it_waits_after_a_decision(self, make: MakeEngine) -> None:
        """For the cool-down, and for as many attempts as the operator has said."""
        engine, rng = make(), Random(3)
        for _ in range(500):
            subject, fleet, policy = a_subject(rng), a_fleet(rng), a_policy(rng)
            last = rng.choice(sorted(_OPINIONS))
            early = replace(subject, last=last, since_ns=policy.cool_down_ns - 1, attempts_since=WINDOW)
            assert engine.judge(early, fleet, policy) is None
            unknown = replace(subject, attempts_since=policy.attempts_min - 1)
            assert engine.judge(unknown, fleet, policy) is None

    def test_it_rewards_the_best_and_punishes_the_worst(self, make: MakeEngine) -> None:
        """Where nothing else can be said for or against them."""
        engine, policy, fleet = make(), Policy(), FleetFigures(load_permille=500)
        busy = {"utilisation_permille": 600}
        best = Metrics(attempts=WINDOW, completed=WINDOW, life_completed=WINDOW, mean_ns=SECOND_NS, **busy)
        worst = Metrics(attempts=WINDOW, failed=WINDOW, error_permille=PERMILLE, life_failed=WINDOW, **busy)
        good = engine.judge(a_view(SCORE_MAX, best), fleet, policy)
        bad = engine.judge(a_view(0, worst), fleet, policy)
        assert good is not None and good.verdict is Verdict.REWARD
        assert bad is not None and bad.verdict is not Verdict.REWARD

    def test_a_worker_that_stays_as_it_is_is_not_sent_to_and_fro(self, make: MakeEngine) -> None:
        """A worker whose every so-manieth attempt fails hears the same all its life, in a fleet that stays as it is."""
        engine, policy = make(), Policy()
        fleet = FleetFigures(scores=tuple(range(40_000, 100_000, 5_000)), load_permille=600)
        for every in range(2, 40):
            last, since, heard = None, 0, set()
            for number in range(1, 600):
                since += 1
                failed = min(number, WINDOW) // every
                metrics = Metrics(
                    attempts=min(number, WINDOW),
                    completed=min(number, WINDOW) - failed,
                    failed=failed,
                    error_permille=PERMILLE * failed // min(number, WINDOW),
                    mean_ns=SECOND_NS,
                    utilisation_permille=600,
                    life_completed=number - number // every,
                    life_failed=number // every,
                )
                score = max(0, SCORE_MAX - 120_000 * failed // min(number, WINDOW))
                view = replace(a_view(score, metrics), last=last, attempts_since=since)
                opinion = engine.judge(view, fleet, policy)
                if opinion is not None:
                    last, since = opinion.verdict, 0
                    heard.add(opinion.verdict)
            assert not heard >= {Verdict.REWARD, Verdict.PUNISH}, f"every {every}: {heard}"


class ScoringContract:
    """Subclass it and override `make`."""

    @pytest.fixture
    def make(self) -> MakeScoring:
        """Makes the scoring; what is registered as entry point."""
        raise NotImplementedError("override this fixture")

    def test_a_score_is_a_whole_number_within_its_bounds(self, make: MakeScoring) -> None:
        """Whatever the metrics, and whatever an operator makes of the weights."""
        scoring, rng = make(), Random(4)
        for _ in range(2_000):
            weights = {name: rng.choice((0, 1, 1_000, rng.randrange(1_000_001))) for name in scoring.weights}
            for score in (scoring.score(metrics := some_metrics(rng)), scoring.score(metrics, weights)):
                assert type(score) is int
                assert 0 <= score <= SCORE_MAX

    def test_the_same_metrics_give_the_same_score(self, make: MakeScoring) -> None:
        scoring, rng = make(), Random(5)
        seen = [some_metrics(rng) for _ in range(300)]
        scores = [scoring.score(metrics) for metrics in seen]
        assert [scoring.score(metrics) for metrics in reversed(seen)] == scores[::-1]
        assert [make().score(metrics) for metrics in seen] == scores

    def test_weights_are_known_by_name(self, make: MakeScoring) -> None:
        """Those that it names count as it says; names that it does not know change nothing."""
        scoring, rng = make(), Random(6)
        assert all(type(weight) is int and weight >= 0 for weight in scoring.weights.values())
        for _ in range(300):
            metrics = some_metrics(rng)
            usual = scoring.score(metrics)
            assert scoring.score(metrics, dict(scoring.weights)) == usual
            assert scoring.score(metrics, {"no such thing": 1_000}) == usual

    def test_whoever_fails_more_is_not_better(self, make: MakeScoring) -> None:
        """Of two whose attempts took as long, the one of which more came to nothing."""
        scoring, rng = make(), Random(7)
        for _ in range(500):
            endings = some_endings(rng, Ending.COMPLETED)
            life = rng.randrange(1_000)
            better = metrics_of(endings, _NOW_NS, life_completed=len(endings) + life, life_failed=life)
            spoilt = [replace(endings[0], ending=Ending.FAILED), *endings[1:]]
            worse = metrics_of(spoilt, _NOW_NS, life_completed=len(endings) - 1 + life, life_failed=life + 1)
            assert scoring.score(worse) <= scoring.score(better)


def a_view(score: int, metrics: Metrics) -> Subject:
    """A worker about which nothing was decided for long, and which has done enough since."""
    return Subject(
        worker="w1",
        score=score,
        factor=PERMILLE,
        metrics=metrics,
        since_ns=3_600 * SECOND_NS,
        attempts_since=max(metrics.attempts, 3),
    )


def a_subject(rng: Random) -> Subject:
    """Any worker."""
    low = rng.randrange(PERMILLE + 1)
    return Subject(
        worker=f"w{rng.randrange(9)}",
        score=rng.choice((0, SCORE_MAX, rng.randrange(SCORE_MAX + 1))),
        factor=rng.choice((FACTOR_MIN, FACTOR_MAX, rng.randrange(FACTOR_MIN, FACTOR_MAX + 1))),
        metrics=some_metrics(rng),
        rating=Rating((low + PERMILLE) // 2, low, PERMILLE),
        last=rng.choice((None, *Verdict)),
        since_ns=rng.choice((0, rng.randrange(3_600 * SECOND_NS))),
        attempts_since=rng.choice((0, rng.randrange(10), rng.randrange(10_000))),
    )


def a_fleet(rng: Random) -> FleetFigures:
    """Any fleet."""
    objectives = tuple(
        (Objective("c", rng.randrange(PERMILLE + 1)), rng.randrange(PERMILLE + 1)) for _ in range(rng.randrange(3))
    )
    return FleetFigures(
        scores=tuple(sorted(rng.randrange(SCORE_MAX + 1) for _ in range(rng.choice((0, 1, rng.randrange(50)))))),
        load_permille=rng.randrange(PERMILLE + 1),
        backlog=rng.choice((0, rng.randrange(10**6))),
        objectives=objectives,
    )


def a_policy(rng: Random) -> Policy:
    """Any that an operator may set."""
    punish_at = rng.randrange(SCORE_MAX)
    return Policy(
        reward_at=rng.randrange(punish_at + 1, SCORE_MAX + 1),
        punish_at=punish_at,
        reward_permille=rng.randrange(1, PERMILLE),
        punish_permille=rng.randrange(1, PERMILLE),
        cool_down_ns=rng.randrange(1, 60 * SECOND_NS),
        attempts_min=rng.randrange(1, WINDOW),
    )


def some_metrics(rng: Random) -> Metrics:
    """Any that can come to be."""
    endings = some_endings(rng)[: rng.choice((0, 1, WINDOW))]
    failed = sum(1 for ended in endings if ended.ending is not Ending.COMPLETED)
    return metrics_of(
        endings,
        _NOW_NS,
        passed=rng.choice((0, rng.randrange(1_000))),
        wrong=rng.choice((0, rng.randrange(100))),
        lateness_permille=rng.choice((PERMILLE, rng.randrange(20 * PERMILLE))),
        life_completed=len(endings) - failed + rng.choice((0, rng.randrange(10**6))),
        life_failed=failed + rng.choice((0, rng.randrange(10**5))),
    )


def some_endings(rng: Random, *kinds: Ending) -> list[EndedAttempt]:
    """The last attempts of any worker, at least one, all ended in one of these ways."""
    at_ns = [_NOW_NS - rng.randrange(600 * SECOND_NS) for _ in range(rng.randrange(1, WINDOW + 1))]
    return [
        EndedAttempt(
            one,
            rng.choice((0, rng.randrange(60 * SECOND_NS))),
            rng.randrange(1_001),
            rng.choice(kinds or tuple(Ending)),
        )
        for one in sorted(at_ns)
    ]
