"""`merit capability`: what the fleet can do, who offers it, how workers are chosen for it, and who is admitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
import msgspec
import yaml

from merit.cli import output, present
from merit.cli.client import ask
from merit.cli.command import MeritCommand, MeritGroup, connect_option, json_option, server_option
from merit.cli.output import CliError, note, table, write_json, write_lines
from merit.cli.settings_file import read_settings
from merit.cli.values import Pair, span
from merit.model.limits import PROBES_MAX
from merit.sdk.audits import Audit
from merit.sdk.client import AsyncClient
from merit.sdk.fleet_operations import AdmissionProbe

_ENDS: Final = (output.FAILED, output.UNREACHABLE)
_PROBE_FILE_BYTES_MAX: Final = 1024 * 1024
_SOFT: Final = ("with_room", "usual_s")
_SET_FOR: Final = {"DEFAULT": "the default", "SYSTEM": "set for all", "CAPABILITY": "set for it"}


@click.group(cls=MeritGroup, example="merit capability list")
def capability() -> None:
    """Capabilities: who offers them, what waits, how workers are chosen, and who is admitted."""


@capability.command("list", cls=MeritCommand, example="merit capability list", codes=_ENDS)
@server_option
@connect_option
@json_option
def list_capabilities(server: str, connect_timeout_s: float, as_json: bool) -> None:
    """All capabilities that were ever offered, or for which something is set."""

    async def work(client: AsyncClient) -> list[dict[str, Any]]:
        return await client.operations.fleet.capabilities()

    found = [present.then(view, *_SOFT) for view in ask(server, work, connect_timeout_s)]
    if as_json:
        write_json({"capabilities": found})
    elif found:
        columns = (
            "capability",
            "versions",
            "workers",
            "with room",
            "pending",
            "running",
            "usual",
            "strategy",
            "rollout",
        )
        rows = [
            [
                view["name"],
                _versions(view),
                view["workers"],
                present.shown(view["with_room"]),
                view["pending"],
                view["running"],
                present.shown(span(view["usual_s"]) if view["usual_s"] is not None else None),
                view["allocation"]["strategy"],
                _rollout(view["rollout"]),
            ]
            for view in found
        ]
        write_lines(table(columns, rows))
    else:
        note("merit: no capabilities: no worker has offered anything yet; start one with: merit worker MODULE")


@capability.command("show", cls=MeritCommand, example="merit capability show render", codes=_ENDS)
@click.argument("name", metavar="CAPABILITY")
@server_option
@connect_option
@json_option
def show_capability(name: str, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Everything about one capability: what it takes and gives, who offers which version, what is set for it."""

    async def work(client: AsyncClient) -> dict[str, Any]:
        return await client.operations.fleet.capability(name)

    view = present.then(ask(server, work, connect_timeout_s), *_SOFT)
    if as_json:
        write_json(view)
    else:
        write_lines(_story(view))


def _story(view: dict[str, Any]) -> Iterator[str]:
    yield f"{'capability':12}{view['name']}"
    if view["description"]:
        yield f"{'description':12}{view['description']}"
    if view["versions"]:
        yield f"{'versions':12}{_versions(view)}"
    room = "it is not known how many" if view["with_room"] is None else f"{view['with_room']:,}"
    yield f"{'workers':12}{view['workers']:,}, {room} with room"
    yield f"{'pending':12}{view['pending']:,}{', and the queue is paused' if view['paused'] else ''}"
    yield f"{'running':12}{view['running']:,}"
    if view["usual_s"] is not None:
        yield f"{'usual':12}{span(view['usual_s'])}"
    allocation = view["allocation"]
    weights = "".join(f", {name} {weight:g}" for name, weight in allocation["weights"].items())
    yield f"{'strategy':12}{allocation['strategy']}{weights} ({_SET_FOR.get(allocation['set_for'], '')})"
    if view["rollout"]:
        yield f"{'rollout':12}{_rollout(view['rollout'])}"
    if view["requires"]:
        yield f"{'requires':12}{', '.join(view['requires'])}"
    for probe in view["probes"]:
        expected = f" gives {_text(probe['expected'])}" if "expected" in probe else ""
        yield f"{'probe':12}{_text(probe['parameters'])}{expected}, within {span(probe['run_timeout_s'])}"
    for name, heading in (("input_schema", "takes"), ("output_schema", "gives")):
        if view[name]:
            yield f"{heading:12}{_text(view[name])}"


