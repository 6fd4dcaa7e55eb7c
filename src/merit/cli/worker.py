"""`merit worker`: offer the capabilities of a module; or, by a first word that is a command, look after workers."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from merit.cli import output
from merit.cli.command import Address, Addresses, MeritCommand, MeritGroup, json_option, server_option
from merit.cli.output import CliError, log_to_stderr, write_json, write_lines
from merit.cli.values import Quantity, distinct
from merit.model.limits import CONCURRENCY_MAX
from merit.pools.local_pool import LocalPool, PoolGaveUp, PoolNews
from merit.pools.tether import tether
from merit.sdk.amounts import quantity
from merit.sdk.capability import Capability, capabilities_of, declaring
from merit.sdk.command_line import load_commands
from merit.sdk.schema import CapabilityError

log = logging.getLogger("merit.worker")

_COUNT_MAX: Final = 1_000
_PROCESSES_MAX: Final = 1_000

OPERATIONS: Final = {
    "list": "The workers of the fleet.",
    "show": "Everything about one worker.",
    "watch": "Changes of workers as they come.",
    "pause": "Give a worker nothing more until it is resumed.",
    "resume": "Give it tasks again.",
    "drain": "Let it finish what it holds, and leave.",
    "remove": "Take it out at once, until it is resumed.",
    "retire": "The same as remove.",
    "tell": "Have it told a command, such as RESET.",
    "pardon": "Take it back, or undo a decision about it.",
    "pin": "Fix its factor.",
    "unpin": "Let its factor change again.",
}
"""Each stands in ``merit.cli.fleet``, or in ``merit.cli.judging``, which are loaded when one is asked for: whoever works
does not need them."""
_JUDGING: Final = frozenset({"pardon", "pin", "unpin"})


_MODULE: Final = ("MODULE", "Functions with @capability: a name to import, or a path to a .py file.")
_SECTIONS: Final = {
    "What it offers, of one kind or of several": ("commands", "http_url", "spec"),
    "Who dials whom": ("server", "unary", "registry"),
    "The worker itself": ("name", "tags", "capacity", "tenants", "concurrency", "processes", "count"),
}


class _Working(MeritCommand):
    """To work, without a word for it; its help tells the kinds of agents apart, and names the other commands too."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        records = {option.name: record for option in options if (record := option.get_help_record(ctx))}
        for heading, names in _SECTIONS.items():
            with formatter.section(heading):
                first = [_MODULE] if "spec" in names else []
                formatter.write_dl(first + [records.pop(name) for name in names])
        with formatter.section("Options"):
            formatter.write_dl(list(records.values()))
        with formatter.section("Commands, in place of MODULE"):
            formatter.write_dl(list(OPERATIONS.items()))


