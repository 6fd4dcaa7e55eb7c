"""The registry of the unary contract, before a real control plane."""

import asyncio
import contextlib
import time
from typing import Any

import grpc
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from merit import AsyncClient, WorkerProcess, capability
from merit.gateway.fields import BadField
from merit.gateway.unary.registration import read_info, read_tags, semantic, worker_id
from merit.model.workers import Amount
from merit.wire.v1 import fleet_pb2
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary
from tests.gateway.foreign import Foreign, info, planed, serving

pytestmark = pytest.mark.timeout(60)


@pytest_asyncio.fixture
async def plane(tmp_path):
    async with planed(tmp_path / "state") as registry:
        yield registry


@capability(version="1.2.0")
def add(a: int, b: float = 0, note: str | None = None) -> float:
    """Adds."""
    return a + b


async def test_the_same_name_and_address_are_the_same_worker_and_an_id_replaces_its_entry(plane):
    async with serving(Foreign()) as address, serving(Foreign()) as other:
        first = await plane.register(info(address))
        assert first == worker_id("foreign", address)
        assert await plane.register(info(address, "more")) == first
        second = await plane.register(info(other))
        third = await plane.register(info(address, name="twin"))
        assert len({first, second, third}) == 3
        assert await plane.register(info(address, worker_id="mine", version="7")) == "mine"
        assert await plane.register(info(other, worker_id="mine", version="8")) == "mine"
        listed = await plane.available()
        assert set(listed) == {first, second, third, "mine"}
        assert (listed["mine"].version, listed["mine"].address) == ("8", other)
        assert [tool.name for tool in listed[first].capabilities] == ["more"]


async def test_what_a_worker_says_is_what_orchestrators_are_told(plane):
    said = unary.WorkerInfo(
        name="n",
        version="v1.2-beta",
        address="127.0.0.1:9",
        tags=["gpu", "max_concurrency=8", "zone=eu"],
        capabilities=[
            unary.ToolCapability(
                name="c",
                description="does c",
                parameters=[unary.ToolParameter(name="p", type="Date", description="when", required=True)],
            )
        ],
    )
    worker = await plane.register(said)
    told = await plane.by_id(worker)
    assert abs(told.last_heartbeat.ToNanoseconds() / 1e9 - time.time()) < 60
    told.ClearField("last_heartbeat")
    said.worker_id = worker
    assert told == said


async def test_only_an_id_that_never_registered_is_unknown(plane):
    answer = await plane.beat("nobody")
    assert not answer.success
    assert "'nobody' has not registered" in answer.message
    worker = await plane.register(info("127.0.0.1:9"))
    assert (await plane.beat(worker, 3)).success
    async with asyncio.timeout(20):
        while worker in await plane.available():  # until it is stale
            await asyncio.sleep(0.02)
    assert (await plane.by_id(worker)).worker_id == worker
    assert (await plane.beat(worker)).success
    assert worker in await plane.available()
    for unknown in ("nobody", "", "x" * 300):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await plane.by_id(unknown)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_registrations_outlive_the_control_plane(tmp_path):
    async with planed(tmp_path / "state") as plane:
        worker = await plane.register(info("127.0.0.1:9", tags=["a=b"]))
    async with planed(tmp_path / "state") as plane:
        assert worker in await plane.available(), "it was here when the process before ended"
        assert not (await plane.by_id(worker)).HasField("last_heartbeat"), "this one has not heard of it"
        assert list((await plane.by_id(worker)).tags) == ["a=b"]
        answer = await plane.beat(worker)
        assert answer.success
        assert list(answer.commands) == ["RESUME"], "whether it was told to go on nobody knows any more"
        assert list((await plane.beat(worker)).commands) == []
        assert worker in await plane.available()


