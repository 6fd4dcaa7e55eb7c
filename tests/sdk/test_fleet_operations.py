"""What operators ask and order of the fleet, as it goes over the wire, and what comes back."""

from contextlib import aclosing
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import grpc
import pytest
import pytest_asyncio

from merit import AdmissionProbe, AsyncClient, Client, Refused, WorkerWhere
from merit.sdk.fleet_views import capability_view, explanation_view, fleet_worker_view, rollout_view
from merit.sdk.results import MeritError, Unreachable
from merit.wire.v1 import fleet_pb2
from tests.sdk.scripted_plane import ScriptedPlane, a_scripted_plane

pytestmark = pytest.mark.timeout(30)


@pytest_asyncio.fixture
async def scripted():
    async with a_scripted_plane() as (plane, address):
        yield plane, address


@pytest_asyncio.fixture
async def fleet(scripted):
    """The operations of a client that is connected."""
    async with AsyncClient(scripted[1], connect_timeout_s=5) as merit:
        yield merit.operations.fleet


def asked(plane: ScriptedPlane, call: str) -> Any:
    """The last question of this name."""
    return [request for name, request, _ in plane.asked if name == call][-1]


def a_worker(name="w", standing=fleet_pb2.STANDING_IDLE):
    return fleet_pb2.FleetWorker(id=name, standing=standing, contract=fleet_pb2.CONTRACT_SESSION)


def a_rollout(canary=(0, 0, 0), stable=(0, 0, 0)):
    one, other = (fleet_pb2.Tally(completed=a, failed=b, took_ns=c) for a, b, c in (canary, stable))
    state = fleet_pb2.ROLLOUT_STATE_RUNNING
    return fleet_pb2.Rollout(capability="c", version="2.0.0", share_permille=100, state=state, canary=one, stable=other)


async def test_workers_are_asked_for_page_by_page(scripted, fleet):
    plane, _ = scripted
    pages = {"": ("a", "x"), "x": ("b", "")}

    def listed(request):
        name, cursor = pages[request.cursor]
        return fleet_pb2.ListFleetResponse(workers=[a_worker(name)], next_cursor=cursor)

    plane.answers["ListWorkers"] = listed
    where = WorkerWhere(capability="c", versions=">=1", tags=["t"], states=["idle", "BUSY"], tenant="red")
    assert [view["id"] for view in await fleet.workers(where)] == ["a", "b"]
    assert asked(plane, "ListWorkers").limit == 1_000
    page = await fleet.worker_page(where, limit=1)
    assert ([view["id"] for view in page.workers], page.next_cursor, page.lacking) == (["a"], "x", "")
    message = asked(plane, "ListWorkers").filter
    assert (message.capability, message.versions, list(message.tags), message.tenant) == ("c", ">=1", ["t"], "red")
    assert list(message.standings) == [fleet_pb2.STANDING_IDLE, fleet_pb2.STANDING_BUSY]
    for field, bad in (("state", WorkerWhere(states=["lazy"])), ("tags", WorkerWhere(tags=["\ud800"]))):
        with pytest.raises(ValueError, match=f"^{field}: "):
            await fleet.workers(bad)


async def test_workers_that_are_gone_are_asked_for_by_when_they_left(scripted, fleet):
    plane, _ = scripted
    row = a_worker("old", fleet_pb2.STANDING_GONE)
    row.contract, row.left_ns, row.lost = fleet_pb2.CONTRACT_UNSPECIFIED, 10**9, True
    plane.answers["ListWorkers"] = lambda _: fleet_pb2.ListFleetResponse(workers=[row], lacking="the last moments")
    where = WorkerWhere(
        name="o", left_from=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), left_to=datetime(1971, 1, 1, tzinfo=UTC)
    )
    page = await fleet.worker_page(where, limit=7, cursor="n")
    request = asked(plane, "ListWorkers")
    assert (request.limit, request.cursor, request.filter.name) == (7, "n", "o")
    assert (request.filter.left_from_ns, request.filter.left_to_ns) == (10**9, 365 * 86_400 * 10**9)
    (view,) = page.workers
    assert (view["left"], view["lost"], view["contract"]) == ("1970-01-01T00:00:01.000Z", True, None)
    assert (view["completed"], view["failed"]) == (None, None)
    assert page.lacking == "the last moments"


