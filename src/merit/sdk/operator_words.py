"""What a module does when an operator tells its worker something.

    @on_command("RESET")
    def forget() -> None:
        model.cache.clear()

Functions of a command run one after the other in the order in which they were registered, plain ones in a thread, async
ones on the worker's loop; attempts go on meanwhile. STOP needs none: the worker drains and leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar, get_args

from merit.model.limits import WORDS_MAX

log = logging.getLogger("merit.worker")

Word = Literal["RESET", "RETRAIN", "UPDATE_CONFIG"]
Hook = TypeVar("Hook", bound=Callable[[], Any])

STOP: Final = "STOP"
_WORDS: Final = get_args(Word)
_hooks: dict[str, list[Callable[[], Any]]] = {}


def on_command(word: Word) -> Callable[[Hook], Hook]:
    """Call the function, which takes nothing, whenever an operator tells the worker ``word`` (``merit worker tell``).

    A command that comes while the connection breaks may come twice. What the function raises is logged.

    Raises:
        ValueError: a worker is never told such a word, or STOP, which it sees to by itself.
        TypeError: it is no function that can be called with nothing.
    """
    if word not in _WORDS:
        raise ValueError(f"word: {word!r} is none of {', '.join(_WORDS)}")

    def register(function: Hook) -> Hook:
        try:
            inspect.signature(function).bind()
        except (TypeError, ValueError) as error:
            raise TypeError(f"{function!r} cannot be called with nothing: {error}") from None
        hooks = _hooks.setdefault(word, [])
        # One that is declared again (a reload) replaces the old one.
        hooks[:] = [known for known in hooks if _address(known) != _address(function)]
        hooks.append(function)
        return function

    return register


class Obedience:
    """Carries out what a worker is told, one command after the other."""

    def __init__(self) -> None:
        self._words: asyncio.Queue[str] = asyncio.Queue(WORDS_MAX)

    def hear(self, word: str) -> None:
        """``word`` is carried out once those before it have been."""
        if word not in _hooks:
            log.info("told %s, for which nothing is registered (@on_command): ignored", word)
            return
        try:
            self._words.put_nowait(word)
        except asyncio.QueueFull:
            log.warning("told %s while %d commands before it are not carried out yet: ignored", word, WORDS_MAX)

    async def run(self) -> None:
        """Carry commands out until this is cancelled."""
        while True:
            word = await self._words.get()
            log.info("told %s", word)
            for hook in list(_hooks[word]):
                try:
                    if inspect.iscoroutinefunction(hook):
                        await hook()
                    else:
                        await _in_a_thread(hook)
                except Exception:
                    log.exception("%s, which is called on %s, failed", _address(hook)[1], word)


async def _in_a_thread(hook: Callable[[], Any]) -> None:
    """As ``asyncio.to_thread``, but nobody waits at the end for a thread that never ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def work() -> None:
        problem: Exception | None = None
        try:
            hook()
        except Exception as error:  # noqa: BLE001  (raised again where the command is carried out)
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, problem)

    threading.Thread(target=work, name="merit-command", daemon=True).start()
    await done


def _address(hook: Callable[[], Any]) -> tuple[str, str]:
    kind = type(hook)
    return getattr(hook, "__module__", kind.__module__), getattr(hook, "__qualname__", kind.__qualname__)