class _WorkerGroup(MeritGroup):
    """What does not begin with the name of a command is about working."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(OPERATIONS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in OPERATIONS:
            return None
        module = importlib.import_module(f"merit.cli.{'judging' if cmd_name in _JUDGING else 'fleet'}")
        found: click.Command = getattr(module, f"{cmd_name}_worker")
        return found

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] in OPERATIONS:
            return super().make_context(info_name, args, parent, **extra)
        return work.make_context(info_name, args, parent, **extra)


@click.group(cls=_WorkerGroup, example="merit worker list")
def worker() -> None:
    """Work, and look after those who do."""


@click.command(
    "worker",
    cls=_Working,
    example="""
    printf 'from merit import capability\\n\\n@capability\\ndef hello(name: str) -> str:\\n    return f"hello {name}"\\n' > hello.py
    merit worker hello
    merit worker hello --server 127.0.0.1:50051 --tag gpu --capacity cpu=4 --capacity memory=8Gi --tenant acme
    # programs, and an agent behind an HTTP endpoint: a file says what they can do
    merit worker --command tools.toml
    merit worker --http http://127.0.0.1:8080 --spec agent.toml
    # be dialled, by the unary contract
    merit worker hello --unary 127.0.0.1:50052 --registry 127.0.0.1:50051
    """,
    codes=(output.FAILED,),
)
@click.argument("module", required=False)
@server_option
@click.option("--name", help="Of the worker, unique in the fleet; by default from host and process.")
@click.option("--concurrency", type=click.IntRange(1, CONCURRENCY_MAX), help="Attempts that run at the same time.")
@click.option(
    "--processes",
    type=click.IntRange(1, _PROCESSES_MAX),
    help="Child processes for cpu functions; by default one per CPU.",
)
@click.option(
    "--count",
    type=click.IntRange(1, _COUNT_MAX),
    default=1,
    show_default=True,
    help="So many worker processes; one that dies is started again.",
)
@click.option(
    "--command",
    "commands",
    metavar="FILE.toml",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Command-line programs that this file declares; may be repeated.",
)
@click.option(
    "--http",
    "http_url",
    metavar="URL",
    help="The agent behind this endpoint, as --spec describes it. Needs merit-fleet[http].",
)
@click.option(
    "--spec",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --http: the .toml or .json file that says what the agent can do.",
)
@click.option(
    "--unary",
    type=Address(),
    help="Be dialled at this address, by the unary worker contract, in place of dialling --server; port 0: any.",
)
@click.option(
    "--registry",
    type=Addresses(),
    help="With --unary: announce itself to this registry, Merit's or another.",
)
@click.option("--tag", "tags", multiple=True, help="A word by which workers are told apart; may be repeated.")
@click.option(
    "--capacity",
    type=Quantity(),
    multiple=True,
    help="What it has of a resource that tasks need, such as cpu=4, memory=8Gi or gpu=1; may be repeated.  [default: enough"
    " cpu, memory and network, and nothing else]",
)
@click.option(
    "--tenant",
    "tenants",
    metavar="NAME",
    multiple=True,
    help="Whose tasks it takes; may be repeated.  [default: anybody's]",
)
@json_option
def work(
    module: str | None,
    server: str,
    name: str | None,
    concurrency: int | None,
    processes: int | None,
    count: int,
    commands: tuple[Path, ...],
    http_url: str | None,
    spec: Path | None,
    unary: str | None,
    registry: str | None,
    tags: tuple[str, ...],
    capacity: tuple[tuple[str, float], ...],
    tenants: tuple[str, ...],
    as_json: bool,
) -> None:
    """Offer the capabilities of a Python module, of command-line programs or of an HTTP endpoint until SIGTERM or Ctrl-C.

    On the first signal the worker drains: it takes nothing more, finishes what runs, reports, and leaves. A second one ends
    it at once. A control plane that cannot be reached is tried again for ever. A module that is named like one of the
    commands below is given by its path.
    """
    tether()
    log_to_stderr()
    sys.path.insert(0, str(Path.cwd()))
    if (http_url is None) != (spec is None):
        raise CliError(
            "usage", "--http and --spec belong together: where the agent is, and what it can do", output.USAGE
        )
    if registry is not None and unary is None:
        raise CliError("usage", "--registry belongs to --unary: where this worker is to be dialled", output.USAGE)
    if count > 1 and unary is not None and not unary.endswith(":0"):
        raise CliError("usage", "--count needs --unary HOST:0: each worker needs a port of its own", output.USAGE)
    offered = _offered(module, commands, http_url, spec)
    name = name or f"{socket.gethostname()}-{os.getpid()}"
    has = distinct("--capacity", capacity)
    if count > 1 or unary is None:
        _say(offered, as_json, name=name, server=server)
    if count > 1:
        options: list[tuple[str, object]] = [("--server", server), ("--unary", unary), ("--registry", registry)]
        options += [("--concurrency", concurrency), ("--processes", processes)]
        options += [("--command", path) for path in commands]
        options += [("--http", http_url), ("--spec", spec)]
        options += [("--tag", tag) for tag in tags]
        options += [("--capacity", f"{resource}={quantity(amount)}") for resource, amount in has.items()]
        options += [("--tenant", tenant) for tenant in tenants]
        words = [str(word) for option in options if option[1] is not None for word in option]
        _run_pool(name, [module] if module else [], words, count)
        return
    settings: dict[str, Any] = {"name": name, "concurrency": concurrency, "processes": processes}
    settings |= {"tags": tags, "capacity": has, "tenants": tenants}
    from merit.sdk.worker import WorkerRefused, serve

    try:
        if unary is None:
            serve(*offered, server=server, **settings)
        else:
            from merit.sdk.unary_worker import serve_unary

            def ready(address: str) -> None:
                _say(offered, as_json, name=name, address=address, registry=registry)

            serve_unary(*offered, listen=unary, registry=registry, ready=ready, **settings)
    except WorkerRefused as error:
        raise CliError("refused", str(error), output.USAGE) from error
    except ValueError as error:
        raise CliError("usage", str(error), output.USAGE) from error
    except OSError as error:
        raise CliError("listen", str(error), output.FAILED) from error


def _say(offered: Sequence[Capability[..., Any]], as_json: bool, *, name: str, **where: str | None) -> None:
    """What this worker is, and where: it says so at once, or when it can be reached."""
    names = [item.name for item in offered]
    if as_json:
        write_json({"name": name, **where, "pid": os.getpid(), "capabilities": names})
    else:
        places = " for ".join(place for place in where.values() if place)
        write_lines([f"worker {name} {'at' if 'address' in where else 'for'} {places}: {', '.join(names)}"])


def _offered(
    module: str | None, commands: Sequence[Path], http_url: str | None, spec: Path | None
) -> list[Capability[..., Any]]:
    """What the module, the command files and the spec of the HTTP agent declare.

    Raises:
        CliError: nothing, or something that is not right; the message says where.
    """
    if module is None and not commands and spec is None:
        message = "name a MODULE, a file of commands with --command, or an agent with --http and --spec"
        raise CliError("usage", message, output.USAGE)
    offered: list[Capability[..., Any]] = []
    try:
        if module is not None:
            offered += capabilities_of(_imported(module))
        for path in commands:
            offered += load_commands(path)
        if http_url is not None and spec is not None:
            from merit.sdk.http_agent import load_http_agent  # whoever offers something else need not wait for it

            offered += load_http_agent(spec, http_url)
    except CapabilityError as error:
        raise CliError("capability", str(error), output.USAGE) from error
    except OSError as error:
        raise CliError("module", f"{error.filename}: {error.strerror}", output.USAGE) from error
    if not offered:
        message = f"{module or 'the command files'}: no capability there; decorate a function with @capability"
        raise CliError("module", message, output.USAGE)
    names = [item.name for item in offered]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CliError("capability", f"{twice[0]}: two capabilities have this name; rename one", output.USAGE)
    return offered


def _imported(module: str) -> Any:
    name = _name_of(Path(module)) if module.endswith(".py") else module
    try:
        with declaring():
            return importlib.import_module(name)
    except CapabilityError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            message = f"there is no module {name}; give a name that can be imported from here, or a path to a .py file"
        else:
            message = f"{module} cannot be imported: it needs {missing}, which is not installed"
        raise CliError("module", message, output.USAGE) from error
    except Exception as error:
        raise CliError("module", f"{module} cannot be imported: {_where(error)}", output.USAGE) from error


def _name_of(path: Path) -> str:
    """The name under which a file is imported, with the folder to find it in put in front of the path."""
    if not path.is_file():
        raise CliError("module", f"{path}: there is no such file", output.USAGE)
    path = path.resolve()
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        names.append(folder.name)
        folder = folder.parent
    if names[0] == "__init__":
        del names[0]
    sys.path.insert(0, str(folder))
    return ".".join(reversed(names))


def _where(error: Exception) -> str:
    """An error of the user's module in one line, with the place in the user's code."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    place = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    return f"{place}{type(error).__name__}: {error}"


def _run_pool(name: str, module: list[str], options: list[str], count: int) -> None:
    """Keep ``count`` worker processes going until a signal, or until all were drained; a second one ends them at once."""

    def command(slot: int) -> list[str]:
        return [sys.executable, "-m", "merit", "worker", *module, "--name", f"{name}-{slot + 1}", *options]

    def say(news: PoolNews) -> None:
        log.log(logging.WARNING if news.unexpected else logging.INFO, "%s-%d: %s", name, news.slot + 1, news)

    async def run() -> None:
        # A worker that an operator drains ends with 0; to start it again would bring it back.
        pool = LocalPool(command, count, news=say, done_codes=(0,))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, pool.stop)
        await pool.run()

    try:
        asyncio.run(run())
    except PoolGaveUp as error:
        raise CliError("pool", str(error), output.USAGE) from error
