"""`merit worker`: offer the capabilities of a module."""

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
from merit.cli.command import MeritCommand, json_option, server_option
from merit.cli.output import CliError, log_to_stderr, write_json, write_lines
from merit.model.limits import CONCURRENCY_MAX
from merit.pools.local_pool import LocalPool, PoolGaveUp, PoolNews
from merit.pools.tether import tether
from merit.sdk.capability import Capability, capabilities_of, declaring
from merit.sdk.command_line import load_commands
from merit.sdk.schema import CapabilityError

log = logging.getLogger("merit.worker")

_COUNT_MAX: Final = 1_000
_PROCESSES_MAX: Final = 1_000


@click.command(
    cls=MeritCommand,
    example="""
    printf 'from merit import capability\\n\\n@capability\\ndef hello(name: str) -> str:\\n    return f"hello {name}"\\n' > hello.py
    merit worker hello --server 127.0.0.1:50051
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
    help="Offer the command-line programs that this file declares; may be repeated.",
)
@click.option("--tag", "tags", multiple=True, help="A word by which workers are told apart; may be repeated.")
@json_option
def worker(
    module: str | None,
    server: str,
    name: str | None,
    concurrency: int | None,
    processes: int | None,
    count: int,
    commands: tuple[Path, ...],
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Offer the capabilities of MODULE (a name to import, or a path to a .py file) until SIGTERM or Ctrl-C.

    On the first signal the worker drains: it takes nothing more, finishes what runs, reports, and leaves. A second one ends
    it at once. A control plane that cannot be reached is tried again for ever.
    """
    tether()
    log_to_stderr()
    sys.path.insert(0, str(Path.cwd()))
    offered = _offered(module, commands)
    name = name or f"{socket.gethostname()}-{os.getpid()}"
    names = [item.name for item in offered]
    if as_json:
        write_json({"name": name, "server": server, "pid": os.getpid(), "capabilities": names})
    else:
        write_lines([f"worker {name} for {server}: {', '.join(names)}"])
    if count > 1:
        options: list[tuple[str, object]] = [("--server", server)]
        options += [("--concurrency", concurrency), ("--processes", processes)]
        options += [("--command", path) for path in commands]
        options += [("--tag", tag) for tag in tags]
        words = [str(word) for option in options if option[1] is not None for word in option]
        _run_pool(name, [module] if module else [], words, count)
        return
    from merit.sdk.worker import WorkerRefused, serve

    try:
        serve(
            *offered,
            server=server,
            name=name,
            concurrency=concurrency,
            processes=processes,
            tags=tags,
        )
    except WorkerRefused as error:
        raise CliError("refused", str(error), output.USAGE) from error
    except ValueError as error:
        raise CliError("usage", str(error), output.USAGE) from error


def _offered(module: str | None, commands: Sequence[Path]) -> list[Capability[..., Any]]:
    """What the module and the command files declare.

    Raises:
        CliError: nothing, or something that is not right; the message says where.
    """
    if module is None and not commands:
        raise CliError("usage", "name a MODULE, or a file of commands with --command", output.USAGE)
    offered: list[Capability[..., Any]] = []
    try:
        if module is not None:
            offered += capabilities_of(_imported(module))
        for path in commands:
            offered += load_commands(path)
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
    """Keep ``count`` worker processes going until a signal; a second one ends them at once."""

    def command(slot: int) -> list[str]:
        return [sys.executable, "-m", "merit", "worker", *module, "--name", f"{name}-{slot + 1}", *options]

    def say(news: PoolNews) -> None:
        log.log(logging.WARNING if news.unexpected else logging.INFO, "%s-%d: %s", name, news.slot + 1, news)

    async def run() -> None:
        pool = LocalPool(command, count, news=say)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, pool.stop)
        await pool.run()

    try:
        asyncio.run(run())
    except PoolGaveUp as error:
        raise CliError("pool", str(error), output.USAGE) from error
