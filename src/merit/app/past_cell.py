"""A cell as it was: it answers every question, and takes no command."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

from merit.core.desk import Desk
from merit.core.state import State
from merit.model.commands import Command
from merit.model.frames import ClientFrame, ClientWelcome, WorkerFrame
from merit.model.tasks import Progress, Refusal
from merit.ports.cell import CellStream, ServerStream
from merit.session.cell_end import CellEnd
from merit.session.link import ProtocolViolation
from merit.session.server_end import ServerEnd

UNCHANGEABLE: Final = "the past cannot be changed, only looked at: leave out the time to change the present"


class PastCell:
    """Implements ``merit.ports.cell.Cell`` over a desk to which nothing happens any more.

    Args:
        name: of the cell.
        desk: as ``merit.core.recovering.desk_of`` makes it; its present is what this cell takes for now.
    """

    def __init__(self, name: str, desk: Desk) -> None:
        self.name = name
        self.desk = desk
        self._streams: dict[ServerEnd, ServerStream] = {}

    @property
    def state(self) -> State:
        """See ``Cell``."""
        return self.desk.state

    @property
    def progress(self) -> dict[str, Progress]:
        """Of it nothing stands in the journal."""
        return self.desk.progress

    @property
    def attached(self) -> set[str]:
        """Every worker that had joined and not left."""
        return set(self.desk.seats)

    @property
    def now_ns(self) -> int:
        """The moment of the past."""
        return self.desk.now_ns

    @property
    def started_ns(self) -> int:
        """When who led then began to: the journal does not say."""
        return 0

    def open_worker(self, end: CellEnd, stream: CellStream) -> None:
        """See ``Cell``; its first frame ends it."""

    def worker_frame(self, end: CellEnd, frame: WorkerFrame) -> None:
        """Workers have no business here."""
        raise ProtocolViolation(UNCHANGEABLE, permanent=True)

    def close_worker(self, end: CellEnd) -> None:
        """See ``Cell``."""

    def open_client(self, end: ServerEnd, stream: ServerStream) -> None:
        """A client comes to ask something."""
        self._streams[end] = stream

    def client_frame(self, end: ServerEnd, frame: ClientFrame, refusals: list[Refusal]) -> None:
        """A client is welcome; whatever it submits, cancels or wants to wait for ends its stream."""
        if not end.take(frame):
            return
        if frame.items > 1 or refusals:
            raise ProtocolViolation(UNCHANGEABLE, permanent=True)
        if frame.hello is not None:
            end.welcome(ClientWelcome(self.name, self.state.epoch))
        end.durable(frame.sequence)
        while (answer := end.frame()) is not None:
            self._streams[end].deliver(answer)

    def close_client(self, end: ServerEnd) -> None:
        """The client's stream has ended."""
        del self._streams[end]

    async def command(self, command: Command) -> list[Refusal]:
        """Refused, whatever it is."""
        return [Refusal("", "conflict", type(command).__name__, UNCHANGEABLE)]

    def watch_workers(self, told: Callable[[AbstractSet[str]], None]) -> Callable[[], None]:
        """Nothing happens to them any more, so that nobody is ever told."""
        return lambda: None