async def test_orders_to_workers(scripted, fleet):
    plane, _ = scripted
    for call in ("Pause", "Resume", "Drain", "Remove", "Tell"):
        answer = getattr(fleet_pb2, f"{call}WorkerResponse")
        plane.answers[f"{call}Worker"] = lambda _, answer=answer: answer()
    await fleet.pause_worker("w", "why")
    await fleet.resume_worker("w")
    await fleet.drain_worker("w")
    await fleet.remove_worker("w", "why")
    await fleet.tell_worker("w", "RESET")
    assert [name for name, _, _ in plane.asked] == [
        f"{call}Worker" for call in ("Pause", "Resume", "Drain", "Remove", "Tell")
    ]
    assert (asked(plane, "PauseWorker").reason, asked(plane, "RemoveWorker").reason) == ("why", "why")
    assert asked(plane, "TellWorker").word == "RESET"
    plane.answers["DrainWorker"] = lambda _: (grpc.StatusCode.FAILED_PRECONDITION, "worker: w is draining already")
    with pytest.raises(Refused) as refused:
        await fleet.drain_worker("w")
    assert refused.value.refusal.field == "worker"


async def test_a_watch_begins_anew_when_the_connection_breaks(scripted, fleet):
    plane, _ = scripted
    lives = [
        [fleet_pb2.FleetChanges(workers=[a_worker("a")], complete=True), (grpc.StatusCode.UNAVAILABLE, "killed")],
        [fleet_pb2.FleetChanges(workers=[a_worker("b")]), fleet_pb2.FleetChanges(left=["b"], complete=True)],
    ]
    plane.answers["WatchWorkers"] = lambda _: lives.pop(0)
    told = []
    async with aclosing(fleet.watch_workers(WorkerWhere(capability="c"))) as changes:
        async for change in changes:
            told.append(([view["id"] for view in change.workers], change.left, change.begins, change.complete))
            if len(told) == 3:
                break
    assert told == [(["a"], [], True, True), (["b"], [], True, False), ([], ["b"], False, True)]
    assert asked(plane, "WatchWorkers").filter.capability == "c"


async def test_a_watch_that_cannot_begin_says_so(scripted, fleet):
    plane, _ = scripted
    plane.answers["WatchWorkers"] = lambda _: [(grpc.StatusCode.RESOURCE_EXHAUSTED, "16 watch already")]
    with pytest.raises(Unreachable, match="16 watch already"):
        await anext(fleet.watch_workers())


async def test_strategies_probes_and_rollouts(scripted, fleet):
    plane, _ = scripted
    for call in ("SetAllocation", "SetAdmission", "StartRollout", "EndRollout"):
        answer = getattr(fleet_pb2, f"{call}Response")
        plane.answers[call] = lambda _, answer=answer: answer()
    await fleet.set_allocation("weighted", capability="c", weights={"load": 1.5})
    allocation = asked(plane, "SetAllocation").allocation
    assert (allocation.capability, allocation.strategy) == ("c", "weighted")
    assert [(one.name, one.permille) for one in allocation.weights] == [("load", 1_500)]
    some = [AdmissionProbe(parameters={"a": 1}, expected=None), AdmissionProbe(parameters={}, run_timeout_s=0.5)]
    await fleet.set_admission("c", some)
    probes = asked(plane, "SetAdmission").probes
    assert [(one.parameters, one.expected, one.run_timeout_ns) for one in probes] == [
        (b'{"a":1}', b"null", 30 * 10**9),
        (b"{}", b"", 5 * 10**8),
    ]
    await fleet.start_rollout("c", "2.0.0", 0.25)
    assert asked(plane, "StartRollout").share_permille == 250
    assert not asked(plane, "StartRollout").only_running
    await fleet.start_rollout("c", "2.0.0", 0.5, only_running=True)
    assert asked(plane, "StartRollout").only_running
    await fleet.end_rollout("c", promote=True)
    assert asked(plane, "EndRollout").promote
    for field, call in (
        ("share", fleet.start_rollout("c", "2.0.0", -0.1)),
        ("share", fleet.start_rollout("c", "2.0.0", float("nan"))),
        ("weights.load", fleet.set_allocation("weighted", weights={"load": -1})),
        ("run_timeout_s", fleet.set_admission("c", [AdmissionProbe(parameters={}, run_timeout_s=0)])),
        ("attempt", fleet.explain("i", attempt=-1)),
    ):
        with pytest.raises(ValueError, match=f"^{field}: "):
            await call


