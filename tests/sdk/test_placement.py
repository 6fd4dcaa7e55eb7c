"""What tasks ask of their workers, and what these say of themselves, through the SDK and a control plane in this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from merit import AsyncClient, Client, Refused
from merit.app.control_plane import ControlPlane, Settings
from merit.sdk.capability import Capability, capability
from merit.sdk.worker import WorkerProcess

WAIT_S = 20.0


def rendering(version: str) -> Capability[[int], Any]:
    async def render(scene: int) -> int:
        return scene

    return capability(name="render", version=version, resources={"memory": 2**30}, tags=[f"v{version[0]}"])(render)


@capability(stateful=True)
async def collect(scene: int) -> int:
    return scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def address(tmp_path_factory) -> AsyncIterator[str]:
    """Of a control plane with an old worker, a new one, and one that works for acme only."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = Settings(state=tmp_path_factory.mktemp("placement") / "state", grpc="127.0.0.1:0")
    plane = ControlPlane(settings)
    planning = asyncio.create_task(plane.run(lambda where, _epoch: ready.set_result(where)))
    where = await asyncio.wait_for(ready, WAIT_S)
    workers = [
        WorkerProcess([rendering("1.4.0"), collect], where, name="old", tags=["zone-a"], capacity={"memory": 2**31}),
        WorkerProcess(
            [rendering("2.0.0"), collect],
            where,
            name="new",
            tags=["zone-b", "spot"],
            capacity={"gpu": 1, "memory": 2**33},
        ),
        WorkerProcess([rendering("1.9.0")], where, name="own", tenants=["acme"], capacity={"gpu": 8}),
    ]
    working = [asyncio.create_task(worker.run()) for worker in workers]
    async with AsyncClient(where) as merit, asyncio.timeout(WAIT_S):
        while len(await merit.workers()) < len(workers):
            await asyncio.sleep(0.01)
    yield where
    for worker in workers:
        worker.drain()
    await asyncio.gather(*working)
    plane.stop()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(planning, WAIT_S)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("asked", "by"),
    [
        ({"versions": ">=1.2,<2"}, ["old"]),
        ({"versions": "^2"}, ["new"]),
        ({"versions": "*"}, ["old", "new"]),
        ({"tags": ["zone-b"]}, ["new"]),
        ({"tags": ["v1"]}, ["old"]),
        ({"without_tags": ["spot"]}, ["old"]),
        ({"resources": {"gpu": 1}}, ["new"]),
        ({"resources": {"memory": 2**32}}, ["new"]),
        ({"resources": {"memory": 2**33 + 1}}, []),
        ({"resources": {"licence": 1}}, []),
        ({"worker": "new"}, ["new"]),
        ({"worker": "own"}, []),
        ({"worker": "new", "versions": "^1"}, []),
        ({"strategy": "round-robin"}, ["old", "new"]),
        ({"strategy": "weighted", "prefers": ["zone-a"]}, ["old", "new"]),
    ],
    ids=str,
)
async def test_a_task_goes_to_a_worker_that_has_what_it_asks_for(address, asked, by):
    async with AsyncClient(address) as merit:
        handles = [await merit.submit("render", {"scene": number}, **asked) for number in range(6)]
        if by:
            results = await merit.wait(handles, WAIT_S)
            assert all(result.ok for result in results)
            assert {result.worker for result in results} <= set(by)
        else:
            views = [await merit.task(handle.id) for handle in handles]
            assert {view["state"] for view in views} == {"PENDING"}
            # … and holds up nobody else.
            assert await (await merit.submit("render", {"scene": 7})).result(WAIT_S) == 7
            assert await merit.cancel([handle.id for handle in handles]) == []


async def test_a_worker_of_one_tenant_does_nothing_for_others(address):
    async with AsyncClient(address, tenant="acme") as acme, AsyncClient(address) as others:
        handle = await acme.submit("render", {"scene": 1}, worker="own", versions="~1.9")
        assert (await handle.wait(WAIT_S)).worker == "own"
        done = await others.wait([await others.submit("render", {"scene": number}) for number in range(20)], WAIT_S)
        assert "own" not in {result.worker for result in done}


async def test_tasks_of_one_key_stay_on_one_worker(address):
    async with AsyncClient(address) as merit:
        for key in ("sea", "hills", "town"):
            handles = [await merit.submit("collect", {"scene": number}, key=key) for number in range(10)]
            assert len({result.worker for result in await merit.wait(handles, WAIT_S)}) == 1


async def test_a_map_asks_the_same_for_all_and_the_plain_client_asks_too(address):
    def work() -> set[str]:
        with Client(address) as merit:
            inputs = [{"scene": number} for number in range(50)]
            return {result.worker for result in merit.map("render", inputs, versions="^2", resources={"gpu": 0.5})}

    assert await asyncio.to_thread(work) == {"new"}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"versions": "newest"}, "terms.demand.versions"),
        ({"tags": ["a"], "without_tags": ["a"]}, "terms.demand.without_tags"),
        ({"strategy": "whoever"}, "terms.demand.strategy"),
        ({"worker": "x" * 201}, "terms.demand.worker_id"),
    ],
)
async def test_what_cannot_be_asked_for_is_refused(address, asked, field):
    async with AsyncClient(address) as merit:
        with pytest.raises(Refused) as raised:
            await merit.submit("render", {"scene": 1}, **asked)
        assert raised.value.refusal.field == field
