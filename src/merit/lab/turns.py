"""Coroutines of the product in virtual time: whenever one lets others have their turn, things happen meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar

from merit.lab.instead import instead
from merit.lab.world import World

Answer = TypeVar("Answer")
Given = ParamSpec("Given")
_TURN_MS = 5


class Turn:
    """To be awaited: others have their turn."""

    def __await__(self) -> Generator[None, None, None]:
        """One turn."""
        yield


async def _in_its_turn(work: Callable[Given, Answer], *given: Given.args, **named: Given.kwargs) -> Answer:
    await Turn()
    answer = work(*given, **named)
    await Turn()
    return answer


def threads_take_turns() -> AbstractContextManager[None]:
    """While it lasts, what is done in a thread is done by whoever drives the coroutine, some time later."""
    return instead(asyncio, "to_thread", _in_its_turn)


def drive(
    world: World,
    what: str,
    work: Coroutine[Any, Any, Answer],
    done: Callable[[Answer], None],
    lives: Callable[[], bool] = lambda: True,
) -> None:
    """Let a coroutine go on, turn by turn, until it is ``done`` or its process ``lives`` no more."""
    if not lives():
        work.close()
        return
    try:
        work.send(None)
    except StopIteration as over:
        done(over.value)
        return
    world.after(world.between(0, _TURN_MS), what, drive, world, what, work, done, lives)


def at_once(work: Coroutine[Any, Any, Answer]) -> Answer:
    """What a coroutine comes to when nothing happens meanwhile."""
    while True:
        try:
            work.send(None)
        except StopIteration as over:
            answer: Answer = over.value
            return answer