async def test_an_explanation_comes_after_how_far_it_is(scripted, fleet):
    plane, _ = scripted
    steps = [
        fleet_pb2.ExplainStep(progress=fleet_pb2.ExplainProgress(sequence=1, last=9)),
        fleet_pb2.ExplainStep(explanation=fleet_pb2.Explanation(task_id="i", number=2, chosen="w", agrees=True)),
    ]
    plane.answers["ExplainTask"] = lambda _: steps
    said = []
    view = await fleet.explain(
        "i", attempt=2, workers_max=5, progress=lambda reached, last: said.append((reached, last))
    )
    assert (view["task"], view["attempt"], view["chosen"], view["agrees"]) == ("i", 2, "w", True)
    assert said == [(1, 9)]
    request = asked(plane, "ExplainTask")
    assert (request.task_id, request.attempt, request.rulings_max) == ("i", 2, 5)
    plane.answers["ExplainTask"] = lambda _: []
    with pytest.raises(MeritError, match="no explanation"):
        await fleet.explain("i")


def test_a_worker_as_json_has_it():
    message = fleet_pb2.FleetWorker(id="w", standing=fleet_pb2.STANDING_PAUSED, contract=fleet_pb2.CONTRACT_UNARY)
    message.capacity.add(name="cpu", thousandths=4_000)
    message.in_use.add(name="cpu", thousandths=1_500)
    message.offers.add(name="c", version="1.0.0", cost_micros=1_500, preference_permille=250, measured=2, took_ns=10**9)
    message.offers.add(name="d", version="1.0.0")
    view = fleet_worker_view(message)
    assert (view["state"], view["contract"]) == ("PAUSED", "UNARY")
    assert (view["capacity"], view["in_use"]) == ({"cpu": 4}, {"cpu": 1.5})
    one, other = view["capabilities"]
    assert (one["cost"], one["preference"], one["took_s"]) == (0.0015, 0.25, 1.0)
    assert (other["took_s"], other["concurrency_max"]) == (None, None)
    assert (view["joined"], view["seen"]) == (None, None)


def test_both_sides_of_a_rollout_are_compared():
    view = rollout_view(a_rollout())
    assert (view["share"], view["state"]) == (0.1, "RUNNING")
    assert view["canary"] == {"workers": 0, "completed": 0, "failed": 0, "error_rate": None, "mean_s": None}
    assert (view["error_rate_more"], view["mean_times"]) == (None, None)
    view = rollout_view(a_rollout((8, 2, 16 * 10**9), (9, 1, 9 * 10**9)))
    assert (view["canary"]["error_rate"], view["stable"]["mean_s"]) == (0.2, 1.0)
    assert (view["error_rate_more"], view["mean_times"]) == (pytest.approx(0.1), 2.0)
    assert rollout_view(a_rollout((1, 0, 5), (0, 1, 0)))["mean_times"] is None


def test_a_capability_and_a_ruling_as_json_has_them():
    message = fleet_pb2.FleetCapability(name="c", input_schema=b'{"a":1}', source=fleet_pb2.ALLOCATION_SOURCE_SYSTEM)
    message.probes.add(parameters=b"{}", run_timeout_ns=10**9)
    message.probes.add(parameters=b"{}", expected=b"null")
    view = capability_view(message)
    assert (view["input_schema"], view["output_schema"], view["rollout"]) == ({"a": 1}, None, None)
    assert view["allocation"]["set_for"] == "SYSTEM"
    assert ["expected" in probe for probe in view["probes"]] == [False, True]
    explanation = fleet_pb2.Explanation(task_id="i")
    ruling = explanation.rulings.add(worker_id="w", fits=True, rank=1)
    ruling.figures.add(name="load", value=-3)
    view = explanation_view(explanation)
    assert view["workers"] == [{"worker": "w", "fits": True, "rank": 1, "figures": {"load": -3}, "reasons": []}]
    assert (view["attempt"], view["chosen"]) == (None, None)


async def test_programs_without_a_loop_ask_the_same(scripted):
    plane, address = scripted
    plane.answers["ListWorkers"] = lambda _: fleet_pb2.ListFleetResponse(workers=[a_worker()])
    plane.answers["GetRollout"] = lambda _: a_rollout()
    plane.answers["WatchWorkers"] = lambda _: [fleet_pb2.FleetChanges(workers=[a_worker()])] * 3

    def program():
        with Client(address) as merit:
            fleet = merit.operations.fleet
            told = [change.workers[0]["id"] for change in islice(fleet.watch_workers(), 2)]
            return fleet.workers()[0]["id"], fleet.rollout("c")["version"], told

    import asyncio

    assert await asyncio.to_thread(program) == ("w", "2.0.0", ["w", "w"])


def test_the_blocking_operations_are_all_of_them():
    from merit.sdk.fleet_operations import FleetOperations
    from merit.sdk.sync_fleet_operations import BlockingFleetOperations

    def names(kind):
        return {name for name in vars(kind) if not name.startswith("_")}

    assert names(BlockingFleetOperations) == names(FleetOperations)
