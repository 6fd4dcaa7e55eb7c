"""Streams between simulated processes: ordered and reliable, except when the weather has it otherwise."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from merit.kernel.waiting import End
from merit.lab.violation import Violation
from merit.lab.world import World
from merit.model.frames import CellFrame, ClientFrame, ServerFrame, WorkerFrame
from merit.session.link import ProtocolViolation

Frame = WorkerFrame | ClientFrame | CellFrame | ServerFrame


class Peer(Protocol):
    """A worker or a client, as the network and the cell see it."""

    name: str
    partitioned_until_ns: int

    def make_end(self) -> End:
        """The end that the cell's shell makes for a stream of this kind."""
        ...

    def receive(self, stream: Stream, frame: Any) -> None:
        """A frame from the cell."""
        ...

    def disconnected(self, stream: Stream) -> None:
        """The stream is no more."""
        ...


class Listener(Protocol):
    """The cell, as the network sees it."""

    @property
    def up(self) -> bool:
        """Whether somebody listens."""
        ...

    def opened(self, stream: Stream) -> None:
        """A new stream."""
        ...

    def receive(self, stream: Stream, frame: Any) -> None:
        """A frame from a peer."""
        ...

    def disconnected(self, stream: Stream) -> None:
        """The stream is no more."""
        ...


class Stream:
    """One connection. Each side has its own opinion of whether it is still there."""

    __slots__ = (
        "arrives_ns",
        "assigned",
        "at_cell",
        "at_peer",
        "broken",
        "end",
        "holed",
        "known",
        "name",
        "peer",
        "promised",
        "refused",
        "sent",
        "welcomed",
    )

    def __init__(self, name: str, peer: Peer, end: End) -> None:
        self.name = name
        self.peer = peer
        self.end = end
        self.at_peer = True
        self.at_cell = True
        self.broken = False
        """Nothing arrives any more; the two sides hear of it in their own time."""
        self.sent = [0, 0]
        """Sequence of the last frame with content: down, up."""
        self.arrives_ns = [0, 0]
        self.holed = [False, False]
        """Whether a frame is missing, or late: down, up."""
        self.promised: deque[WorkerFrame | ClientFrame] = deque()
        """What the cell's end has taken and not acknowledged."""
        self.assigned: set[tuple[str, int]] = set()
        """Attempts that the cell has sent on it."""
        self.welcomed = False
        self.refused: set[str] = set()
        """Tasks that the cell has refused on this stream."""
        self.known: set[str] = set()
        """Tasks that the cell has called others, by their idempotency keys, on this stream."""


