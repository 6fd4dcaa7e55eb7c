"""What all commands share: how their help ends, and the options that several of them have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from merit.cli import output, present
from merit.cli.values import Duration
from merit.model.tenancy import DEFAULT_TENANT

Function = TypeVar("Function", bound=Callable[..., Any])

# As `merit.sdk.channel` and `merit.app.state_directory` have them; importing those would load gRPC for a line of help.
DEFAULT_SERVER: Final = "127.0.0.1:50051"
DEFAULT_STATE: Final = Path(".merit")

_CODES: Final = {
    0: "it went well",
    output.FAILED: "a task failed, was canceled or refused; damage was found; a server could not go on",
    output.USAGE: "wrong usage; nothing was done",
    output.UNREACHABLE: "no control plane answered",
    output.TIMED_OUT: "the wait was over before the task was; the task goes on",
    output.INTERRUPTED: "interrupted",
}


class MeritCommand(click.Command):
    """A command whose help ends with an example to be pasted and the exit codes that it can have.

    Args:
        example: lines of shell.
        codes: exit codes beside 0, 2 and 130, which every command has.
    """

    def __init__(self, *args: Any, example: str, codes: Sequence[int] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._example = example
        self._codes = sorted({0, output.USAGE, output.INTERRUPTED, *codes})

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_example(formatter, self._example)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), _CODES[code]) for code in self._codes])


class MeritGroup(click.Group):
    """A group of commands: without arguments it shows its help, which ends with an example to be pasted.

    Args:
        example: lines of shell.
    """

    def __init__(self, *args: Any, example: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._example = example

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        _write_example(formatter, self._example)


def _write_example(formatter: click.HelpFormatter, example: str) -> None:
    with formatter.section("Example"):
        for line in example.strip().splitlines():
            formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


class Address(click.ParamType):  # type: ignore[type-arg]  # older versions of click cannot be subscripted
    """``HOST:PORT``."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        host, _, port = str(value).rpartition(":")
        if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
            self.fail(f"{value!r} is no HOST:PORT, such as {DEFAULT_SERVER}", param, ctx)
        return str(value)


class Addresses(Address):
    """``HOST:PORT``, or several with commas between them."""

    name = "HOST:PORT,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        convert = super().convert
        return ",".join(convert(part.strip(), param, ctx) for part in str(value).split(","))


def again(command: Sequence[str], server: str) -> list[str]:
    """The words of a command line that asks the same control plane, about the same moment.

    Args:
        command: its own words, without those that say whom it asks.
        server: whom this command asks.
    """
    there = present.visited()
    if there is not None:
        return [*there.again, *command]
    return ["merit", *command, *(["--server", server] if server != DEFAULT_SERVER else [])]


def json_option(function: Function) -> Function:
    """``--json``."""
    option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else there.")
    return option(function)


def server_option(function: Function) -> Function:
    """``--server``, with MERIT_SERVER as its default."""
    option = click.option(
        "--server",
        type=Addresses(),
        default=DEFAULT_SERVER,
        show_default=True,
        envvar="MERIT_SERVER",
        show_envvar=True,
        help="The control plane; of several nodes all addresses.",
    )
    return option(function)


def connect_option(function: Function) -> Function:
    """``--connect-timeout``."""
    option = click.option(
        "--connect-timeout",
        "connect_timeout_s",
        type=Duration(),
        default="10s",
        show_default=True,
        help="How long to try to reach the control plane.",
    )
    return option(function)


def tenant_option(function: Function) -> Function:
    """``--tenant``, with MERIT_TENANT as its default."""
    option = click.option(
        "--tenant",
        default=DEFAULT_TENANT,
        show_default=True,
        envvar="MERIT_TENANT",
        show_envvar=True,
        help="For whom this is.",
    )
    return option(function)


def yes_option(function: Function) -> Function:
    """``--yes``."""
    return click.option("--yes", is_flag=True, help="Do not ask first; with --json nobody is asked either.")(function)


def store_option(function: Function) -> Function:
    """``--store``, with MERIT_STORE as its default."""
    option = click.option(
        "--store",
        metavar="URL",
        default="",
        envvar="MERIT_STORE",
        show_envvar=True,
        help="The database in which several nodes keep their state: postgresql://user@host/database. Everybody sees what is"
        " in a command line: give the password in PGPASSWORD, ~/.pgpass or MERIT_STORE.",
    )
    return option(function)


def state_option(function: Function) -> Function:
    """``--state``, with MERIT_STATE as its default."""
    option = click.option(
        "--state",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_STATE,
        show_default=True,
        envvar="MERIT_STATE",
        show_envvar=True,
        help="The directory in which the control plane keeps its state.",
    )
    return option(function)
