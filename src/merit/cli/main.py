"""The `merit` command itself: finds the module of a subcommand by its name, and turns errors into lines and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from merit.cli import output
from merit.cli.command import MeritGroup
from merit.cli.output import CliError, note, write_json

COMMANDS: Final = {
    "up": "Run a control plane.",
    "worker": "Work: offer the capabilities of a module.",
    "submit": "Submit one task.",
    "map": "Run a capability on each line of a file.",
    "task": "List, show, follow and cancel tasks.",
    "capability": "Capabilities: who offers them, who is chosen, who is admitted.",
    "supervision": "Rewards and punishments: by which numbers, objectives.",
    "rollout": "New versions: a share of the tasks, compared with the others.",
    "explain": "Why a task went to whom, or a worker was rewarded or punished.",
    "queue": "Queues: what waits, pauses, limits, shares of tenants.",
    "dead": "Tasks that failed for good: look, try again, purge.",
    "schedule": "Tasks that come again and again.",
    "status": "Show the control plane and its workers in a few numbers.",
    "at": "Ask about a moment of the past: merit at 14:03 worker list.",
    "journal": "Verify the journal, or show what is in it.",
    "bench": "Measure this machine.",
    "lab": "Simulate: many worlds in virtual time.",
    "scenario": "What rewards and punishments come to, in virtual time.",
}
"""Each stands in ``merit.cli.<name>`` under that name; its module is loaded when it is asked for, so that ``--help`` of
one does not wait for all."""


_SERVERS: Final = frozenset({"up", "worker"})
"""These run for long and are tuned for it."""


class _Merit(MeritGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in _SERVERS:
            importlib.import_module("merit.cli.transport").prepare()
        found: click.Command = getattr(importlib.import_module(f"merit.cli.{cmd_name}"), cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"merit {version('merit-fleet')}")
        except PackageNotFoundError:
            click.echo("merit (not installed: runs from its source)")
        ctx.exit()


@click.group(
    cls=_Merit,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Each command has --help with an example, and --json for programs.",
    example="""
    merit up
    merit worker MODULE
    merit submit CAPABILITY key=value --wait
    """,
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="The version."
)
def merit() -> None:
    """A control plane for fleets of agents."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit code.

    Whatever can be expected to go wrong ends as one line on stderr (and, with ``--json``, as a document on stdout).
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong is said once, by us
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = merit.main(given, prog_name="merit", standalone_mode=False)
    except click.exceptions.Abort:
        code = _complain(CliError("interrupted", "interrupted", output.INTERRUPTED), given)
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        where = f"; see {context.command_path} --help" if context else ""
        code = _complain(CliError("usage", f"{error.format_message().rstrip('.')}{where}", output.USAGE), given)
    except CliError as error:
        code = _complain(error, given)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(error: CliError, given: Sequence[str]) -> int:
    note(f"merit: {error}")
    if _wants_json(given):
        write_json(error.view())
    return error.code


def _wants_json(given: Sequence[str]) -> bool:
    """Whether ``--json`` was given: asked of the words themselves, since usage errors come before they are understood."""
    words: list[Any] = list(given)
    return "--json" in (words[: words.index("--")] if "--" in words else words)
