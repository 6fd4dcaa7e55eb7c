"""What a module does when its worker is told something."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from merit.model.limits import WORDS_MAX
from merit.sdk import operator_words
from merit.sdk.operator_words import Obedience, on_command

WAIT_S = 10.0


@pytest.fixture(autouse=True)
def _no_others(monkeypatch):
    monkeypatch.setattr(operator_words, "_hooks", {})


@pytest.fixture
async def obedience() -> AsyncIterator[Obedience]:
    made = Obedience()
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_functions_are_called_in_order_plain_ones_in_a_thread_and_async_ones_on_the_loop(obedience):
    seen = []

    @on_command("RESET")
    def first() -> None:
        seen.append(("first", threading.current_thread() is threading.main_thread()))

    @on_command("RESET")
    async def second() -> None:
        await asyncio.sleep(0)
        seen.append(("second", threading.current_thread() is threading.main_thread()))

    @on_command("RETRAIN")
    def other() -> None:
        seen.append(("other", False))

    for word in ("RESET", "RETRAIN"):
        obedience.hear(word)
    await until(lambda: len(seen) == 3)
    assert seen == [("first", False), ("second", True), ("other", False)]


async def test_one_that_fails_is_logged_and_the_others_go_on(obedience, caplog):
    done = asyncio.Event()

    @on_command("RESET")
    def broken() -> None:
        raise OSError("planned")

    @on_command("RESET")
    async def broken_too() -> None:
        raise ValueError("planned as well")

    @on_command("RESET")
    async def well() -> None:
        done.set()

    obedience.hear("RESET")
    await asyncio.wait_for(done.wait(), WAIT_S)
    assert "broken, which is called on RESET, failed" in caplog.text
    assert "planned as well" in caplog.text


@pytest.mark.parametrize("word", ["RESET", "PAUSE", "whatever"])
async def test_what_nothing_is_registered_for_is_logged_and_ignored(obedience, caplog, word):
    with caplog.at_level("INFO", "merit.worker"):
        obedience.hear(word)
    assert f"told {word}, for which nothing is registered" in caplog.text


async def test_words_that_nobody_gets_to_are_bounded(obedience, caplog):
    go_on, count = asyncio.Event(), []

    @on_command("RESET")
    async def slow() -> None:
        count.append(1)
        await go_on.wait()

    obedience.hear("RESET")
    await until(lambda: count)
    for _ in range(WORDS_MAX + 5):
        obedience.hear("RESET")
    assert caplog.text.count("are not carried out yet: ignored") == 5
    go_on.set()
    await until(lambda: len(count) == WORDS_MAX + 1)


async def test_nobody_waits_at_the_end_for_a_thread_that_never_ends():
    began, never = threading.Event(), threading.Event()

    @on_command("RESET")
    def hangs() -> None:
        began.set()
        never.wait()

    obedience = Obedience()
    running = asyncio.create_task(obedience.run())
    obedience.hear("RESET")
    await until(began.is_set)
    running.cancel()
    assert await asyncio.wait_for(asyncio.gather(running, return_exceptions=True), WAIT_S)
    never.set()


def test_one_that_is_declared_again_takes_the_place_of_the_old_one():
    def make(result):
        def reload():
            return result

        return reload

    on_command("RESET")(make(1))
    on_command("RESET")(make(2))
    (kept,) = operator_words._hooks["RESET"]
    assert kept() == 2


@pytest.mark.parametrize("word", ["STOP", "PAUSE", "reset", ""])
def test_a_word_that_is_never_told_is_refused(word):
    with pytest.raises(ValueError, match="is none of RESET, RETRAIN, UPDATE_CONFIG"):
        on_command(word)


def test_a_function_that_needs_something_is_refused():
    with pytest.raises(TypeError, match="cannot be called with nothing"):
        on_command("RESET")(lambda config: config)  # type: ignore[type-var]  # what is tested
