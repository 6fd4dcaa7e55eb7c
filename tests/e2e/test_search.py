"""Tasks that the cell has forgotten are found, shown whole, and known by their keys: with the real follower."""

import asyncio
import contextlib
from typing import Annotated

import pytest

from merit import AsyncClient, Refused, ResultExpired, Searchable, Where
from merit.app.control_plane import ControlPlane, Settings
from merit.model.frames import Settled
from merit.model.limits import SECOND_NS, Limits
from merit.model.tasks import Failure, TaskState
from merit.sdk.capability import capability
from merit.sdk.results import Result
from merit.sdk.worker import WorkerProcess

FEW = Limits(finals_max=3, keys_ns=SECOND_NS // 100)
"""Final tasks, and keys, are forgotten at once."""
FIRST = {"title": "The first", "secret": "hidden"}
NAMED = {"idempotency_key": "first", "labels": {"row": "1"}}


@capability
async def shelve(title: Annotated[str, Searchable], secret: str = "") -> str:
    if title == "bad":
        raise ValueError("No such shelf: Zürich")
    return title.upper()


@pytest.fixture
def where_it_is(tmp_path):
    return tmp_path / "state"


@contextlib.asynccontextmanager
async def a_library(state):
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    plane = ControlPlane(Settings(state=state, grpc="127.0.0.1:0", limits=FEW))
    running = asyncio.create_task(plane.run(lambda where, _epoch: ready.set_result(where)))
    try:
        address = await asyncio.wait_for(ready, 20)
        worker = WorkerProcess([shelve], address, name="librarian")
        working = asyncio.create_task(worker.run())
        try:
            async with AsyncClient(address) as merit:
                yield merit
        finally:
            worker.drain()
            await asyncio.wait_for(working, 20)
    finally:
        plane.stop()
        await asyncio.wait_for(running, 20)


async def found(merit, limit=7, **where):
    page, tasks = None, []
    written = (await merit.status())["sequence"]
    while page is None or page.next_cursor:
        cursor = "" if page is None else page.next_cursor
        page = await merit.tasks(where=Where(**where), limit=limit, cursor=cursor, at_least=written)
        assert not page.lacking
        assert page.sequence >= written
        tasks += [task["id"] for task in page.tasks]
    return tasks


async def test_what_the_cell_has_forgotten_is_found_in_the_read_model(where_it_is):
    titles = [f"Volume {number} of Ünïcode" for number in range(20)]
    async with asyncio.timeout(60), a_library(where_it_is) as merit:
        first = await merit.submit("shelve", FIRST, **NAMED)
        assert await first.result() == "THE FIRST"
        handles = [await merit.submit("shelve", {"title": title}) for title in titles]
        assert [await handle.result() for handle in handles] == [title.upper() for title in titles]
        bad = await merit.submit("shelve", {"title": "bad"}, attempts_max=1)
        assert not (await bad.wait()).ok
        ids = [handle.id for handle in handles]
        with pytest.raises(Refused, match=r"at_least: .* nothing has happened after"):
            await asyncio.wait_for(merit.tasks(at_least=10**6), 5)  # at once: it is not asked again and again
        assert await found(merit) == [bad.id, *ids[::-1], first.id]
        assert set(await found(merit, text="unicode vol")) == set(ids)
        assert await found(merit, text="volume 17") == [ids[17]]
        assert await found(merit, text="hidden") == []
        assert await found(merit, text="no zurich", states=["dead"], worker="librarian") == [bad.id]
        assert await found(merit, labels={"row": "1"}, capability="shelve") == [first.id]
        task = await merit.task(first.id)
        assert (task["result"], task["parameters"]["secret"]) == ("THE FIRST", "hidden")
        assert "contents" not in task["why"]
        again = await merit.submit("shelve", FIRST, **NAMED)
        assert await again.result() == "THE FIRST"
        assert again.id == first.id
    async with asyncio.timeout(60), a_library(where_it_is) as merit:
        assert await found(merit, text="volume 3") == [ids[3]]
        assert await merit.watch(ids[3]).result() == titles[3].upper()


def test_a_result_that_is_kept_no_longer_is_no_empty_one():
    settled = Settled("t", TaskState.COMPLETED, failure=Failure("expired", "it is too old"), attempts=1, worker="w")
    result = Result(settled.task, settled.state, settled.result, settled.failure, settled.attempts, settled.worker)
    assert result.ok
    with pytest.raises(ResultExpired, match="task t: it is too old"):
        _ = result.value
