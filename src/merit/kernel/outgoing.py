"""Which streams have something to say, and what may wait a little."""

from __future__ import annotations

from merit.kernel.waiting import End
from merit.model.frames import CellFrame, ServerFrame


class Outgoing:
    """Ends that may have a frame to send. ``dirty`` is for whoever marks many in a row."""

    __slots__ = ("_owing", "dirty")

    def __init__(self) -> None:
        self.dirty: dict[End, None] = {}
        self._owing: dict[End, None] = {}

    def drop(self, end: End) -> None:
        """The stream is over."""
        self.dirty.pop(end, None)
        self._owing.pop(end, None)

    @property
    def owes(self) -> bool:
        """Whether there are acknowledgements that ``frames`` has put off."""
        return bool(self._owing)

    def frames(self, *, acks: bool) -> list[tuple[End, CellFrame | ServerFrame]]:
        """The frames that can be sent now; the rest waits for acknowledgements.

        Args:
            acks: also tell workers that have nothing else to hear, and do not wait for it, what is durable. A little
                later is soon enough for that: most of it goes with the next assignment.
        """
        dirty, self.dirty = self.dirty, {}
        if acks:
            dirty |= self._owing
            self._owing = {}
        # Frames with content first: they are on somebody's way to a result.
        frames: list[tuple[End, CellFrame | ServerFrame]] = []
        bare: list[tuple[End, CellFrame | ServerFrame]] = []
        for end in dirty:
            while (frame := end.frame(acks=acks)) is not None:
                (frames if frame.sequence else bare).append((end, frame))
            if end.owes:
                self._owing[end] = None
        return frames + bare
