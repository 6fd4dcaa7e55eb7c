"""The control plane's end of a worker's stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from merit.model.frames import Assignment, AttemptRef, CellFrame, Hello, Welcome, WorkerFrame
from merit.session.link import Link, Outbox, ProtocolViolation


class CellEnd:
    """Takes worker frames in and gives cell frames out.

    ``hello`` is None until the worker has said it. The credits that the worker grants are kept by the machine.
    """

    __slots__ = (
        "_assigned",
        "_assignments",
        "_cancels",
        "_drain",
        "_link",
        "_permanent",
        "_refused",
        "_told",
        "_welcome",
        "_words",
        "closing",
        "hello",
    )

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self.closing = False
        """Nothing more is taken in or sent but, at most, the reason."""
        self._link = Link()
        self._assignments: Outbox[Assignment] = Outbox()
        self._assigned = 0
        self._cancels: deque[tuple[int, AttemptRef]] = deque()
        """Each with the number of assignments that were given before it, which it must not overtake."""
        self._welcome: Welcome | None = None
        self._drain = False
        self._words: list[str] = []
        self._told: deque[tuple[int, int]] = deque()
        """Frames that had words in them and are not acknowledged: their sequences, and how many words each had."""
        self._refused = ""
        self._permanent = False

    def take(self, frame: WorkerFrame) -> bool:
        """Admit a frame; whether it has content that is new.

        Raises:
            ProtocolViolation: the worker broke the protocol; the stream has to end.
        """
        if not self._link.admit(frame.sequence, frame.ack):
            if not frame.sequence and (frame.items > 1 or frame.hello is not None or frame.bye):
                raise ProtocolViolation("sequence: a frame with content must have one, or no window would bound it")
            return False
        if self.hello is None:
            if frame.hello is None:
                raise ProtocolViolation("hello: must be in the first frame")
            self.hello = frame.hello
        elif frame.hello is not None:
            raise ProtocolViolation("hello: only in the first frame")
        return True

    @property
    def received(self) -> int:
        """Sequence of the last frame that came."""
        return self._link.received

    def durable(self, sequence: int) -> None:
        """What the frames up to ``sequence`` said is durable."""
        self._link.deal(sequence)

    def welcome(self, welcome: Welcome) -> None:
        """The worker is attached."""
        self._welcome = welcome

    def assign(self, assignment: Assignment) -> None:
        """One more attempt for this worker."""
        self._assigned += 1
        size = len(assignment.parameters) + 96
        if assignment.inputs:
            size += sum(len(item.name) + len(item.result) + 96 for item in assignment.inputs)
        self._assignments.push(assignment, size)

    def cancel(self, attempt: AttemptRef) -> None:
        """This attempt is over; what comes of it does not matter any more."""
        self._cancels.append((self._assigned, attempt))

    def drain(self) -> None:
        """The worker is to finish what it holds, and leave."""
        self._drain = True

    def tell(self, words: Iterable[str]) -> None:
        """Commands of an operator; the worker hears them in this order."""
        self._words += words

    def heard(self) -> int:
        """How many more of the commands, oldest first, have been acknowledged since this was asked last."""
        count = 0
        while self._told and self._told[0][0] <= self._link.acked:
            count += self._told.popleft()[1]
        return count

    def refuse(self, reason: str, *, permanent: bool = False) -> None:
        """End the stream, saying why; ``permanent``: opening another one cannot help."""
        self._refused, self._permanent = reason, permanent
        self.closing = True

    @property
    def owes(self) -> bool:
        """Whether the worker is still to be told that something it said is durable."""
        return self._link.ack_due and not self.closing

    def frame(self, *, acks: bool = True) -> CellFrame | None:
        """The next frame to send now, or None.

        Args:
            acks: also one that has nothing but an acknowledgement which nobody waits for.
        """
        if self._refused:
            reason, self._refused = self._refused, ""
            return CellFrame(refused=reason, permanent=self._permanent)
        if self.closing:
            return None
        link = self._link
        if link.open and (
            self._assignments or self._cancels or self._welcome is not None or self._drain or self._words
        ):
            frame = CellFrame(0, 0, self._welcome, self._assignments.take(), [], self._drain, self._words)
            gone = self._assigned - len(self._assignments)
            while self._cancels and self._cancels[0][0] <= gone:
                frame.cancels.append(self._cancels.popleft()[1])
            frame.sequence, frame.ack = link.stamp(content=True)
            if self._words:
                self._told.append((frame.sequence, len(self._words)))
            self._welcome, self._drain, self._words = None, False, []
            return frame
        # Not while assignments wait for the window: a worker that drains would take the acknowledgement of its last frame
        # for the word that nothing more comes.
        if (link.ack_due if acks else link.ack_urgent) and not self._assignments:
            _, ack = link.stamp(content=False)
            return CellFrame(ack=ack)
        return None