async def test_workers_of_sessions_are_reached_through_the_gateway(plane):
    process = WorkerProcess([add], plane.address, name="session", tags=["t"])
    running = asyncio.create_task(process.run())
    async with asyncio.timeout(10):
        while "session" not in (listed := await plane.available()):
            await asyncio.sleep(0.02)
    told = listed["session"]
    assert (told.name, told.address, told.version, list(told.tags)) == ("session", plane.address, "1.2.0", ["t"])
    (tool,) = told.capabilities
    assert (tool.name, tool.description) == ("add", "Adds.")
    declared = [(one.name, one.type, one.required) for one in tool.parameters]
    assert declared == [("a", "int", True), ("b", "number", False), ("note", "any", False)]
    assert "by the session contract" in await plane.refused(info("127.0.0.1:9", worker_id="session"))
    await plane.fleet.PauseWorker(fleet_pb2.PauseWorkerRequest(id="session", reason="x"))
    assert await plane.available() == {}, "nobody is sent to one that is paused"
    assert (await plane.by_id("session")).name == "session"
    process.drain()
    await asyncio.wait_for(running, 15)
    assert await plane.available() == {}


async def test_a_worker_that_drains_says_so_by_a_tag(plane):
    async with serving(Foreign()) as address:
        worker = await plane.register(info(address))
        async with AsyncClient(plane.address) as merit:
            assert (await (await merit.submit("work")).wait(10)).ok
        assert await plane.register(info(address, tags=["draining=true"])) == worker
        async with asyncio.timeout(10):
            while list((await plane.beat(worker)).commands) != ["STOP"]:
                await asyncio.sleep(0.02)
    assert "draining before it has registered" in await plane.refused(
        info("127.0.0.1:9", name="new", tags=["draining=true"])
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"address": ""}, "worker_info.address: has 0 characters"),
    ({"address": "here"}, "worker_info.address: 'here' is no HOST:PORT"),
    ({"address": "10.0.0.1:80"}, "worker_info.address: 10.0.0.1:80 is not on this machine"),
    ({"address": "example.org:80"}, "worker_info.address: example.org:80 is not on this machine"),
    ({"address": "127.0.0.1:0"}, "worker_info.address: port 0"),
    ({"name": ""}, "worker_info.name: has 0 characters"),
    ({"name": "a\x00b"}, "worker_info.name: has control characters"),
    ({"worker_id": "x" * 201}, "worker_info.worker_id: has 201 characters"),
    ({"capabilities": []}, "worker_info.capabilities: "),
    ({"capabilities": [unary.ToolCapability()]}, "worker_info.capabilities"),
    ({"capabilities": [unary.ToolCapability(name="a")] * 2}, "stands twice"),
    ({"capabilities": [unary.ToolCapability(name=str(n)) for n in range(257)]}, "more than 256"),
    ({"capabilities": [unary.ToolCapability(name="a", description="x" * 20_000)]}, "worker_info.capabilities"),
    ({"capabilities": [unary.ToolCapability(name="a", parameters=[unary.ToolParameter()])]}, "parameters of a: "),
    ({"tags": ["t"] * 65}, "worker_info.tags"),
    ({"tags": ["merit.trusted"]}, "worker_info.tags: 'merit.trusted' begins with 'merit.': such tags are earned"),
    ({"tags": ["max_concurrency=0"]}, "worker_info.tags.max_concurrency: '0' is no whole number of 1 to 10,000"),
    ({"tags": ["max_concurrency=many"]}, "worker_info.tags.max_concurrency: 'many'"),
    ({"tags": ["reopen=perhaps"]}, "worker_info.tags.reopen: 'perhaps' is neither true nor false"),
    ({"tags": ["capacity.cpu=lots"]}, "worker_info.tags.capacity.cpu: 'lots' is no amount"),
    ({"tags": ["tenants=a,,b"]}, "worker_info.tags.tenants: has 0 characters"),
    ({"tags": ["version.work=new"]}, "worker_info.tags.version.work: 'new' is no version"),
]


