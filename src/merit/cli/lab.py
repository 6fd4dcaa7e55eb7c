"""``merit lab``: the product driven by something other than the world."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from merit.cli.command import MeritGroup
from merit.lab.planted import PLANTS
from merit.lab.simulator import EVENTS_MAX, Campaign, SeedFailure, campaign

SEEDS_DEFAULT = 1_000


@click.group(cls=MeritGroup, example="merit lab simulate --seeds 1000")
def lab() -> None:
    """Run worlds in virtual time."""


@lab.command(epilog="Example: merit lab simulate --seeds 1000 --json")
@click.option("--seeds", type=click.IntRange(1), default=SEEDS_DEFAULT, show_default=True, help="How many worlds.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True, help="Number of the first of them.")
@click.option("--seed", type=click.IntRange(0), help="Only this world, with all that happened at its end.")
@click.option(
    "--steps", type=click.IntRange(1), default=EVENTS_MAX, show_default=True, help="Most happenings in one world."
)
@click.option("--plant", type=click.Choice(sorted(PLANTS)), help="Plant this bug in the product first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def simulate(seeds: int, first: int, seed: int | None, steps: int, plant: str | None, as_json: bool) -> None:
    """Simulate whole fleets with crashes and faults, and judge them.

    Each world follows from its number alone: the same number gives the same world. The exit code is 1 when a promise
    was broken in any of them.
    """
    chosen = range(first, first + seeds) if seed is None else range(seed, seed + 1)
    began_s = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=as_json or len(chosen) == 1 or not Console(stderr=True).is_terminal,
    ) as progress:
        bar = progress.add_task("worlds", total=len(chosen))
        total = _run(chosen, plant, steps, lambda: progress.advance(bar))
    seconds = time.monotonic() - began_s
    click.echo(json.dumps(_as_json(total, seconds)) if as_json else _as_text(total, seconds, plant))
    if total.failures:
        raise SystemExit(1)


def _run(chosen: range, plant: str | None, steps: int, advance: Callable[[], object]) -> Campaign:
    total = Campaign()
    for _ in campaign(chosen, total, PLANTS[plant] if plant else None, steps):
        advance()
    return total


def _as_json(total: Campaign, seconds: float) -> dict[str, Any]:
    return {
        "seeds": total.seeds,
        "tasks": total.tasks,
        "failures": [msgspec.structs.asdict(failure) for failure in total.failures],
        "coverage": dict(sorted(total.coverage.items())),
        "seconds": round(seconds, 3),
    }


def _as_text(total: Campaign, seconds: float, plant: str | None) -> str:
    lines = [line for failure in total.failures for line in _story(failure, plant)]
    if not total.failures:
        width = max(map(len, total.coverage), default=0)
        lines += [f"{name:{width}}  {count:,}" for name, count in sorted(total.coverage.items())]
        lines.append("")
    verdict = f"{len(total.failures)} broke a promise" if total.failures else "every promise was kept"
    lines.append(f"{total.seeds:,} worlds with {total.tasks:,} tasks in {seconds:.1f} s: {verdict}")
    return "\n".join(lines)


def _story(failure: SeedFailure, plant: str | None) -> list[str]:
    again = f"merit lab simulate --seed {failure.seed}" + (f" --plant {plant}" if plant else "")
    lines = [f"seed {failure.seed}: {failure.check}: {failure.about} {failure.message}"]
    lines += [f"  {line}" for line in failure.story]
    lines += ["  last happenings:", *(f"    {line}" for line in failure.events)]
    return [*lines, f"  again: {again}", ""]