@capability.command(
    "allocate",
    cls=MeritCommand,
    example="""
    merit capability allocate render two-choices
    merit capability allocate render weighted --weight load=2 --weight cost=0.5
    merit capability allocate --all round-robin
    merit capability allocate render --none
    """,
    codes=_ENDS,
)
@click.argument("words", metavar="[CAPABILITY] [STRATEGY]", nargs=-1)
@click.option("--all", "for_all", is_flag=True, help="For all capabilities that have none of their own.")
@click.option("--none", "nothing", is_flag=True, help="As for all others; with --all: the default.")
@click.option(
    "--weight",
    "weights",
    type=Pair("FIGURE", "WEIGHT"),
    multiple=True,
    help="How much a figure counts, for a strategy that weighs several; may be repeated.",
)
@server_option
@connect_option
@json_option
def allocate(
    words: tuple[str, ...],
    for_all: bool,
    nothing: bool,
    weights: tuple[tuple[str, str], ...],
    server: str,
    connect_timeout_s: float,
    as_json: bool,
) -> None:
    """Choose how workers are chosen from now on, for the tasks of a CAPABILITY that do not say it themselves.

    Strategies: least-loaded, direct, round-robin, shortest-queue, capability-load, weighted, two-choices, least-expected,
    greedy-fit, and those of packages that are installed with the control plane.
    """
    wanted = (not for_all) + (not nothing)
    if len(words) != wanted:
        what = [word for word, is_due in (("a CAPABILITY", not for_all), ("a STRATEGY", not nothing)) if is_due]
        raise click.UsageError(f"give {' and '.join(what) or 'no names'}, {len(words)} words are given")
    if not all(words):
        raise click.UsageError(
            "a name is empty, perhaps that of a variable that is not set; say --all if all are meant"
        )
    name = "" if for_all else words[0]
    strategy = "" if nothing else words[-1]
    numbers = dict(_weight(*pair) for pair in weights)

    async def work(client: AsyncClient) -> None:
        await client.operations.fleet.set_allocation(strategy, capability=name, weights=numbers)

    ask(server, work, connect_timeout_s)
    document = {"capability": name or None, "strategy": strategy or None, "weights": numbers}
    chosen = strategy or ("the default" if for_all else "as for all others")
    _say(document, f"{name or 'all others'}: {chosen}", as_json=as_json)


def _weight(name: str, text: str) -> tuple[str, float]:
    try:
        return name, float(text)
    except ValueError:
        raise click.UsageError(f"--weight {name}: {text!r} is no number") from None


