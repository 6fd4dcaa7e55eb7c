"""`merit up`: run a control plane."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from merit.cli import output
from merit.cli.command import Address, MeritCommand, json_option, state_option
from merit.cli.output import CliError, log_to_stderr, write_json, write_lines

if TYPE_CHECKING:
    from merit.app.state_directory import StateDirectory


@click.command(
    cls=MeritCommand,
    example="merit up --state .merit --grpc 127.0.0.1:50051",
    codes=(output.FAILED,),
)
@state_option
@click.option(
    "--grpc",
    type=Address(),
    default="127.0.0.1:50051",
    show_default=True,
    help="Where to listen; port 0 takes a free one. This machine only: a loopback address.",
)
@json_option
def up(state: Path, grpc: str, as_json: bool) -> None:
    """Run a control plane until SIGTERM or Ctrl-C.

    It says one line on stdout when it is ready, and logs to stderr. The state directory holds everything: whatever was
    acknowledged is there after a crash or a power failure, and the next `merit up` goes on with it.
    """
    from merit.app.control_plane import Settings, run_until_signal
    from merit.app.state_directory import StateDirectory
    from merit.core.codec import UnreadableEvent
    from merit.gateway.server import CannotListen, check_address
    from merit.kernel.quarantine import Stopped
    from merit.pools.tether import tether
    from merit.ports.journal import JournalCorrupt, JournalError, LeaderElsewhere

    tether()
    log_to_stderr()

    def ready(address: str, epoch: int) -> None:
        if as_json:
            write_json({"grpc": address, "state": str(state), "epoch": epoch, "pid": os.getpid()})
        else:
            write_lines([f"ready: gRPC on {address}, state in {state}, epoch {epoch}, process {os.getpid()}"])

    try:
        check_address(grpc)
    except CannotListen as error:
        raise CliError("address", str(error), output.USAGE) from error
    try:
        _check_quarantine(StateDirectory(state))
        asyncio.run(run_until_signal(Settings(state=state, grpc=grpc), ready))
    except CannotListen as error:
        raise CliError("address_taken", str(error), output.FAILED) from error
    except LeaderElsewhere as error:
        raise CliError("led_elsewhere", str(error), output.FAILED, holder=error.holder) from error
    except JournalCorrupt as error:
        message = f"{error}. Nothing was changed; `merit journal verify --state {state}` names all damage"
        raise CliError("journal_damaged", message, output.FAILED, sequence=error.sequence) from error
    except UnreadableEvent as error:
        raise CliError("journal_unreadable", f"{state}: {error}", output.FAILED) from error
    except JournalError as error:
        raise CliError("journal_unavailable", str(error), output.FAILED) from error
    except Stopped as error:
        raise CliError("stopped", str(error), output.FAILED) from error
    except OSError as error:
        raise CliError("state", f"{error.filename or state}: {error.strerror or error}", output.FAILED) from error


def _check_quarantine(directory: StateDirectory) -> None:
    """Read it once before anything starts, so that a damaged file is told from a defect."""
    try:
        directory.quarantine()
    except ValueError as error:
        raise CliError("quarantine_damaged", str(error), output.FAILED) from error
