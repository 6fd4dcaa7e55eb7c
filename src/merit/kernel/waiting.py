"""What waits for the next batch, and what the kernel itself has to do when a batch is durable."""

from __future__ import annotations

from msgspec import Struct

from merit.model.commands import Command
from merit.model.frames import ClientFrame, Welcome, WorkerFrame
from merit.model.tasks import Refusal
from merit.session.cell_end import CellEnd
from merit.session.server_end import ServerEnd


class FromWorker(Struct, frozen=True):
    """A worker's frame."""

    end: CellEnd
    frame: WorkerFrame


class FromClient(Struct, frozen=True):
    """A client's frame, and what the door did not let through of it."""

    end: ServerEnd
    frame: ClientFrame
    refusals: list[Refusal]


class Gone(Struct, frozen=True):
    """A worker's stream has ended."""

    end: CellEnd


class Offered(Struct, frozen=True):
    """A command that came on no stream; ``ticket`` names the answer."""

    command: Command
    ticket: int


class Attached(Struct, frozen=True):
    """Stands among the effects: what follows goes to this stream, what came before does not."""

    end: CellEnd
    welcome: Welcome


class Closed(Struct, frozen=True):
    """Stands among the effects: a stream that was not admitted."""

    end: CellEnd
    reason: str
