"""What waits for the next batch, and what the kernel itself has to do when a batch is durable."""

from __future__ import annotations

from msgspec import Struct, field

from merit.core.state import KeyEntry
from merit.model.commands import Command
from merit.model.effects import Effect
from merit.model.frames import ClientFrame, Settled, Update, Welcome, WorkerFrame
from merit.model.tasks import Refusal
from merit.session.cell_end import CellEnd
from merit.session.server_end import ServerEnd


class FromWorker(Struct, frozen=True):
    """A worker's frame."""

    end: CellEnd
    frame: WorkerFrame


class FromClient(Struct, frozen=True):
    """A client's frame, and what the door did not let through of it.

    ``known``: by id, what looking into the journal has brought of its tasks; None: there is nothing of that one.
    ``keys``: the same by tenant and idempotency key.
    """

    end: ServerEnd
    frame: ClientFrame
    refusals: list[Refusal]
    known: dict[str, Settled | None] = {}
    keys: dict[tuple[str, str], KeyEntry | None] = {}


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
    permanent: bool = False


class Answer(Struct, frozen=True):
    """To a command that was offered with a ``ticket``: it is durable, but for what was refused."""

    ticket: int
    refusals: list[Refusal]


class Lookup(Struct, frozen=True):
    """A client names tasks that the cell has forgotten, if it ever had them: the shell looks into the journal.

    ``again``: it submits them, perhaps not for the first time, and everything it says waits for the answer. ``keys``:
    pairs of tenant and idempotency key that it submits tasks with.
    """

    end: ServerEnd
    tasks: list[str]
    again: bool = False
    keys: list[tuple[str, str]] = []


End = CellEnd | ServerEnd


class Batch(Struct):
    """What waits until the journal is durable up to ``last``."""

    last: int = 0
    acks: list[tuple[End, int]] = field(default_factory=list)
    effects: list[Effect | Attached | Closed] = field(default_factory=list)
    refusals: list[tuple[ServerEnd, list[Refusal]]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    told: list[tuple[ServerEnd, Settled]] = field(default_factory=list)
    """Outcomes that the journal had already."""
    known: list[tuple[ServerEnd, str, str]] = field(default_factory=list)
    """Submits that are other tasks by their idempotency keys."""
    updates: list[tuple[ServerEnd, Update]] = field(default_factory=list)
    """Whom to tell of which steps, as they were when they were taken: what has come since may not be durable yet."""
    watches: list[tuple[ServerEnd, list[str]]] = field(default_factory=list)
    """Whom to tell of which tasks from here on. Not before, or an outcome could be told before its submit is durable."""
    moved: set[str] = field(default_factory=set)
    """Workers to which something has happened, if anybody watches them."""
