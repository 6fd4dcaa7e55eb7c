"""`merit scenario`: what rewards and punishments come to, in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any, Final

import click

from merit.cli import output
from merit.cli.command import MeritCommand, MeritGroup, json_option
from merit.cli.output import table, write_json, write_lines
from merit.cli.plot import Axis, around, plot

if TYPE_CHECKING:
    from merit.lab.reference_scenario import Expectation, ScenarioOutcome, WorkerOutcome

SEEDS_DEFAULT: Final = 200


@click.group(cls=MeritGroup, example="merit scenario reference")
def scenario() -> None:
    """Fleets of which it is known what each worker is like, and what becomes of it."""


@scenario.command(cls=MeritCommand, example="merit scenario reference --seeds 1", codes=(output.FAILED,))
@click.option("--seeds", type=click.IntRange(1, 100_000), default=SEEDS_DEFAULT, show_default=True, help="Worlds.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first of them.")
@click.option(
    "--scoring",
    type=click.Choice(["reference", "relative"]),
    default="reference",
    show_default=True,
    help="How scores are reckoned: by the formula of the field, or as Merit does usually.",
)
@json_option
def reference(seeds: int, first: int, scoring: str, as_json: bool) -> None:
    """Four workers (general, fast, slow, reliable), three batches of tasks: who is rewarded, who punished, who gets what.

    Of several worlds the figures are means. Of 100 and more it is said whether what is expected came out so, by the formula
    of the field; the exit code is 1 where it did not.
    """
    from msgspec.structs import replace  # here and below: help would wait for it

    from merit.lab.reference_scenario import POLICY, WORLDS_MIN, expectations, run_scenario

    policy = replace(POLICY, scoring=scoring)
    outcomes = [run_scenario(seed, policy) for seed in range(first, first + seeds)]
    expected = expectations(outcomes) if seeds >= WORLDS_MIN and policy == POLICY else []
    if as_json:
        write_json(_as_json(outcomes, expected, scoring))
    else:
        write_lines(_as_text(outcomes, expected))
    if not all(one.holds for one in expected):
        raise SystemExit(output.FAILED)


def _as_json(outcomes: Sequence[ScenarioOutcome], expected: Sequence[Expectation], scoring: str) -> dict[str, Any]:
    return {
        "scoring": scoring,
        "seeds": len(outcomes),
        "first": outcomes[0].seed,
        "workers": [_mean(outcomes, place) for place in range(len(outcomes[0].workers))],
        "processed": sum(outcome.processed for outcome in outcomes),
        "waiting": sum(outcome.waiting for outcome in outcomes),
        "critical": sum(outcome.critical for outcome in outcomes),
        "critical_to_best": sum(outcome.critical_to_best for outcome in outcomes),
        "expected": [{"text": one.text, "holds": one.holds} for one in expected],
    }


def _as_text(outcomes: Sequence[ScenarioOutcome], expected: Sequence[Expectation]) -> list[str]:
    workers = [_mean(outcomes, place) for place in range(len(outcomes[0].workers))]
    columns = [name for name in workers[0] if name != "history"]
    rows = [[_SHOWN.get(name, _count)(worker[name]) for name in columns] for worker in workers]
    worlds = f"world {outcomes[0].seed}" if len(outcomes) == 1 else f"{len(outcomes):,} worlds, means"
    processed, waiting = (mean(of) for of in zip(*((one.processed, one.waiting) for one in outcomes), strict=True))
    lines = [
        *table([name.removesuffix("_s").replace("_", " ") for name in columns], rows),
        "",
        f"{worlds}: {_count(processed)} tasks processed, {_count(waiting)} waiting",
    ]
    time = Axis(0, max(at_s for at_s, _, _ in workers[0]["history"]), "s")
    for name, step, place in (("score", 5.0, 1), ("factor", 0.1, 2)):
        curves = {worker["worker"][0]: [(one[0], one[place]) for one in worker["history"]] for worker in workers}
        lines += [
            "",
            f"{name}: {', '.join(worker['worker'] for worker in workers)}",
            *plot(curves, time, around(curves, step)),
        ]
    if expected:
        lines += ["", *(f"{'✓' if one.holds else '✗'} {one.text}" for one in expected)]
    return lines


def _mean(outcomes: Sequence[ScenarioOutcome], place: int) -> dict[str, Any]:
    """Of one worker over all worlds, in points, times and seconds."""
    lives = [outcome.workers[place] for outcome in outcomes]

    def of(figure: Callable[[WorkerOutcome], int], unit: int = 1) -> float:
        return round(mean(map(figure, lives)) / unit, 3)

    history = zip(*(life.history for life in lives), strict=True)
    return {
        "worker": lives[0].name,
        "state": dict(Counter(life.stage.name for life in lives)),
        "score": of(lambda life: life.score, 1_000),
        "factor": of(lambda life: life.factor, 1_000),
        "completed": of(lambda life: life.completed),
        "failed": of(lambda life: life.failed),
        "critical": of(lambda life: life.critical),
        "mean_s": of(lambda life: life.mean_ns, 10**9),
        "error_rate": of(lambda life: life.error_permille, 1_000),
        "rewards": of(lambda life: life.rewards),
        "punishments": of(lambda life: life.punishments),
        "history": [
            (
                moments[0].at_ns / 10**9,
                round(mean(moment.score for moment in moments) / 1_000, 3),
                round(mean(moment.factor for moment in moments) / 1_000, 3),
            )
            for moments in history
        ],
    }


def _states(counts: Mapping[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} {count / sum(counts.values()):.1%}" for name, count in sorted(counts.items()))


def _count(value: float) -> str:
    return f"{round(value, 1):g}"


_SHOWN: Final[Mapping[str, Callable[[Any], str]]] = {
    "worker": str,
    "state": _states,
    "score": "{:.1f}".format,
    "factor": "{:.2f}".format,
    "mean_s": "{:.1f} s".format,
    "error_rate": "{:.1%}".format,
}
