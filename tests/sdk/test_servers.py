"""Several addresses of one control plane: who does not answer is given up, and the next one is tried."""

import asyncio
import socket
from contextlib import contextmanager

import pytest

from merit import AsyncClient
from merit.app.control_plane import ControlPlane, Settings
from merit.sdk import channel as channel_module
from merit.sdk.capability import capability
from merit.sdk.channel import Servers
from merit.sdk.results import Unreachable
from merit.sdk.worker import WorkerProcess
from merit.testing.processes import free_port
from merit.wire.v1 import tasks_pb2
from tests.sdk.scripted_plane import a_scripted_plane


@contextmanager
def standing_still():
    """An address that takes connections and never says a word, as that of a stopped process does."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_all_are_tried_before_anybody_waits():
    servers = Servers("a:1, b:2,c:3")
    tried = []
    for _ in range(6):
        tried.append((servers.present, servers.next()))
    assert tried == [("a:1", False), ("b:2", False), ("c:3", True)] * 2


def test_after_one_that_worked_the_next_is_tried_after_a_pause():
    """Else two that end each stream at once would be asked without end."""
    servers = Servers("a:1,b:2")
    servers.worked()
    assert servers.next()
    assert servers.present == "b:2"
    assert not servers.next()
    assert servers.present == "a:1"
    assert servers.next()


def test_who_is_slow_gets_more_time_from_round_to_round():
    servers = Servers("a:1,b:2")
    waits = []
    for _ in range(10):
        waits.append(servers.welcome_s)
        servers.next()
    assert waits == [2, 2, 4, 4, 8, 8, 10, 10, 10, 10]
    servers.worked()
    assert servers.welcome_s == 2


def test_one_alone_is_waited_for():
    servers = Servers("a:1")
    assert servers.welcome_s is None
    assert servers.next()
    assert servers.present == "a:1"


def test_several_are_tried_again_within_a_second():
    assert all(0.1 <= Servers("a:1,b:2").soon(wait_s) <= 1 for wait_s in (0.1, 0.9, 5.0))
    assert Servers("a:1").soon(5.0) == 5.0


@pytest.mark.parametrize("nothing", ["", " ", ",", " , "])
def test_nothing_is_no_address(nothing):
    with pytest.raises(ValueError, match="HOST:PORT"):
        Servers(nothing)


async def test_a_client_passes_those_that_do_not_listen_or_do_not_answer(monkeypatch):
    monkeypatch.setattr(channel_module, "_WELCOME_S", 0.3)
    with standing_still() as still:
        async with a_scripted_plane() as (plane, address):
            servers = f"127.0.0.1:{free_port()},{still},{address}"
            plane.answers["GetStatus"] = lambda _: tasks_pb2.Status(cell="c1")
            async with asyncio.timeout(30), AsyncClient(servers, connect_timeout_s=30) as merit:
                assert (await merit.status())["cell"] == "c1"
                task = await merit.submit("greet")
                await plane.guests[0].settle(task.id)
                assert await task.result() == 1


async def test_a_question_waits_for_one_that_answers(monkeypatch):
    """One that takes the connection alone must not get it: a question would wait there for as long as that stands still."""
    monkeypatch.setattr(channel_module, "_WELCOME_S", 0.5)
    async with a_scripted_plane() as (plane, address):
        plane.answers["GetStatus"] = lambda _: tasks_pb2.Status(cell="c1")
        with standing_still() as still:
            async with asyncio.timeout(30), AsyncClient(f"{address},{still}") as merit:
                plane.guests[0].hang_up()  # the next one to be tried is the one that stands still
                assert (await merit.status())["cell"] == "c1"
                await plane.until(lambda: len(plane.guests) == 2)


async def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(channel_module, "_WELCOME_S", 0.2)
    nobody = pytest.raises(Unreachable, match="no control plane answers at")
    with standing_still() as one, standing_still() as other, nobody:
        async with AsyncClient(f"{one},{other}", connect_timeout_s=1):
            pass


@capability
async def twice(n: int) -> int:
    return 2 * n


async def test_a_worker_passes_one_that_does_not_answer_and_stays_where_it_is_welcome(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(channel_module, "_WELCOME_S", 0.3)
    ready = asyncio.get_running_loop().create_future()
    plane = ControlPlane(Settings(state=tmp_path / "state", grpc="127.0.0.1:0"))
    planning = asyncio.create_task(plane.run(lambda where, _epoch: ready.set_result(where)))
    address = await asyncio.wait_for(ready, 10)
    with standing_still() as still:
        worker = WorkerProcess([twice], f"{still},{address}", name="w")
        working = asyncio.create_task(worker.run())
        async with AsyncClient(address) as merit:
            task = await merit.submit("twice", {"n": 21})
            assert await task.result(10) == 42
            await asyncio.sleep(0.5)  # longer than it waits for a welcome
            assert await (await merit.submit("twice", {"n": 4})).result(10) == 8
        worker.drain()
        await asyncio.wait_for(working, 10)
    assert "no answer within 0.3 s" in caplog.text
    assert caplog.text.count("attached to cell") == 1
    assert f"at {address} as w" in caplog.text
    plane.stop()
    await asyncio.wait_for(planning, 10)
