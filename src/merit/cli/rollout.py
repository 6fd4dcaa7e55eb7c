"""`merit rollout`: a new version of a capability takes a share of the tasks, is compared, and promoted or aborted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import MeritCommand, MeritGroup, connect_option, json_option, server_option
from merit.cli.output import note, table, write_json, write_lines
from merit.cli.values import span
from merit.sdk.client import AsyncClient

_ENDS: Final = (output.FAILED, output.UNREACHABLE)


class Share(click.ParamType):  # type: ignore[type-arg]  # older versions of click cannot be subscripted
    """A share of a whole: 10%, or 0.1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share, such as 10% or 0.1", param, ctx)
        return share


@click.group(cls=MeritGroup, example="merit rollout start render 2.0.0 --share 10%")
def rollout() -> None:
    """New versions of capabilities: a share of the tasks, compared with the others, promoted or aborted."""


@rollout.command(
    "start",
    cls=MeritCommand,
    example="""
    merit rollout start render 2.0.0 --share 10%
    merit rollout status render
    """,
    codes=_ENDS,
)
@click.argument("capability")
@click.argument("version")
@click.option("--share", type=Share(), required=True, help="Of the capability's tasks, such as 10%.")
@server_option
@connect_option
@json_option
def start_rollout(
    capability: str, version: str, share: float, server: str, connect_timeout_s: float, as_json: bool
) -> None:
    """Give workers that offer VERSION a share of the tasks; all others get the rest. The count of outcomes begins.

    Tasks that ask for a version, or for a worker, get what they ask for.
    """

    async def work(client: AsyncClient) -> dict[str, Any]:
        await client.operations.fleet.start_rollout(capability, version, share)
        return await client.operations.fleet.rollout(capability)

    _show_one(ask(server, work, connect_timeout_s), as_json=as_json)


@rollout.command("share", cls=MeritCommand, example="merit rollout share render 25%", codes=_ENDS)
@click.argument("capability")
@click.argument("share", type=Share())
@server_option
@connect_option
@json_option
def change_share(capability: str, share: float, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Give the version that is being introduced another share; the count of outcomes goes on."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        fleet = client.operations.fleet
        version = (await fleet.rollout(capability))["version"]
        await fleet.start_rollout(capability, version, share, only_running=True)
        return await fleet.rollout(capability)

    _show_one(ask(server, work, connect_timeout_s), as_json=as_json)


@rollout.command(
    "status",
    cls=MeritCommand,
    example="""
    merit rollout status
    merit rollout status render
    """,
    codes=_ENDS,
)
@click.argument("capability", required=False)
@server_option
@connect_option
@json_option
def show_status(capability: str | None, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """How versions that are being introduced do beside the others: all of them, or that of one CAPABILITY."""

    async def work(client: AsyncClient) -> list[dict[str, Any]]:
        fleet = client.operations.fleet
        return [await fleet.rollout(capability)] if capability else await fleet.rollouts()

    found = ask(server, work, connect_timeout_s)
    if capability:
        _show_one(found[0], as_json=as_json)
    elif as_json:
        write_json({"rollouts": found})
    elif found:
        columns = ("capability", "version", "state", "share", "since", "canary errors", "errors", "times the mean")
        rows = [
            [
                *(view[name] for name in ("capability", "version", "state")),
                _percent(view["share"]),
                view["since"],
                _percent(view["canary"]["error_rate"]),
                _percent(view["stable"]["error_rate"]),
                None if view["mean_times"] is None else f"{view['mean_times']:.2f}",
            ]
            for view in found
        ]
        write_lines(table(columns, rows))
    else:
        note("merit: no rollouts; begin one with: merit rollout start CAPABILITY VERSION --share 10%")


@rollout.command("promote", cls=MeritCommand, example="merit rollout promote render", codes=_ENDS)
@click.argument("capability")
@server_option
@connect_option
@json_option
def promote(capability: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Give the version, and later ones, all tasks."""
    _end(capability, server, connect_timeout_s, promoted=True, as_json=as_json)


@rollout.command("abort", cls=MeritCommand, example="merit rollout abort render", codes=_ENDS)
@click.argument("capability")
@server_option
@connect_option
@json_option
def abort(capability: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Give the version nothing more; what it has goes on. A later promote or start takes that back."""
    _end(capability, server, connect_timeout_s, promoted=False, as_json=as_json)


def _end(capability: str, server: str, connect_timeout_s: float, *, promoted: bool, as_json: bool) -> None:
    async def work(client: AsyncClient) -> dict[str, Any]:
        await client.operations.fleet.end_rollout(capability, promote=promoted)
        return await client.operations.fleet.rollout(capability)

    _show_one(ask(server, work, connect_timeout_s), as_json=as_json)


def _show_one(view: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json(view)
    else:
        write_lines(_story(view))


def _story(view: dict[str, Any]) -> Iterator[str]:
    yield f"{'capability':12}{view['capability']}"
    yield f"{'version':12}{view['version']}"
    yield f"{'state':12}{view['state']}"
    yield f"{'share':12}{_percent(view['share'])}"
    yield f"{'since':12}{view['since']}"
    yield ""
    columns = ("side", "workers", "completed", "failed", "errors", "mean")
    sides = ((f"version {view['version']}", view["canary"]), ("all others", view["stable"]))
    yield from table(columns, [_side(name, side) for name, side in sides])
    compared = []
    if view["error_rate_more"] is not None:
        compared.append(f"{view['error_rate_more'] * 100:+.3g} points of errors")
    if view["mean_times"] is not None:
        compared.append(f"{view['mean_times']:.2f} × the mean time")
    if compared:
        yield ""
        yield f"{'compared':12}{', '.join(compared)}"


def _side(name: str, side: dict[str, Any]) -> list[Any]:
    mean_s = side["mean_s"]
    counts = [side[one] for one in ("workers", "completed", "failed")]
    return [name, *counts, _percent(side["error_rate"]), span(mean_s) if mean_s is not None else None]


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share * 100:.3g}%"
