"""The control plane's end of a client's stream."""

from __future__ import annotations

from typing import Final

from merit.model.frames import ClientFrame, ClientHello, ClientWelcome, ServerFrame, Settled, Update
from merit.model.tasks import Refusal
from merit.model.tenancy import DEFAULT_TENANT
from merit.session.link import Link, Outbox, ProtocolViolation
from merit.session.newest import Newest, newer_update

OUTCOMES_BYTES_MAX: Final = 256 * 1024**2
"""Of outcomes that a client has not taken yet. Beyond that its stream ends; it may open another one and watch again."""


class ServerEnd:
    """Takes client frames in and gives server frames out. ``hello`` is None until the client has said it.

    Args:
        tenant: whose tasks they are that come on this stream.
    """

    __slots__ = (
        "_known",
        "_link",
        "_outcomes",
        "_permanent",
        "_refusals",
        "_refused",
        "_updates",
        "_welcome",
        "closing",
        "hello",
        "tenant",
    )

    def __init__(self, *, tenant: str = DEFAULT_TENANT) -> None:
        self.tenant = tenant
        self.hello: ClientHello | None = None
        self.closing = False
        """Nothing more is taken in or sent but, at most, the reason."""
        self._link = Link()
        self._outcomes: Outbox[Settled] = Outbox()
        self._refusals: list[Refusal] = []
        self._known: list[tuple[str, str]] = []
        self._updates: Newest[str, Update] = Newest(newer_update)
        self._welcome: ClientWelcome | None = None
        self._refused = ""
        self._permanent = False

    def take(self, frame: ClientFrame) -> bool:
        """Admit a frame; whether it has content that is new.

        Raises:
            ProtocolViolation: the client broke the protocol; the stream has to end.
        """
        if not self._link.admit(frame.sequence, frame.ack):
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
        """Everything in the frames up to ``sequence`` is durable or refused."""
        self._link.deal(sequence)

    def welcome(self, welcome: ClientWelcome) -> None:
        """The stream is open."""
        self._welcome = welcome

    def refusal(self, refusal: Refusal) -> None:
        """Something that the client asked for is not done."""
        self._refusals.append(refusal)

    def outcome(self, outcome: Settled) -> None:
        """A task that the client watches is final."""
        if self._outcomes.size_bytes > OUTCOMES_BYTES_MAX:
            self._outcomes = Outbox()
            self.refuse(f"{OUTCOMES_BYTES_MAX:,} bytes of outcomes wait to be read; read on, or watch fewer tasks")
        if self.closing:
            return
        failure = outcome.failure
        self._outcomes.push(outcome, len(outcome.result) + 64 + (failure.text_bytes if failure is not None else 0))

    def known(self, task_id: str, existing: str) -> None:
        """What was submitted as ``task_id`` is the task ``existing``, by its idempotency key."""
        self._known.append((task_id, existing))

    def update(self, update: Update) -> None:
        """A step of a task that the client follows. What it does not read in time is joined, then left out."""
        if not self.closing:
            self._updates.put(update.task, update)

    def refuse(self, reason: str, *, permanent: bool = False) -> None:
        """End the stream, saying why; ``permanent``: opening another one cannot help."""
        self._refused, self._permanent = reason, permanent
        self.closing = True

    @property
    def owes(self) -> bool:
        """Never for long: clients wait for acknowledgements."""
        return False

    def frame(self, *, acks: bool = True) -> ServerFrame | None:
        """The next frame to send now, or None. ``acks`` makes no difference: a client waits for them."""
        del acks
        if self._refused:
            reason, self._refused = self._refused, ""
            return ServerFrame(refused=reason, permanent=self._permanent)
        if self.closing:
            return None
        link = self._link
        if link.open and (
            self._outcomes or self._refusals or self._known or self._updates or self._welcome is not None
        ):
            frame = ServerFrame(0, 0, self._welcome, self._refusals, self._outcomes.take())
            if self._updates:
                frame.updates = self._updates.take()
            frame.known, self._known = self._known, []
            frame.sequence, frame.ack = link.stamp(content=True)
            self._welcome, self._refusals = None, []
            return frame
        # An acknowledgement says "durable, refused or known", so it must not overtake those.
        if link.ack_due and not self._refusals and not self._known:
            _, ack = link.stamp(content=False)
            return ServerFrame(ack=ack)
        return None