async def test_what_cannot_be_is_refused_with_field_and_reason(plane):
    for wrong, reason in REFUSED:
        said = info("127.0.0.1:9")
        for field in wrong:
            said.ClearField(field)  # type: ignore[arg-type]  # each is one of its fields
        said.MergeFrom(unary.WorkerInfo(**wrong))
        assert reason in await plane.refused(said)
    assert await plane.available() == {}
    empty = await plane.stub.RegisterWorker(unary.RegisterWorkerRequest())
    assert not empty.success


async def test_the_control_plane_does_not_dial_itself(plane):
    """A script that copies one registry into another says just that."""
    process = WorkerProcess([add], plane.address, name="session")
    running = asyncio.create_task(process.run())
    async with asyncio.timeout(10):
        while "session" not in (listed := await plane.available()):
            await asyncio.sleep(0.02)
    copied = listed["session"]
    copied.worker_id = "copied"
    assert f"{plane.address} is this control plane itself" in await plane.refused(copied)
    process.drain()
    await asyncio.wait_for(running, 15)


async def test_services_are_checked_and_reflected(plane):
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    names = ["worker_abstraction.RegistryService", "worker_abstraction.WorkerService"]
    for name in names:
        checked = await health_pb2_grpc.HealthStub(plane.channel).Check(health_pb2.HealthCheckRequest(service=name))
        assert checked.status == health_pb2.HealthCheckResponse.SERVING
    call = reflection_pb2_grpc.ServerReflectionStub(plane.channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = await call.read()
    assert set(names) <= {service.name for service in listed.list_services_response.service}
    call.cancel()


async def test_a_capability_in_a_version_of_its_own_and_what_a_worker_has(plane):
    async with serving(Foreign()) as address, AsyncClient(plane.address) as merit:
        tags = ["version.work=2.1", "capacity.gpu=1", "capacity.memory=2Gi", "tenants=default, other"]
        worker = await plane.register(info(address, "work", "more", tags=tags))
        assert (await (await merit.submit("work", versions=">=2,<3", resources={"gpu": 1})).wait(10)).worker == worker
        assert (await (await merit.submit("more", versions="==1.0.0")).wait(10)).worker == worker
        never = await merit.submit("work", resources={"gpu": 2}, timeout_s=0.5)
        assert (await never.wait(10)).attempts == 0
        seen = await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id=worker))
        assert list(seen.tenants) == ["default", "other"]
        assert {one.name: one.thousandths for one in seen.capacity} == {"gpu": 1000, "memory": 2 * 2**30 * 1000}


def test_tags_that_say_something():
    said = read_tags(
        ["plain", "k=v", "max_concurrency=8", "reopen=TRUE", "capacity.x=0.5", "capacity.b=2k", "capacity.=1"]
    )
    assert (said.concurrency, said.reopens, said.draining, said.tenants) == (8, True, False, ())
    assert said.capacity == (Amount("b", 2_000_000), Amount("x", 500))
    assert read_tags([]).concurrency == 4


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("", "1.0.0"),
        ("1", "1.0.0"),
        ("v2.3", "2.3.0"),
        ("1.2.3", "1.2.3"),
        ("01.2.3", "1.2.3"),
        ("1.2-rc.1+b", "1.2.0-rc.1+b"),
    ],
)
def test_versions_of_all_kinds(text: str, version: str):
    assert semantic("f", text) == version


@given(st.text() | st.from_regex(r"v?[0-9]{1,3}(\.[0-9]{1,3}){0,2}(-[0-9a-z.-]{1,5})?", fullmatch=True))
def test_of_any_version_a_worker_can_be_registered(text: str):
    from merit.allocation.versions import problem_of_version

    said = info("127.0.0.1:9", version=text.encode("utf-8", "ignore").decode())
    (offer,) = read_info(said)[1].offers
    assert problem_of_version(offer.version) is None


@given(st.lists(st.text(max_size=30), max_size=5))
def test_any_tags_are_read_or_refused(tags):
    with contextlib.suppress(BadField):
        assert read_tags(tags).concurrency >= 1
