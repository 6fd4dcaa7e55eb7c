"""What the commands that read a journal say when it cannot be read, or not tell what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from merit.app.past import NotThere
from merit.app.trail_export import TrailMissing
from merit.cli import output
from merit.cli.output import CliError
from merit.core.codec import UnreadableEvent
from merit.core.lifecycles import IllegalTransition
from merit.core.trails import TrailInvalid
from merit.model.record import JournalCorrupt, JournalError
from merit.ports.archive import ArchiveUnavailable
from merit.ports.signer import SignerUnavailable
from merit.ports.snapshots import SnapshotUnavailable


@contextmanager
def explained() -> Iterator[None]:
    """What cannot be read is the command's error."""
    try:
        yield
    except NotThere as error:
        raise CliError("no_such_moment", str(error), output.USAGE) from error
    except (JournalError, UnreadableEvent, IllegalTransition, SnapshotUnavailable) as error:
        raise journal_error(error) from error
    except ArchiveUnavailable as error:
        raise CliError("archive_unavailable", str(error), output.USAGE) from error
    except SignerUnavailable as error:
        raise CliError("key_unavailable", str(error), output.USAGE) from error
    except TrailInvalid as error:
        raise CliError("trail_invalid", f"what the journal has is no proof: {error}", output.FAILED) from error
    except TrailMissing as error:
        raise CliError("no_such_trail", str(error), output.FAILED) from error
    except ValueError as error:
        raise CliError("usage", str(error), output.USAGE) from error


def journal_error(error: JournalError | UnreadableEvent | IllegalTransition | SnapshotUnavailable) -> CliError:
    """What is wrong with a journal, or with the snapshots of it."""
    if isinstance(error, JournalCorrupt):
        return CliError("journal_damaged", str(error), output.FAILED, sequence=error.sequence)
    if isinstance(error, UnreadableEvent | IllegalTransition):
        return CliError("journal_unreadable", str(error), output.FAILED)
    return CliError("journal_unavailable", str(error), output.USAGE)
