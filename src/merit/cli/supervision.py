"""`merit supervision`: by which numbers workers are rewarded and punished, and what tasks are to reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import MeritCommand, MeritGroup, connect_option, json_option, server_option
from merit.cli.output import CliError, note, table, write_json, write_lines
from merit.cli.rollout import Share
from merit.cli.values import Duration, Pair, distinct, span
from merit.sdk.client import AsyncClient

Function = TypeVar("Function", bound=Callable[..., Any])

_ENDS: Final = (output.FAILED, output.UNREACHABLE)
_POINTS: Final = click.FloatRange(0, 100)
_COUNT: Final = click.IntRange(1)
_SETTINGS: Final[dict[str, tuple[Any, str]]] = {
    "engine": (str, "Who decides about rewards and punishments, by name."),
    "scoring": (str, "How scores are reckoned, by name."),
    "reputation": (str, "The model of reputation, by name."),
    "every_s": (Duration(), "How often workers with news are looked at."),
    "reward_at": (_POINTS, "The score from which on a worker is rewarded."),
    "punish_at": (_POINTS, "The score up to which it is punished."),
    "reward": (Share(), "By how much the factor grows, such as 10%."),
    "punish": (Share(), "By how much it shrinks."),
    "pause_after": (_COUNT, "Punishments in a row until a worker is paused, …"),
    "pause_below": (click.FloatRange(0, 2), "… if its factor is then below this."),
    "pause_s": (Duration(), "How long a pause lasts at least."),
    "pauses_max": (_COUNT, "With so many pauses within a day it is deactivated."),
    "recover": (_POINTS, "Points above --punish-at to which a paused worker's score has to have recovered."),
    "canaries": (_COUNT, "Tasks that a worker on probation has to do right."),
    "cool_down_s": (Duration(), "Time between two decisions about a worker, at least."),
    "attempts_min": (_COUNT, "Ended attempts between two decisions, at least."),
    "trusted_at": (Share(), "Lower bound of reputation from which on a worker is trusted."),
    "trusted_attempts": (click.IntRange(0), "Results that were looked at closely by then."),
    "circuit_failures": (_COUNT, "Failures from which on a breaker opens; more than the window has: never."),
    "circuit_share": (Share(), "… if they are this share of the window."),
    "circuit_window": (_COUNT, "The last attempts that a breaker looks at."),
    "circuit_open_s": (Duration(), "How long it stays open at first; each time twice as long, …"),
    "circuit_open_s_max": (Duration(), "… and so long at most."),
    "circuit_probes": (_COUNT, "Tasks that have to come out well for it to close."),
}
"""By the name of ``SupervisionArguments``: what an option takes, and what it is."""


@click.group(cls=MeritGroup, example="merit supervision show")
def supervision() -> None:
    """Supervision: who is rewarded and punished by which numbers, and what tasks are to reach."""


@supervision.command("show", cls=MeritCommand, example="merit supervision show", codes=_ENDS)
@server_option
@connect_option
@json_option
def show_supervision(server: str, connect_timeout_s: float, as_json: bool) -> None:
    """All that is set, and what there is to choose from."""
    _show(ask(server, _asked, connect_timeout_s), as_json=as_json)


async def _asked(client: AsyncClient) -> dict[str, Any]:
    fleet = client.operations.fleet
    return {**await fleet.supervision(), "objectives": await fleet.objectives()}


def _show(view: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json(view)
        return
    choices = {"engine": "engines", "scoring": "scorings", "reputation": "reputations"}
    rows = []
    for name, (_, what) in _SETTINGS.items():
        if name in choices:
            rows.append([name, view[name], f"one of {', '.join(view[choices[name]])}"])
        else:
            value = span(view[name]) if isinstance(_SETTINGS[name][0], Duration) else f"{view[name]:g}"
            rows.append([_option(name).removeprefix("--"), value, what])
    rows += [[f"weight {name}", f"{points:g}", "points"] for name, points in view["weights"].items()]
    write_lines(table(("setting", "value", ""), rows))
    if view["objectives"]:
        columns = ("objective of", "share", "within", "over")
        rows = [
            [
                one["capability"],
                f"{one['share']:.1%}",
                span(one["within_s"]) if one["within_s"] else None,
                span(one["window_s"]),
            ]
            for one in view["objectives"]
        ]
        write_lines(["", *table(columns, rows)])
    for trouble in view["troubles"]:
        note(f"merit: a plug-in has failed, and the usual one stands in for it: {trouble}")


def _option(name: str) -> str:
    """The option by which a setting is given: times have their unit in the value."""
    return f"--{name.replace('_s_max', '_max').removesuffix('_s').replace('_', '-')}"


def _setting_options(function: Function) -> Function:
    """All of ``_SETTINGS``."""
    decorated: Any = function
    for name, (kind, what) in reversed(_SETTINGS.items()):
        decorated = click.option(_option(name), name, type=kind, help=what)(decorated)
    return decorated  # type: ignore[no-any-return]  # what click.option gives back is the function that it was given


@supervision.command(
    "set",
    cls=MeritCommand,
    example="""
    merit supervision set --punish-at 60 --pause 30s
    merit supervision set --engine adaptive --weight errors=150
    merit supervision set --defaults
    """,
    codes=_ENDS,
)
@_setting_options
@click.option(
    "--weight",
    "weights",
    type=Pair("PART", "POINTS"),
    multiple=True,
    help="Of a part of the score; those not named are as the scoring has them. May be repeated.",
)
@click.option("--defaults", "anew", is_flag=True, help="What is not given is as usual, and not as it was.")
@server_option
@connect_option
@json_option
def set_supervision(
    weights: tuple[tuple[str, str], ...],
    anew: bool,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
    **settings: Any,
) -> None:
    """Change how workers are supervised. What is not given stays as it is; the answer is all of it."""
    given = {name: value for name, value in settings.items() if value is not None}
    if weights:
        given["weights"] = {name: _number(text) for name, text in distinct("--weight", weights).items()}
    if not given and not anew:
        raise CliError("usage", "nothing to be set: name a setting, or --defaults; see --help", output.USAGE)

    async def work(client: AsyncClient) -> dict[str, Any]:
        await client.operations.fleet.set_supervision(anew=anew, **given)
        return await _asked(client)

    _show(ask(server, work, connect_timeout_s), as_json=as_json)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"--weight: {text!r} is no number of points") from None


@supervision.command(
    "objective",
    cls=MeritCommand,
    example="""
    merit supervision objective render --share 99% --within 30s
    merit supervision objective render --none
    """,
    codes=_ENDS,
)
@click.argument("capability")
@click.option("--share", type=Share(), help="Of its tasks that is to be done well, such as 99%.")
@click.option("--within", "within_s", type=Duration(), help="… and so soon after the submit.  [default: whenever]")
@click.option(
    "--window", "window_s", type=Duration(), default="1h", show_default=True, help="Over which it is counted."
)
@click.option("--none", "none", is_flag=True, help="It has none any more.")
@server_option
@connect_option
@json_option
def set_objective(
    capability: str,
    share: float | None,
    within_s: float | None,
    window_s: float,
    none: bool,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Say what the tasks of a capability are to reach; decision engines may go by it (adaptive does)."""
    if (share is None) != none:
        raise CliError("usage", "give either --share, above 0, or --none", output.USAGE)

    async def work(client: AsyncClient) -> None:
        await client.operations.fleet.set_objective(
            capability, share or 0.0, within_s=within_s or 0.0, window_s=window_s
        )

    ask(server, work, connect_timeout_s)
    if as_json:
        write_json({"capability": capability, "share": share, "within_s": within_s, "window_s": window_s})
    elif none:
        write_lines([f"{capability} has no objective"])
    else:
        within = f" within {span(within_s)}" if within_s else ""
        write_lines([f"{share:.1%} of {capability} are to be done well{within}"])