@capability.command(
    "probe",
    cls=MeritCommand,
    example="""
    echo '[{"parameters": {"a": 2, "b": 3}, "expected": 5, "run_timeout_s": 10}]' > probes.json
    merit capability probe sum probes.json
    merit capability probe sum --none
    """,
    codes=_ENDS,
)
@click.argument("name", metavar="CAPABILITY")
@click.argument("file", metavar="[FILE.json]", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--none", "nothing", is_flag=True, help="Everybody is admitted.")
@server_option
@connect_option
@json_option
def probe(name: str, file: Path | None, nothing: bool, server: str, connect_timeout_s: float, as_json: bool) -> None:
    """Say what a worker that comes has to do right before it is given tasks of a capability.

    FILE holds a list of small known tasks: "parameters", the "expected" result (without one: any that the output schema
    allows), and "run_timeout_s" (30 if nothing is said). A worker that fails one is paused with the reason.
    """
    if nothing == (file is not None):
        raise click.UsageError("give a FILE with probes; or --none, and nothing else")
    probes = _read_probes(file) if file is not None else []

    async def work(client: AsyncClient) -> None:
        await client.operations.fleet.set_admission(name, probes)

    ask(server, work, connect_timeout_s)
    said = f"{len(probes)} probe{'' if len(probes) == 1 else 's'}" if probes else "everybody is admitted"
    _say({"capability": name, "probes": len(probes)}, f"{name}: {said}", as_json=as_json)


def _read_probes(file: Path) -> list[AdmissionProbe]:
    try:
        if file.stat().st_size > _PROBE_FILE_BYTES_MAX:
            raise CliError("invalid", f"{file}: is larger than {_PROBE_FILE_BYTES_MAX:,} bytes", output.USAGE)
        probes = msgspec.json.decode(file.read_bytes(), type=list[AdmissionProbe])
    except OSError as error:
        raise CliError("invalid", f"{file}: {error.strerror}", output.USAGE) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CliError("invalid", f"{file}: {error}; see merit capability probe --help", output.USAGE) from error
    if not 1 <= len(probes) <= PROBES_MAX:
        raise CliError("invalid", f"{file}: {len(probes)} probes; 1 to {PROBES_MAX} are allowed", output.USAGE)
    return probes


@capability.command(
    "audit",
    cls=MeritCommand,
    example="""
    merit capability audit invoice audit.yaml
    merit capability audit invoice --show
    merit capability audit invoice --none
    """,
    codes=_ENDS,
)
@click.argument("name", metavar="CAPABILITY")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--show", is_flag=True, help="Say what is set, as such a file.")
@click.option("--none", "nothing", is_flag=True, help="Results are not looked at any more.")
@server_option
@connect_option
@json_option
def audit(
    name: str, file: Path | None, show: bool, nothing: bool, server: str, connect_timeout_s: float, as_json: bool
) -> None:
    """Say how the results of a capability are looked at from now on.

    FILE is YAML or JSON: "schema" or "declared: true", "rules" with "name", "expression" (CEL over result, parameters, task
    and wall_s), "message" and "severity" (fail, warn), "auditors", "evidence", "log" with "required" and "errors", "norm_s".
    A result that does not pass is not accepted, and its task is tried again elsewhere.

    Others are asked about a sample, by reputation: "copies" of different workers with "comparison", or a "judge" (a
    capability); "floor", "newcomer_tasks", "timeout_s", "retries" and "on_broken" (reject, accept) say more about that. "gold"
    ("parameters", "expected") with "gold_share" mixes tasks with known results among the others.
    """
    if (file is not None) + show + nothing != 1:
        raise click.UsageError("give a FILE; or --show, or --none, and nothing else")
    wanted = read_settings(file, Audit, "merit capability audit") if file is not None else None

    async def work(client: AsyncClient) -> Audit | None:
        fleet = client.operations.fleet
        if show:
            return await fleet.audit(name)
        await fleet.set_audit(name, wanted)
        return wanted

    found = ask(server, work, connect_timeout_s)
    view = found.view() if found is not None else None
    if show and not as_json:
        write_lines(yaml.safe_dump(view, sort_keys=False, allow_unicode=True).splitlines())
    else:
        said = "results are not looked at" if view is None else f"results are looked at: {', '.join(view) or 'norm_s'}"
        _say({"capability": name, "audit": view}, f"{name}: {said}", as_json=as_json)


def _versions(view: dict[str, Any]) -> str:
    return ", ".join(f"{version} ({count:,})" for version, count in view["versions"].items())


def _rollout(view: dict[str, Any] | None) -> str | None:
    return f"{view['version']} {view['share'] * 100:.3g}% {view['state']}" if view else None


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _say(document: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        write_json(document)
    else:
        write_lines([line])
