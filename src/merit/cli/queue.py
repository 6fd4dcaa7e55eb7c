"""`merit queue`: what waits for each capability, and what operators set: pauses, limits, shares of tenants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from merit.cli import output
from merit.cli.client import ask
from merit.cli.command import MeritCommand, MeritGroup, connect_option, json_option, server_option
from merit.cli.output import note, table, write_json, write_lines
from merit.cli.values import Rate, span
from merit.model.limits import WEIGHT_MAX
from merit.model.rules import RuleKind
from merit.sdk.client import AsyncClient

_ENDS = (output.FAILED, output.UNREACHABLE)


@click.group(cls=MeritGroup, example="merit queue list")
def queue() -> None:
    """Queues, one for each capability: what waits, pauses, limits, and the shares of tenants."""


@queue.command("list", cls=MeritCommand, example="merit queue list", codes=_ENDS)
@server_option
@connect_option
@json_option
def list_queues(server: str, connect_timeout_s: float, as_json: bool) -> None:
    """All queues: what is pending, running and audited, how many workers, since when the oldest waits, pauses and limits."""

    async def work(client: AsyncClient) -> list[dict[str, Any]]:
        return await client.operations.queues()

    queues = ask(server, work, connect_timeout_s)
    if as_json:
        write_json({"queues": queues})
    elif queues:
        columns = ("capability", "pending", "running", "auditing", "workers", "oldest", "paused", "limits")
        rows = [
            [
                *(view[name] for name in columns[:5]),
                span(view["oldest_age_s"]) if view["pending"] else None,
                (view["pause_reason"] or "yes") if view["paused"] else None,
                "; ".join(_terms(rule) for rule in view["rules"]),
            ]
            for view in queues
        ]
        write_lines(table(columns, rows))
    else:
        note("merit: no queues: no worker has offered anything yet, and nothing waits")


@queue.command("show", cls=MeritCommand, example="merit queue show render", codes=_ENDS)
@click.argument("capability")
@server_option
@connect_option
@json_option
def show_queue(capability: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """One queue, and what each tenant has in it."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        view = await client.operations.queue(capability)
        tenants = {tenant["tenant"]: tenant for tenant in await client.operations.tenants()}
        for load in view["tenants"]:
            load["weight"] = tenants.get(load["tenant"], {"weight": 1})["weight"]
        return view

    view = ask(server, work, connect_timeout_s)
    if as_json:
        write_json(view)
    else:
        write_lines(_story(view))


def _story(view: dict[str, Any]) -> Iterator[str]:
    for name in ("capability", "pending", "running", "auditing", "workers"):
        yield f"{name:12}{view[name]:,}" if isinstance(view[name], int) else f"{name:12}{view[name]}"
    if view["pending"]:
        yield f"{'oldest':12}{span(view['oldest_age_s'])}"
    if view["paused"]:
        yield f"{'paused':12}{view['pause_reason'] or 'yes'}"
    for rule in view["rules"]:
        yield f"{'limit':12}{_terms(rule)}"
    if view["tenants"]:
        yield ""
        columns = ("tenant", "pending", "running", "weight")
        yield from table(columns, [[load[name] for name in columns] for load in view["tenants"]])


