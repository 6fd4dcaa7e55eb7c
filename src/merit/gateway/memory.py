"""What the gateway knows of the past: the read model, and how far the follower has brought it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from merit.ports.following import Following
from merit.ports.read_model import ReadModelReader, ReadModelUnavailable

Answer = TypeVar("Answer")


class Memory:
    """Asks the read model, in a thread and one question at a time, so that the cell's loop never waits for a disk.

    Args:
        open_reader: opens the read model; raises ``ReadModelUnavailable`` while there is none.
        following: the follower that writes it.
    """

    def __init__(self, open_reader: Callable[[], ReadModelReader], following: Following) -> None:
        self.following = following
        self._open_reader = open_reader
        self._reader: ReadModelReader | None = None
        self._one_at_a_time = asyncio.Lock()
        self._asking = threading.Lock()
        """Whoever is canceled gives the other lock back while its thread still uses the reader."""

    async def ask(self, question: Callable[[ReadModelReader], Answer]) -> Answer:
        """The answer to a question, which is asked once more of a reader that is opened anew if the one there is fails: the
        follower may have begun the read model anew. Raises ``ReadModelUnavailable``."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._ask, question)

    def behind(self, events: int) -> str:
        """Why what has just happened is not found, and what to do.

        Args:
            events: by so many the follower is behind.
        """
        alarms = "".join(f"; {alarm}" for alarm in self.following.standing().alarms)
        return f"the follower is {max(0, events):,} events behind{alarms}; ask again, or look at: merit status"

    def _ask(self, question: Callable[[ReadModelReader], Answer]) -> Answer:
        with self._asking:
            return self._answer(question)

    def _answer(self, question: Callable[[ReadModelReader], Answer]) -> Answer:
        if self._reader is not None:
            try:
                return question(self._reader)
            except ReadModelUnavailable:
                self._shut()
        self._reader = self._open_reader()
        try:
            return question(self._reader)
        except ReadModelUnavailable:
            self._shut()
            raise

    async def close(self) -> None:
        """Frees what is open, once the question under way is answered."""
        async with self._one_at_a_time:
            await asyncio.to_thread(self._end)

    def _end(self) -> None:
        with self._asking:
            self._shut()

    def _shut(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
