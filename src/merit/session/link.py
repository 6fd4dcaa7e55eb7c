"""Numbering, acknowledgement and the window: what all four ends of the two kinds of stream have in common.

A frame with content has a sequence (1, 2, 3, …); one with sequence 0 carries an acknowledgement only. Each side keeps
at most ``UNACKED_FRAMES_MAX`` frames on the way and gathers everything else for the next one, so that the size of the
frames adapts to the load by itself: there are no timers and no fixed batches.

Streams are ordered and reliable; a frame that comes twice is dropped, and one that is missing means that the stream is
broken: the receiver ends it, and the worker or client opens a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from merit.model.limits import FRAME_BYTES_MAX, FRAME_ITEMS_MAX, UNACKED_FRAMES_MAX

Item = TypeVar("Item")


class ProtocolViolation(Exception):
    """The other side said something that it must not say; the stream ends with this as the reason.

    ``permanent``: it would say the same again on another stream.
    """

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(reason)


class Link:
    """One end's count of what was sent, received, dealt with and acknowledged."""

    __slots__ = ("_ack_sent", "_acked", "_dealt", "_received", "_sent")

    def __init__(self) -> None:
        self._sent = 0
        self._acked = 0
        self._received = 0
        self._dealt = 0
        self._ack_sent = 0

    def admit(self, sequence: int, ack: int) -> bool:
        """Take note of a frame; whether it has content that is new.

        Raises:
            ProtocolViolation: a frame is missing, too many are unacknowledged, or what was never sent is acknowledged.
        """
        if not self._acked <= ack <= self._sent:
            if ack > self._sent:
                raise ProtocolViolation(f"ack: {ack} was never sent; the last frame was {self._sent}")
        else:
            self._acked = ack
        if sequence <= self._received:
            return False
        if sequence != self._received + 1:
            raise ProtocolViolation(f"sequence: {sequence} came after {self._received}; a frame is missing")
        if sequence - self._ack_sent > UNACKED_FRAMES_MAX:
            raise ProtocolViolation(
                f"sequence: {sequence} came while {self._ack_sent} was acknowledged; "
                f"at most {UNACKED_FRAMES_MAX} frames may be unacknowledged"
            )
        self._received = sequence
        return True

    def deal(self, sequence: int) -> None:
        """All frames up to ``sequence`` are dealt with (the control plane: durable) and may be acknowledged."""
        self._dealt = max(self._dealt, sequence)

    @property
    def received(self) -> int:
        """Sequence of the last frame with content that came."""
        return self._received

    @property
    def acked(self) -> int:
        """Sequence up to which the other side has dealt with what was sent."""
        return self._acked

    @property
    def open(self) -> bool:
        """Whether a frame with content may be sent now."""
        return self._sent - self._acked < UNACKED_FRAMES_MAX

    @property
    def ack_due(self) -> bool:
        """Whether there is something to acknowledge that was not acknowledged yet."""
        return self._dealt > self._ack_sent

    @property
    def ack_urgent(self) -> bool:
        """Whether the other side can send nothing more before it hears how far this one is. Until then an
        acknowledgement that nobody waits for goes with the next frame that has something to say."""
        return self._dealt - self._ack_sent >= UNACKED_FRAMES_MAX

    @property
    def idle(self) -> bool:
        """Whether everything that was sent is acknowledged."""
        return self._sent == self._acked

    def stamp(self, *, content: bool) -> tuple[int, int]:
        """Sequence and acknowledgement for a frame that is about to be sent."""
        if content:
            self._sent += 1
        self._ack_sent = self._dealt
        return (self._sent if content else 0), self._dealt


class Outbox(Generic[Item]):
    """Items that wait for the next frame, which takes all of them as long as they fit."""

    __slots__ = ("_bytes", "_items", "_sizes")

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._sizes: list[int] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    @property
    def size_bytes(self) -> int:
        """Roughly what waits."""
        return self._bytes

    def push(self, item: Item, size_bytes: int) -> None:
        """``item`` waits from now on; ``size_bytes`` is roughly what it adds to a frame."""
        self._items.append(item)
        self._sizes.append(size_bytes)
        self._bytes += size_bytes

    def take(self) -> list[Item]:
        """What goes into the next frame; at least one if there is any, so that what was let in also gets out."""
        items, sizes = self._items, self._sizes
        if len(items) <= FRAME_ITEMS_MAX and self._bytes <= FRAME_BYTES_MAX:
            self._items, self._sizes, self._bytes = [], [], 0
            return items
        count, total = 0, 0
        for size in sizes[:FRAME_ITEMS_MAX]:
            total += size
            if count and total > FRAME_BYTES_MAX:
                total -= size
                break
            count += 1
        self._items, self._sizes = items[count:], sizes[count:]
        self._bytes -= total
        return items[:count]
