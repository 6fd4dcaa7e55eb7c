"""Has past decisions explained, each in a process of its own (``merit.app.explain``): bounded in number, time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from merit.app.explain import Asked, Told
from merit.app.stores import Stores
from merit.core.explaining import Explanation
from merit.gateway.explaining import CannotExplain, FoldedSoFar
from merit.model.limits import Limits

WAITING_MAX: Final = 8
"""Who asks while one is explained waits; not more than so many do."""
TIME_S_MAX: Final = 900.0
_LINE_BYTES_MAX: Final = 32 * 1024 * 1024


class JournalExplainer:
    """An ``Explainer`` of one control plane.

    Args:
        stores: where it keeps its state.
        limits: which it goes by.
    """

    def __init__(self, stores: Stores, limits: Limits) -> None:
        self._stores = stores
        self._limits = limits
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    async def explain(
        self, task_id: str, number: int, assigned_ns: int, rulings_max: int
    ) -> AsyncGenerator[FoldedSoFar | Explanation, None]:
        """See ``Explainer.explain``."""
        if self._waiting >= WAITING_MAX:
            raise CannotExplain(f"{WAITING_MAX} decisions wait to be explained already; try again later", busy=True)
        self._waiting += 1
        try:
            await self._one_at_a_time.acquire()
        finally:
            self._waiting -= 1
        try:
            asked = msgspec.json.encode(Asked(task_id, number, assigned_ns, rulings_max, self._limits)).decode()
            async with contextlib.aclosing(self._ask(asked)) as answers:
                async for told in answers:
                    if told.problem:
                        raise CannotExplain(told.problem)
                    yield told.explanation or FoldedSoFar(told.sequence, told.last)
        finally:
            self._one_at_a_time.release()

    async def _ask(self, asked: str) -> AsyncGenerator[Told, None]:
        """What the process says, line by line; it is over when this is."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + TIME_S_MAX
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "merit.app.explain", asked),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                env=self._stores.environment(),
                limit=_LINE_BYTES_MAX,
            )
        except OSError as error:
            raise CannotExplain(f"no process could be started: {error}; try again later", busy=True) from error
        assert process.stdout is not None
        try:
            while True:
                async with asyncio.timeout_at(end_s):
                    line = await process.stdout.readline()
                if not line:
                    code = await process.wait()
                    raise CannotExplain(f"the process that reads the journal ended with {code}; its log says why")
                told = msgspec.json.decode(line, type=Told)
                yield told
                if told.explanation is not None or told.problem:
                    return
        except (msgspec.MsgspecError, ValueError) as error:
            raise CannotExplain(f"the process that reads the journal said what is no answer: {error}") from error
        except TimeoutError:
            raise CannotExplain(
                f"the journal could not be read within {TIME_S_MAX:g} s: the decision is too long ago"
            ) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
