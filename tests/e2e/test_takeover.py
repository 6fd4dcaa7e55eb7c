"""Several nodes on one PostgreSQL database: one leads, and another one takes over when it is killed, stands still, is
stopped, or loses the database."""

import asyncio
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from merit import AsyncClient
from merit.app.stores import open_stores
from merit.core.codec import decode_event
from merit.lab.bench.takeovers import GRACE_S, take_over
from merit.model.events import AttemptAssigned, TaskCompleted
from merit.model.limits import SECOND_NS, Limits
from merit.storage.verify import verify_journal
from merit.testing.plane import READY, PlaneFaults
from merit.testing.postgres import PrivatePostgres
from merit.testing.processes import NodeProgram, Program, ProgramFailed, running
from merit.wire.v1 import tasks_pb2, tasks_pb2_grpc

LEASE_S = 1.5
NAPS = Path(__file__).with_name("napping.py")


@asynccontextmanager
async def two_nodes(url, home):
    """Both started at once; first the one that leads."""
    faults = PlaneFaults(store=url, lease_s=LEASE_S, limits=Limits(grace_ns=5 * SECOND_NS))
    nodes = [NodeProgram(home / name, faults) for name in ("a", "b")]
    try:
        await asyncio.gather(*(node.start() for node in nodes))
        leading = [node for node in nodes if any(line.startswith(READY) for line in node.lines)]
        assert len(leading) == 1, [list(node.lines) for node in nodes]
        nodes.sort(key=lambda node: node not in leading)
        yield nodes
    finally:
        for node in nodes:
            if node.running:
                await node.kill()


def addresses(nodes):
    return ",".join(node.address for node in nodes)


def events(url, home):
    """All of the journal, which must be whole and in the order of its epochs."""
    reader = open_stores(home / "judge", url).reader()
    try:
        assert verify_journal(reader, reader.cell).ok
        records = list(reader.read())
        assert [record.epoch for record in records] == sorted(record.epoch for record in records)
        return [decode_event(event) for record in records for event in record.events]
    finally:
        reader.close()


async def test_a_node_that_is_killed_and_one_that_stands_still_are_followed_and_nothing_is_lost(postgres_url, tmp_path):
    found = await take_over(postgres_url, tmp_path, 2, LEASE_S)
    assert [one.paused for one in found.each] == [False, True]
    assert (found.lost, found.doubled, found.stale) == (0, 0, 0)
    assert found.acknowledged > 20
    assert max(one.ready_s for one in found.each) < LEASE_S + GRACE_S + 3  # a machine that tests share is slow


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_fifty_take_overs(postgres_url, tmp_path):
    found = await take_over(postgres_url, tmp_path, 50, LEASE_S)
    assert len(found.each) == 50
    assert (found.lost, found.doubled, found.stale) == (0, 0, 0)
    assert max(one.ready_s for one in found.each) < LEASE_S + GRACE_S


async def test_an_attempt_that_runs_goes_on_over_take_overs_of_every_kind(postgres_url, tmp_path):
    async with AsyncExitStack() as opened:
        first, second = await opened.enter_async_context(two_nodes(postgres_url, tmp_path))
        both = addresses((first, second))
        worker = await opened.enter_async_context(running(Program([sys.executable, str(NAPS), both, str(tmp_path)])))
        client = await opened.enter_async_context(AsyncClient(both))
        task = await client.submit("nap_until", {"file": "go"}, attempts_max=1)
        await worker.says("begun")
        # Stopped in order: the lead is given back.
        began_s, said = time.monotonic(), second.printed
        assert await first.stop() == 0
        await second.leads(said)
        assert time.monotonic() - began_s < LEASE_S + 1
        await first.start()
        # Stands still, and is followed; goes on, and stands by.
        said, stood = first.printed, second.printed
        second.pause()
        await first.leads(said)
        async with asyncio.timeout(15):  # the worker comes, and says what it holds
            while (await client.task(task.id))["state"] != "RUNNING":
                await asyncio.sleep(0.02)
        async with grpc.aio.insecure_channel(second.address) as channel:
            asking = asyncio.ensure_future(tasks_pb2_grpc.TasksStub(channel).GetStatus(tasks_pb2.GetStatusRequest()))
            await asyncio.sleep(0.1)  # it is in the socket of one who does not know yet that somebody else leads
            second.resume()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await asking
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await second.stands_by(stood)
        # Killed: the one that stood still leads again.
        said = second.printed
        await first.kill()
        epoch = await second.leads(said)
        (tmp_path / "go").touch()
        result = await asyncio.wait_for(task.wait(), 30)
        assert (result.value, result.attempts) == ("slept", 1)
        assert await second.stop() == 0
    assert epoch == 4
    mine = [event for event in events(postgres_url, tmp_path) if getattr(event, "task", "") == task.id]
    assert sum(isinstance(event, AttemptAssigned) for event in mine) == 1
    assert sum(isinstance(event, TaskCompleted) for event in mine) == 1


async def test_an_address_that_is_taken_is_told_at_the_start_and_waited_for_at_a_take_over(postgres_url, tmp_path):
    async with two_nodes(postgres_url, tmp_path) as (first, second):
        third = NodeProgram(tmp_path / "c", first.faults)
        third.address = first.address
        with pytest.raises(ProgramFailed, match=f"listen: cannot listen on {first.address}"):
            await third.start()
        said = second.printed
        with socket.socket() as somebody:
            somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            somebody.bind(("127.0.0.1", int(second.address.rpartition(":")[2])))
            somebody.listen()
            await first.kill()
            await second.says("WARNING merit: this node does not lead, and stands by: cannot listen", said)
            # It gives the lead back, so that somebody who can listen has it at once.
            said = first.printed
            await first.start()
            await first.leads(said)
            assert second.running
        said = second.printed
        await first.kill()
        await second.leads(said)


async def test_nodes_wait_for_a_database_that_crashes_in_the_middle_of_work_and_lose_nothing(tmp_path):
    with PrivatePostgres() as server:
        url = server.new_database()
        async with AsyncExitStack() as opened:
            nodes = await opened.enter_async_context(two_nodes(url, tmp_path))
            both = addresses(nodes)
            (tmp_path / "go").touch()
            await opened.enter_async_context(running(Program([sys.executable, str(NAPS), both, str(tmp_path)])))
            client = await opened.enter_async_context(AsyncClient(both))
            over = asyncio.Event()
            handles = []

            async def work():
                while not over.is_set():
                    handles.append(await client.submit("nap_until", {"file": "go"}, attempts_max=100))
                    await asyncio.sleep(0.002)

            working = asyncio.create_task(work())
            while len(handles) < 50:
                await asyncio.sleep(0.01)
            said = [node.printed for node in nodes]
            server.end(signal.SIGQUIT)
            done = len(handles)
            await asyncio.gather(*(node.says("WARNING", after) for node, after in zip(nodes, said, strict=True)))
            assert len(handles) <= done + 1, "acknowledged while there was no database"
            server.resume()
            ways = [asyncio.create_task(node.leads(before)) for node, before in zip(nodes, said, strict=True)]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            before = len(handles)
            while len(handles) < before + 20:
                await asyncio.sleep(0.01)
            over.set()
            await asyncio.wait_for(working, 30)
            results = [await asyncio.wait_for(handle.wait(), 30) for handle in handles]
            assert all(result.value == "slept" for result in results)
            assert all(node.running for node in nodes), "nobody had to start anything"
        completed = [event.task for event in events(url, tmp_path) if isinstance(event, TaskCompleted)]
        assert sorted(completed) == sorted(handle.id for handle in handles)