class Network:
    """Carries frames between peers and the one cell."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._count = 0
        self.cell: Listener

    def connect(self, peer: Peer) -> Stream | None:
        """Open a stream, or None when nobody is there."""
        world = self._world
        if not self.cell.up or peer.partitioned_until_ns > world.now_ns:
            return None
        self._count += 1
        stream = Stream(f"{peer.name}/{self._count}", peer, peer.make_end())
        self.cell.opened(stream)
        return stream

    def send(self, stream: Stream, frame: Frame, *, up: bool) -> None:
        """Hand a frame over; it arrives later, or as the weather has it."""
        if frame.sequence:
            if frame.sequence != stream.sent[up] + 1:
                raise Violation(
                    "link sequence", stream.peer.name, f"frame {frame.sequence} was sent after {stream.sent[up]}"
                )
            stream.sent[up] = frame.sequence
        if stream.broken:
            return
        world, weather = self._world, self._world.weather
        label = f"{stream.name} {'up' if up else 'down'} {frame.sequence}"
        if world.chance(weather.snap, "connection broken"):
            self.snap(stream)
            if world.rng.random() < 0.7:
                return
        if weather.partition and world.chance(weather.partition, "partition"):
            self._partition(stream)
            return
        if not frame.sequence and stream.holed[up]:
            # A bare acknowledgement has no number by which the gap before it could be seen: the session relies on the
            # transport not to let one through behind a frame that is missing.
            return
        if world.chance(weather.lose, "frame lost"):
            stream.holed[up] = True
            self._doom(stream)
            return
        arrives_ns = max(stream.arrives_ns[up], world.now_ns + world.between(0.1, 5))
        if world.chance(weather.reorder, "frame overtaken"):
            stream.holed[up] = True
            self._doom(stream)
            arrives_ns += world.between(1, 100)
        else:
            stream.arrives_ns[up] = arrives_ns
        world.after(arrives_ns - world.now_ns, label, self._deliver, stream, frame, up)
        if world.chance(weather.repeat, "frame repeated"):
            again_ns = arrives_ns - world.now_ns + world.between(0, 50)
            world.after(again_ns, label + " again", self._deliver, stream, frame, up)

    def _deliver(self, stream: Stream, frame: Frame, up: bool) -> None:
        if up and stream.at_cell:
            self.cell.receive(stream, frame)
        elif not up and stream.at_peer:
            stream.peer.receive(stream, frame)

    def blame(self, stream: Stream, violation: ProtocolViolation, *, up: bool) -> None:
        """A side found the protocol broken; it may only be the weather that broke it."""
        if not stream.holed[up]:
            raise Violation("protocol", stream.peer.name, f"broken on a whole stream: {violation}")
        side = "cell" if up else "peer"
        self._world.coverage[f"protocol violation seen by {side}"] += 1
        self._world.note(f"{stream.name}: {violation}")
        self.hang_up(stream, by_cell=up)

    def _doom(self, stream: Stream) -> None:
        """Nothing is missing for ever on a reliable stream: what lost a frame breaks, if nobody sees it before."""
        self._world.after(self._world.between(50, 1500), f"{stream.name} breaks", self.snap, stream)

    def snap(self, stream: Stream) -> None:
        """The connection breaks, and the two sides notice at times of their own (until then it is half open)."""
        if stream.broken:
            return
        stream.broken = True
        world = self._world
        if world.rng.random() < 0.3:
            world.coverage["half-open stream"] += 1
            slow_ns, quick_ns = world.between(200, 3000), world.between(0, 5)
        else:
            slow_ns, quick_ns = world.between(0, 20), world.between(0, 20)
        peer_first = world.rng.random() < 0.5
        world.after(quick_ns if peer_first else slow_ns, f"{stream.name} gone for peer", self.lost_by_peer, stream)
        world.after(slow_ns if peer_first else quick_ns, f"{stream.name} gone for cell", self.lost_by_cell, stream)

    def hang_up(self, stream: Stream, *, by_cell: bool) -> None:
        """One side ends the stream, which the other one hears after what was sent before."""
        world = self._world
        if by_cell:
            self.lost_by_cell(stream)
            wait_ns = max(stream.arrives_ns[0] - world.now_ns, 0) + world.between(0.1, 5)
            world.after(wait_ns, f"{stream.name} ended by cell", self.lost_by_peer, stream)
        else:
            self.lost_by_peer(stream)
            wait_ns = max(stream.arrives_ns[1] - world.now_ns, 0) + world.between(0.1, 5)
            world.after(wait_ns, f"{stream.name} ended by peer", self.lost_by_cell, stream)

    def lost_by_peer(self, stream: Stream) -> None:
        """The peer finds its side of the stream dead."""
        if stream.at_peer:
            stream.at_peer = False
            stream.peer.disconnected(stream)

    def lost_by_cell(self, stream: Stream) -> None:
        """The cell finds its side of the stream dead."""
        if stream.at_cell:
            stream.at_cell = False
            self.cell.disconnected(stream)

    def _partition(self, stream: Stream) -> None:
        """The peer cannot be reached, by old streams or new ones, for a while."""
        world, peer = self._world, stream.peer
        peer.partitioned_until_ns = world.now_ns + world.between(50, 2000)
        self.snap(stream)
