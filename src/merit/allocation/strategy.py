"""What the machine asks of an allocation strategy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol


class Strategy(Protocol):
    """Keeps an index of the workers that have room and picks one for a task.

    The machine tells it of each change that matters and binds a task only when a worker has room (late binding), so
    a strategy never sees the backlog. Deterministic: the same calls give the same choices. The cost of each call must
    not depend on how many workers there are.
    """

    def place(self, worker: str, capabilities: Sequence[str], live: int, concurrency: int) -> None:
        """``worker`` has room for one more at least, with ``live`` attempts of the ``concurrency`` it runs at once."""
        ...

    def remove(self, worker: str) -> None:
        """``worker`` has no room, or is gone. Unknown ones are ignored."""
        ...

    def placed(self) -> set[str]:
        """The workers that have room, for whoever checks that nobody was forgotten."""
        ...

    def choose(self, capability: str, avoid: Collection[str] = ()) -> str | None:
        """The worker for the next task of this capability, or None when none has room but those to ``avoid``.

        Only with something to avoid may the cost grow, by one for each that is passed over.
        """
        ...