@queue.command("pause", cls=MeritCommand, example="merit queue pause render --reason 'licence expired'", codes=_ENDS)
@click.argument("capability")
@click.option("--reason", default="", help="Is shown with the queue and with the tasks that wait in it.")
@server_option
@connect_option
@json_option
def pause_queue(capability: str, reason: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Give nothing of a capability out any more; what runs goes on, and tasks are still taken in."""

    async def work(client: AsyncClient) -> None:
        await client.operations.pause_queue(capability, reason)

    ask(server, work, connect_timeout_s)
    _say({"capability": capability, "paused": True, "reason": reason}, f"{capability} paused", as_json=as_json)


@queue.command("resume", cls=MeritCommand, example="merit queue resume render", codes=_ENDS)
@click.argument("capability")
@server_option
@connect_option
@json_option
def resume_queue(capability: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Give a capability's tasks out again. Exit code 1 if it was not paused."""

    async def work(client: AsyncClient) -> None:
        await client.operations.resume_queue(capability)

    ask(server, work, connect_timeout_s)
    _say({"capability": capability, "paused": False}, f"{capability} resumed", as_json=as_json)


@queue.command(
    "limit",
    cls=MeritCommand,
    example="""
    merit queue limit --capability render --concurrency 4
    merit queue limit --tenant acme --rate 100/m --burst 10
    merit queue limit --key-of call_api --rate 5/s --concurrency 2
    merit queue limit --capability render --none
    """,
    codes=_ENDS,
)
@click.option("--capability", help="Limit all attempts at this one together.")
@click.option("--tenant", help="Limit all attempts for this one together.")
@click.option("--key-of", metavar="CAPABILITY", help="Limit its attempts with the same key, each key by itself.")
@click.option("--concurrency", type=click.IntRange(1), help="Attempts that may live at once.")
@click.option("--rate", "rate_hz", type=Rate(), help="Attempts that may begin.")
@click.option("--burst", type=click.IntRange(1), help="How many may begin at once after a pause.  [default: 1]")
@click.option("--none", "nothing", is_flag=True, help="No limit any more.")
@server_option
@connect_option
@json_option
def set_limit(
    capability: str | None,
    tenant: str | None,
    key_of: str | None,
    concurrency: int | None,
    rate_hz: float | None,
    burst: int | None,
    nothing: bool,
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Limit how many attempts live at once and how fast they begin; it takes the place of the limit that was there.

    All limits that a task is under hold at once. What runs already counts, and is not stopped.
    """
    names = {RuleKind.CAPABILITY: capability, RuleKind.TENANT: tenant, RuleKind.KEY: key_of}
    meant = [(kind, name) for kind, name in names.items() if name]
    if len(meant) != 1:
        raise click.UsageError("say what is limited: one of --capability, --tenant and --key-of")
    if nothing == bool(concurrency or rate_hz):
        raise click.UsageError("give --concurrency, --rate or both; or --none, and nothing else")
    if burst and not rate_hz:
        raise click.UsageError("--burst is a part of --rate; give both")
    kind, name = meant[0]

    async def work(client: AsyncClient) -> None:
        await client.operations.set_rule(
            kind, name, concurrency=concurrency or 0, rate_hz=rate_hz or 0.0, burst=burst or 1
        )

    ask(server, work, connect_timeout_s)
    rule = {"kind": kind.name, "name": name, "concurrency": concurrency, "rate_hz": rate_hz, "burst": burst or 1}
    _say(rule, f"{_WHAT[kind.name]} {name}: {'no limit' if nothing else _numbers(rule)}", as_json=as_json)


@queue.command("limits", cls=MeritCommand, example="merit queue limits", codes=_ENDS)
@server_option
@connect_option
@json_option
def list_limits(server: str, connect_timeout_s: float, as_json: bool) -> None:
    """All limits that hold."""

    async def work(client: AsyncClient) -> list[dict[str, Any]]:
        return await client.operations.rules()

    rules = ask(server, work, connect_timeout_s)
    if as_json:
        write_json({"limits": rules})
    elif rules:
        columns = ("limited", "name", "at once", "rate", "burst")
        rows = [
            [
                _WHAT[rule["kind"]],
                rule["name"],
                rule["concurrency"],
                _rate(rule["rate_hz"]) if rule["rate_hz"] else None,
                rule["burst"] if rule["rate_hz"] else None,
            ]
            for rule in rules
        ]
        write_lines(table(columns, rows))
    else:
        note("merit: no limits")


@queue.command(
    "share",
    cls=MeritCommand,
    example="""
    merit queue share acme --weight 3
    merit queue share trial --live-max 10000
    """,
    codes=_ENDS,
)
@click.argument("tenant")
@click.option(
    "--weight",
    type=click.IntRange(1, WEIGHT_MAX),
    default=1,
    show_default=True,
    help="Its share of the workers, against those of the others.",
)
@click.option("--live-max", type=click.IntRange(1), help="Tasks that have not ended yet.  [default: the cell's bound]")
@server_option
@connect_option
@json_option
def set_share(
    tenant: str, weight: int, live_max: int | None, server: str, connect_timeout_s: float, as_json: bool
) -> None:
    """Set what a tenant gets; what is not given is as for every tenant."""

    async def work(client: AsyncClient) -> None:
        await client.operations.set_tenant(tenant, weight=weight, live_max=live_max or 0)

    ask(server, work, connect_timeout_s)
    most = f", {live_max:,} tasks at most" if live_max else ""
    _say(
        {"tenant": tenant, "weight": weight, "live_max": live_max}, f"{tenant}: weight {weight}{most}", as_json=as_json
    )


@queue.command("shares", cls=MeritCommand, example="merit queue shares", codes=_ENDS)
@server_option
@connect_option
@json_option
def list_shares(server: str, connect_timeout_s: float, as_json: bool) -> None:
    """The tenants that have tasks which have not ended, or settings of their own."""

    async def work(client: AsyncClient) -> list[dict[str, Any]]:
        return await client.operations.tenants()

    tenants = ask(server, work, connect_timeout_s)
    if as_json:
        write_json({"tenants": tenants})
    elif tenants:
        columns = ("tenant", "live", "weight", "live_max")
        rows = [[tenant[name] for name in columns] for tenant in tenants]
        write_lines(table(("tenant", "live", "weight", "live max"), rows))
    else:
        note("merit: no tenant has tasks or settings of its own")


_WHAT = {"CAPABILITY": "capability", "TENANT": "tenant", "KEY": "each key of"}


def _terms(rule: dict[str, Any]) -> str:
    """A limit beside the name of its capability."""
    return f"each key: {_numbers(rule)}" if rule["kind"] == "KEY" else _numbers(rule)


def _numbers(rule: dict[str, Any]) -> str:
    said = [f"{rule['concurrency']:,} at once"] if rule["concurrency"] else []
    if rule["rate_hz"]:
        burst = f" (burst {rule['burst']:,})" if rule["burst"] > 1 else ""
        said.append(f"{_rate(rule['rate_hz'])}{burst}")
    return ", ".join(said)


def _rate(rate_hz: float) -> str:
    return (
        f"{rate_hz:g}/s"
        if rate_hz >= 1
        else f"{rate_hz * 60:.3g}/m"
        if rate_hz * 60 >= 1
        else f"{rate_hz * 3600:.3g}/h"
    )


def _say(document: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        write_json(document)
    else:
        write_lines([line])
