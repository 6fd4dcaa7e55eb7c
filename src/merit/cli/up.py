"""`merit up`: run a control plane."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from merit.cli import output
from merit.cli.command import Address, Function, MeritCommand, json_option, state_option, store_option
from merit.cli.output import CliError, log_to_stderr, write_json, write_lines
from merit.cli.values import Duration, Size

if TYPE_CHECKING:
    from merit.app.control_plane import Settings


LEASE_S_MIN: Final = 1.0
LEASE_S_MAX: Final = 600.0
"""Of --lease: shorter than a pause of a busy machine it would change hands all the time."""

_RETENTION: Final = (
    ("--keep", "journal_keep_s", Duration(), "7d", "How long everything is kept: contents, the state of any moment."),
    (
        "--keep-trails",
        "trails_keep_s",
        Duration(),
        "90d",
        "How long final tasks are found and their trails can be exported.",
    ),
    ("--audit-horizon", "audit_horizon_s", Duration(), "1d", "Nothing younger leaves the journal, whatever its size."),
    ("--journal-max", "journal_bytes_max", Size(), "20Gi", "Size of the journal beyond which older events go earlier."),
    ("--archive-max", "archive_bytes_max", Size(), "20Gi", "The same for the trails of what has left the journal."),
    ("--search-max", "search_bytes_max", Size(), "20Gi", "The same for the final tasks that can be searched."),
    ("--snapshots-max", "snapshots_bytes_max", Size(), "4Gi", "The same for snapshots."),
)


def retention_options(function: Function) -> Function:
    """The fields of ``merit.model.retention.Retention``, with its defaults."""
    for option, field, kind, default, about in reversed(_RETENTION):
        function = click.option(option, field, type=kind, default=default, show_default=True, help=about)(function)
    return function


@click.command(
    cls=MeritCommand,
    example="""
    merit up --state .merit --grpc 127.0.0.1:50051
    # one of several nodes, of which one leads
    merit up --store postgresql://merit@db.example/merit --state .merit --grpc 127.0.0.1:50051
    """,
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
@store_option
@click.option(
    "--lease",
    "lease_s",
    type=Duration(),
    default="5s",
    show_default=True,
    help="With --store: another node takes over when this one is not heard of for so long.",
)
@retention_options
@json_option
def up(state: Path, grpc: str, store: str, lease_s: float, as_json: bool, **retention: float) -> None:
    """Run a control plane until SIGTERM or Ctrl-C.

    It says one line on stdout when it is ready, and logs to stderr. The state directory holds everything: whatever was
    acknowledged is there after a crash or a power failure, and the next `merit up` goes on with it.

    With --store all that is in a database instead, several may be run on it, and one leads. The others say that they stand
    by, and one of them says that it is ready when it takes over.
    """
    from merit.app.node import run_until_signal
    from merit.pools.tether import tether

    tether()
    log_to_stderr()

    def ready(address: str, epoch: int) -> None:
        if as_json:
            write_json({"grpc": address, "state": str(state), "epoch": epoch, "pid": os.getpid()})
        else:
            write_lines([f"ready: gRPC on {address}, state in {state}, epoch {epoch}, process {os.getpid()}"])

    def standby(leader: str) -> None:
        if as_json:
            write_json({"standby": True, "leader": leader, "pid": os.getpid()})
        else:
            write_lines([f"standby: {leader} leads, process {os.getpid()}"])

    settings = _settings(state, grpc, store, lease_s, retention)
    with _explained(settings):
        asyncio.run(run_until_signal(settings, ready, standby))


def _settings(state: Path, grpc: str, store: str, lease_s: float, retention: dict[str, float]) -> Settings:
    """What was asked for, if it can be."""
    from merit.app.control_plane import Settings
    from merit.app.state_directory import StateDirectory
    from merit.gateway.server import CannotListen, check_address
    from merit.model.retention import Retention

    try:
        check_address(grpc)
    except CannotListen as error:
        raise CliError("address", str(error), output.USAGE) from error
    kept = Retention(**retention)  # type: ignore[arg-type]  # options have the names and the types of its fields
    try:
        kept.check()
    except ValueError as error:
        raise CliError("retention", str(error), output.USAGE) from error
    if not LEASE_S_MIN <= lease_s <= LEASE_S_MAX:
        message = f"--lease: {lease_s:g} s is not between {LEASE_S_MIN:g} s and {LEASE_S_MAX:g} s"
        raise CliError("lease", message, output.USAGE)
    try:
        # Once before anything starts, so that a damaged file is told from a defect.
        StateDirectory(state).quarantine()
    except ValueError as error:
        raise CliError("quarantine_damaged", str(error), output.FAILED) from error
    except OSError as error:
        raise _no_directory(state, error) from error
    return Settings(state=state, grpc=grpc, retention=kept, store=store, lease_s=lease_s)


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    """What ends a control plane is the command's error."""
    from merit.core.codec import UnreadableEvent
    from merit.gateway.server import CannotListen
    from merit.kernel.quarantine import Stopped
    from merit.ports.journal import JournalCorrupt, JournalError, LeaderElsewhere

    try:
        yield
    except CannotListen as error:
        raise CliError("address_taken", str(error), output.FAILED) from error
    except LeaderElsewhere as error:
        raise CliError("led_elsewhere", str(error), output.FAILED, holder=error.holder) from error
    except JournalCorrupt as error:
        where = "with the same --store" if settings.store else f"--state {settings.state}"
        message = f"{error}. Nothing was changed; `merit journal verify {where}` names all damage"
        raise CliError("journal_damaged", message, output.FAILED, sequence=error.sequence) from error
    except UnreadableEvent as error:
        raise CliError("journal_unreadable", f"{settings.state}: {error}", output.FAILED) from error
    except JournalError as error:
        raise CliError("journal_unavailable", str(error), output.FAILED) from error
    except Stopped as error:
        raise CliError("stopped", str(error), output.FAILED) from error
    except ValueError as error:
        if not settings.store:
            raise
        raise CliError("store", str(error), output.USAGE) from error
    except OSError as error:
        raise _no_directory(settings.state, error) from error


def _no_directory(state: Path, error: OSError) -> CliError:
    return CliError("state", f"{error.filename or state}: {error.strerror or error}", output.FAILED)
