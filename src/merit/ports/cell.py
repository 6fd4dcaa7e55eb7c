"""The port between the gateway and a cell: streams go in and out, commands are answered, state is read."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Protocol

from merit.core.desk import Desk
from merit.core.state import State
from merit.model.commands import Command
from merit.model.frames import CellFrame, ClientFrame, ServerFrame, WorkerFrame
from merit.model.tasks import Progress, Refusal
from merit.session.cell_end import CellEnd
from merit.session.server_end import ServerEnd


class CellStopped(Exception):
    """The cell has stopped: it takes and acknowledges nothing more. The message says why."""


class CellStream(Protocol):
    """The gateway's side of a worker's stream."""

    def deliver(self, frame: CellFrame) -> None:
        """Send this frame, in the order of the calls. Must not block."""
        ...

    def end(self) -> None:
        """End the stream, once what was delivered is sent."""
        ...


class ServerStream(Protocol):
    """The gateway's side of a client's stream."""

    def deliver(self, frame: ServerFrame) -> None:
        """Send this frame, in the order of the calls. Must not block."""
        ...

    def end(self) -> None:
        """End the stream, once what was delivered is sent."""
        ...


class Settling(Protocol):
    """What holds answers back until what they tell is durable."""

    def check_lease(self) -> None:
        """Raises ``CellStopped`` when somebody else may lead by now: what the state says may be over."""
        ...

    async def settled(self) -> None:
        """Returns when all that is in the state now is durable.

        Raises:
            CellStopped: that did not come about, or somebody else may lead by now.
        """
        ...


class Cell(Protocol):
    """A cell that leads. All calls come from the thread of its event loop."""

    @property
    def name(self) -> str:
        """Of the cell."""
        ...

    @property
    def state(self) -> State:
        """To be read only. While an append is awaited it is ahead of what is durable: an answer made of it goes out when
        ``settled`` returns."""
        ...

    @property
    def desk(self) -> Desk:
        """State, backlog and what else the rules go by; to be read only."""
        ...

    @property
    def progress(self) -> dict[str, Progress]:
        """By task: the last word on how far its attempt is."""
        ...

    @property
    def attached(self) -> set[str]:
        """Workers that have a stream now."""
        ...

    @property
    def now_ns(self) -> int:
        """The present, Unix time: what is told of the cell is told as of this moment."""
        ...

    @property
    def started_ns(self) -> int:
        """When this process began to lead, Unix time."""
        ...

    def open_worker(self, end: CellEnd, stream: CellStream) -> None:
        """A worker's stream has been opened; its frames follow."""
        ...

    def worker_frame(self, end: CellEnd, frame: WorkerFrame) -> None:
        """Take a frame.

        Raises:
            ProtocolViolation: the stream has to end, with this as the reason.
            CellStopped: the cell takes nothing more.
        """
        ...

    def close_worker(self, end: CellEnd) -> None:
        """The stream has ended."""
        ...

    def open_client(self, end: ServerEnd, stream: ServerStream) -> None:
        """A client's stream has been opened; its frames follow."""
        ...

    def client_frame(self, end: ServerEnd, frame: ClientFrame, refusals: list[Refusal]) -> None:
        """Take a frame, and what the door refused of it; raises as ``worker_frame``."""
        ...

    def close_client(self, end: ServerEnd) -> None:
        """The stream has ended."""
        ...

    async def command(self, command: Command) -> list[Refusal]:
        """Have a command carried out; returns when it is durable, with what was refused.

        Raises:
            CellStopped: the cell stopped before that; whether it was carried out is not known.
        """
        ...

    def watch_workers(self, told: Callable[[AbstractSet[str]], None]) -> Callable[[], None]:
        """Have somebody told of the workers to which something has happened, each time it is durable: something that the
        journal says, or only a word that was heard of them. To be called: what is returned, to end it."""
        ...
