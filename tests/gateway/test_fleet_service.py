"""What operators ask and order of the fleet: workers, capabilities, rollouts, and why a task went where."""

import asyncio
import time

import grpc
import pytest
import pytest_asyncio

from merit.core.explaining import Explanation, Ruling
from merit.gateway import fleet_service, worker_watch
from merit.gateway.explaining import CannotExplain, FoldedSoFar
from merit.model.commands import RegisterWorker
from merit.model.fleet import Probe, RolloutState
from merit.model.limits import PROBES_MAX, SECOND_NS, Limits
from merit.model.record import JournalError
from merit.model.tasks import Demand, Terms
from merit.model.workers import Amount, Registration
from merit.testing.builders import PRINCIPAL, TENANT, a_spec, allocate, an_id, an_offer, attach, completed, detach, say
from merit.wire.v1 import fleet_pb2
from tests.gateway.hostile import new_id
from tests.gateway.operated import operated
from tests.gateway.test_operating import invalid, refused

Filter = fleet_pb2.WorkerFilter
WAIT_S = 20.0


@pytest_asyncio.fixture
async def plane():
    async with operated() as guest:
        yield guest


async def listed(plane, limit=1_000, **wanted):
    """The ids of all workers that are listed, page after page."""
    cursor, found = "", []
    while True:
        request = fleet_pb2.ListFleetRequest(filter=Filter(**wanted), limit=limit, cursor=cursor)
        page = await plane.fleet.ListWorkers(request)
        assert len(page.workers) <= limit
        found += [worker.id for worker in page.workers]
        if not page.next_cursor:
            return found
        cursor = page.next_cursor


def register(plane, worker="u1", **fields):
    offers = (an_offer("echo", version="3.0.0"),)
    made = Registration("agent", "127.0.0.1:7", "3.0.0", offers, 2, ("gpu",), **fields)
    plane.cell.machine.handle(RegisterWorker(TENANT, PRINCIPAL, worker, made), plane.cell.machine.now_ns)


# Workers


async def test_workers_are_found_by_all_that_a_filter_knows(plane):
    machine = plane.cell.machine
    attach(machine, "w1", offers=(an_offer("echo", version="1.2.0", tags=("eu",)),))
    attach(machine, "w2", offers=(an_offer("echo", version="2.0.0"), an_offer("sum")))
    attach(machine, "w3", ("sum",), granted=0)
    attach(machine, "gone")
    detach(machine, "gone", bye=True)
    register(plane)
    joining, idle, gone = fleet_pb2.STANDING_JOINING, fleet_pb2.STANDING_IDLE, fleet_pb2.STANDING_GONE
    for wanted, found in (
        ({}, ["u1", "w1", "w2", "w3"]),
        ({"capability": "sum"}, ["w2", "w3"]),
        ({"capability": "echo", "versions": "<2"}, ["w1"]),
        ({"capability": "echo", "versions": ">=2"}, ["u1", "w2"]),
        ({"capability": "nothing"}, []),
        ({"tags": ["eu"]}, ["w1"]),
        ({"tags": ["gpu"]}, ["u1"]),
        ({"tags": ["eu", "gpu"]}, []),
        ({"standings": [joining]}, ["u1", "w3"]),
        ({"standings": [idle, gone]}, ["gone", "w1", "w2"]),
        ({"tenant": "red"}, ["u1", "w1", "w2", "w3"]),
    ):
        assert await listed(plane, **wanted) == found, wanted
        assert await listed(plane, limit=1, **wanted) == found, wanted


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"capability": "x" * 201}, "filter.capability"),
        ({"tenant": "x" * 201}, "filter.tenant"),
        ({"tags": ["x"] * 65}, "filter.tags"),
        ({"tags": [""]}, "filter.tags"),
        ({"versions": ">=1"}, "filter.versions"),
        ({"capability": "echo", "versions": "newest"}, "filter.versions"),
        ({"standings": [0]}, "filter.standings"),
        ({"standings": [99]}, "filter.standings"),
    ],
)
async def test_a_filter_that_cannot_be_is_refused(plane, wanted, field):
    await invalid(plane.fleet.ListWorkers(fleet_pb2.ListFleetRequest(filter=Filter(**wanted))), field)
    call = plane.fleet.WatchWorkers(fleet_pb2.WatchWorkersRequest(filter=Filter(**wanted)))
    await invalid(call.read(), field)


async def test_when_workers_left_is_nothing_to_be_watched(plane):
    wanted = Filter(left_from_ns=1)
    call = plane.fleet.WatchWorkers(fleet_pb2.WatchWorkersRequest(filter=wanted))
    await invalid(call.read(), "filter.left_from_ns, left_to_ns", "for lists")
    assert await listed(plane, left_from_ns=1) == []


async def test_a_worker_is_shown_with_what_it_has_and_uses(plane):
    machine = plane.cell.machine
    offer = an_offer("echo", resources=(Amount("cpu", 500),), concurrency_max=3, cost_micros=7, stateful=True)
    attach(machine, "w1", offers=(offer,), granted=3)
    machine.state.workers["w1"].capacity = (Amount("cpu", 4_000), Amount("gpu", 1_000))
    demand = Demand(resources=(Amount("gpu", 1_000),))
    plane.cell.submit(a_spec(1), a_spec(2, terms=Terms(demand=demand)))
    allocate(machine)
    worker = await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id="w1"))
    assert (worker.id, worker.standing, worker.contract) == ("w1", fleet_pb2.STANDING_BUSY, fleet_pb2.CONTRACT_SESSION)
    assert [(item.name, item.thousandths) for item in worker.capacity] == [("cpu", 4_000), ("gpu", 1_000)]
    assert [(item.name, item.thousandths) for item in worker.in_use] == [("cpu", 1_000), ("gpu", 1_000)]
    assert (worker.concurrency, worker.attempts, worker.room) == (4, 2, 1)
    assert list(worker.tasks) == [an_id(1), an_id(2)]
    assert worker.seen_ns == worker.joined_ns == worker.first_ns
    (shown,) = worker.offers
    assert (shown.name, shown.concurrency_max, shown.cost_micros, shown.stateful) == ("echo", 3, 7, True)
    assert (shown.took_ns, shown.measured) == (0, 0)
    machine.now_ns += SECOND_NS
    say(machine, reports=[completed(1, wall_ns=5)], now_ns=machine.now_ns)
    worker = await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id="w1"))
    assert (worker.completed, worker.offers[0].took_ns, worker.offers[0].measured) == (1, 5, 1)


async def test_one_that_is_dialled_is_shown_with_its_address_also_before_it_has_come(plane):
    register(plane)
    worker = await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id="u1"))
    assert (worker.contract, worker.address, worker.concurrency) == (fleet_pb2.CONTRACT_UNARY, "127.0.0.1:7", 2)
    assert (worker.standing, worker.joined_ns) == (fleet_pb2.STANDING_JOINING, 0)
    assert [offer.version for offer in worker.offers] == ["3.0.0"]


async def test_a_worker_that_nobody_knows(plane):
    await refused(plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id="w9")), grpc.StatusCode.NOT_FOUND, "id: ", "w9")
    await invalid(plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest()), "id")
    for call, request in (
        (plane.fleet.PauseWorker, fleet_pb2.PauseWorkerRequest(id="w9")),
        (plane.fleet.ResumeWorker, fleet_pb2.ResumeWorkerRequest(id="w9")),
        (plane.fleet.DrainWorker, fleet_pb2.DrainWorkerRequest(id="w9")),
        (plane.fleet.RemoveWorker, fleet_pb2.RemoveWorkerRequest(id="w9")),
        (plane.fleet.TellWorker, fleet_pb2.TellWorkerRequest(id="w9", word="RESET")),
    ):
        await refused(call(request), grpc.StatusCode.NOT_FOUND, "w9")
        await invalid(call(type(request)(**({"word": "RESET"} if hasattr(request, "word") else {}))), "id")


async def test_orders_to_workers(plane):
    attach(plane.cell.machine, "w1")
    state = plane.cell.state
    await plane.fleet.PauseWorker(fleet_pb2.PauseWorkerRequest(id="w1", reason="its disk is full"))
    assert state.profiles["w1"].reason == "its disk is full"
    assert await listed(plane, standings=[fleet_pb2.STANDING_PAUSED]) == ["w1"]
    call = plane.fleet.PauseWorker(fleet_pb2.PauseWorkerRequest(id="w1"))
    await refused(call, grpc.StatusCode.FAILED_PRECONDITION, "paused already")
    await plane.fleet.ResumeWorker(fleet_pb2.ResumeWorkerRequest(id="w1"))
    await plane.fleet.TellWorker(fleet_pb2.TellWorkerRequest(id="w1", word="RESET"))
    assert state.profiles["w1"].words == ("RESET",)
    await plane.fleet.DrainWorker(fleet_pb2.DrainWorkerRequest(id="w1"))
    assert await listed(plane, standings=[fleet_pb2.STANDING_DRAINING]) == ["w1"]
    await plane.fleet.RemoveWorker(fleet_pb2.RemoveWorkerRequest(id="w1"))
    worker = await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id="w1"))
    assert worker.standing == fleet_pb2.STANDING_DEACTIVATED
    assert worker.reason
    call = plane.fleet.TellWorker(fleet_pb2.TellWorkerRequest(id="w1", word="DANCE"))
    await invalid(call, "word", "RETRAIN")
    call = plane.fleet.PauseWorker(fleet_pb2.PauseWorkerRequest(id="w1", reason="x" * 2_001))
    await invalid(call, "reason")


# Watching


class Watching:
    """What somebody who watches has been told."""

    def __init__(self, plane, **wanted):
        self.call = plane.fleet.WatchWorkers(fleet_pb2.WatchWorkersRequest(filter=Filter(**wanted)))
        self.workers, self.left = {}, []

    async def until(self, condition):
        async with asyncio.timeout(WAIT_S):
            while not condition():
                message = await self.call.read()
                assert message is not grpc.aio.EOF
                self.workers |= {worker.id: worker for worker in message.workers}
                self.left += message.left
                for name in message.left:
                    del self.workers[name]
                if message.complete:
                    return


async def begun(plane, **wanted):
    watching = Watching(plane, **wanted)
    await watching.until(lambda: False)
    return watching


async def test_all_that_are_there_are_told_of_and_then_each_change(plane, monkeypatch):
    monkeypatch.setattr(worker_watch, "TURN_WORKERS", 2)
    machine = plane.cell.machine
    for number in range(5):
        attach(machine, f"w{number}")
    watching = await begun(plane)
    assert sorted(watching.workers) == [f"w{number}" for number in range(5)]
    plane.cell.submit(a_spec(1))
    (sent,) = allocate(machine)
    plane.cell.moved(sent.worker)
    await watching.until(lambda: watching.workers[sent.worker].standing == fleet_pb2.STANDING_BUSY)
    attach(machine, "w9")
    plane.cell.moved("w9")
    await watching.until(lambda: "w9" in watching.workers)
    watching.call.cancel()


async def test_one_that_does_not_fit_any_more_is_said_to_have_left(plane):
    machine = plane.cell.machine
    attach(machine, "w1")
    attach(machine, "w2", ("sum",))
    watching = await begun(plane, capability="echo")
    assert list(watching.workers) == ["w1"]
    detach(machine, "w1", bye=True)
    plane.cell.moved("w1", "w2")
    await watching.until(lambda: watching.left)
    assert watching.left == ["w1"]
    watching.call.cancel()


async def test_what_did_not_change_is_not_told_again(plane):
    machine = plane.cell.machine
    attach(machine, "w1")
    attach(machine, "w2")
    watching = await begun(plane)
    for number in range(20):  # it is heard of, and nothing else
        say(machine, "w1", now_ns=machine.now_ns + number)
        plane.cell.moved("w1")
    detach(machine, "w2")
    plane.cell.moved("w2")
    message = await asyncio.wait_for(watching.call.read(), WAIT_S)
    assert [worker.id for worker in message.workers] == ["w2"]
    watching.call.cancel()


async def test_silence_is_told_though_nothing_happens(plane):
    machine = plane.cell.machine
    machine.limits = Limits(beat_ns=SECOND_NS // 10)
    machine.state.grace_until_ns = 0
    attach(machine, "w1", now_ns=time.time_ns())
    watching = await begun(plane)
    assert watching.workers["w1"].standing == fleet_pb2.STANDING_IDLE
    await watching.until(lambda: watching.workers["w1"].standing == fleet_pb2.STANDING_SUSPECT)
    watching.call.cancel()


async def test_watches_are_bounded_and_end_with_their_readers(plane, monkeypatch):
    monkeypatch.setattr(fleet_service, "WATCHES_MAX", 2)
    some = [await begun(plane), await begun(plane)]
    third = plane.fleet.WatchWorkers(fleet_pb2.WatchWorkersRequest())
    await refused(third.read(), grpc.StatusCode.RESOURCE_EXHAUSTED, "end one")
    for watching in some:
        watching.call.cancel()
    async with asyncio.timeout(WAIT_S):
        while plane.cell.onlookers:
            await asyncio.sleep(0.01)
    (await begun(plane)).call.cancel()


# Capabilities


async def capability(plane, name="echo"):
    return await plane.fleet.GetCapability(fleet_pb2.GetCapabilityRequest(name=name))


async def test_a_capability_is_shown_with_who_offers_it_and_what_waits(plane):
    machine = plane.cell.machine
    one = an_offer("echo", description="Says it.", input_schema=b"{}", output_schema=b"true", requires=("a disk",))
    attach(machine, "w1", offers=(one,), granted=1)
    attach(machine, "w2", offers=(an_offer("echo", version="1.1.0"), an_offer("sum")), granted=0)
    attach(machine, "w3", granted=1)
    detach(machine, "w3")
    plane.cell.submit(*(a_spec(number) for number in range(1, 4)))
    allocate(machine)
    shown = await capability(plane)
    assert [(item.version, item.workers) for item in shown.versions] == [("1.0.0", 2), ("1.1.0", 1)]
    assert (shown.pending, shown.running, shown.workers, shown.with_room) == (2, 1, 2, 0)
    assert (shown.allocation.strategy, shown.source) == ("least-loaded", fleet_pb2.ALLOCATION_SOURCE_DEFAULT)
    page = await plane.fleet.ListCapabilities(fleet_pb2.ListCapabilitiesRequest(limit=1))
    assert ([item.name for item in page.capabilities], page.next_cursor) == (["echo"], "echo")
    page = await plane.fleet.ListCapabilities(fleet_pb2.ListCapabilitiesRequest(limit=1, cursor="echo"))
    assert ([item.name for item in page.capabilities], page.next_cursor) == (["sum"], "")
    attach(machine, "w4", offers=(one,), granted=1)
    shown = await capability(plane)
    assert (shown.description, shown.input_schema, list(shown.requires)) == ("Says it.", b"{}", ["a disk"])


async def test_a_capability_that_nobody_knows(plane):
    await refused(capability(plane), grpc.StatusCode.NOT_FOUND, "name: ", "merit capability list")
    await invalid(capability(plane, ""), "name")
    plane.cell.submit(a_spec(1))
    assert (await capability(plane)).pending == 1


async def test_strategies_are_set_for_one_and_for_all(plane):
    async def allocate_by(**fields):
        await plane.fleet.SetAllocation(fleet_pb2.SetAllocationRequest(allocation=fleet_pb2.Allocation(**fields)))

    attach(plane.cell.machine)
    weights = [fleet_pb2.FigureWeight(name="load", permille=2_000)]
    await allocate_by(capability="echo", strategy="weighted", weights=weights)
    shown = await capability(plane)
    assert (shown.allocation.strategy, shown.source) == ("weighted", fleet_pb2.ALLOCATION_SOURCE_CAPABILITY)
    assert [(item.name, item.permille) for item in shown.allocation.weights] == [("load", 2_000)]
    await allocate_by(strategy="two-choices")
    await allocate_by(capability="echo")
    shown = await capability(plane)
    assert (shown.allocation.strategy, shown.source) == ("two-choices", fleet_pb2.ALLOCATION_SOURCE_SYSTEM)
    await refused(allocate_by(strategy="dice"), grpc.StatusCode.INVALID_ARGUMENT, "strategy", "two-choices")
    none_such = [fleet_pb2.FigureWeight(name="beauty", permille=1)]
    await refused(allocate_by(strategy="weighted", weights=none_such), grpc.StatusCode.INVALID_ARGUMENT, "beauty")
    for fields, field in (
        ({"capability": "x" * 201, "strategy": "direct"}, "allocation.capability"),
        ({"strategy": "x" * 201}, "allocation.strategy"),
        ({"weights": weights}, "allocation.strategy"),
        ({"strategy": "weighted", "weights": weights * 2}, "allocation.weights.name"),
        ({"strategy": "weighted", "weights": weights * 33}, "allocation.weights"),
        (
            {"strategy": "weighted", "weights": [fleet_pb2.FigureWeight(name="load", permille=2**31)]},
            "allocation.weights.permille",
        ),
    ):
        await invalid(allocate_by(**fields), field)


async def test_probes_are_checked_like_tasks(plane):
    async def admit(*probes, name="echo"):
        request = fleet_pb2.SetAdmissionRequest(
            capability=name, probes=[fleet_pb2.Probe(**fields) for fields in probes]
        )
        await plane.fleet.SetAdmission(request)

    schema = b'{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
    attach(plane.cell.machine, offers=(an_offer("echo", input_schema=schema),))
    await admit({"parameters": b'{"n": 1}', "expected": b"2"}, {"parameters": b'{"n": 2}', "run_timeout_ns": 5})
    assert plane.cell.state.admissions["echo"].probes == (Probe(b'{"n": 1}', b"2"), Probe(b'{"n": 2}', b"", 5))
    shown = await capability(plane)
    assert (shown.probe_count, shown.probes[0].expected, shown.probes[1].run_timeout_ns) == (2, b"2", 5)
    await admit()
    assert not plane.cell.state.admissions
    for probes, field in (
        ([{"parameters": b'{"n": 1}'}, {"parameters": b'{"n": "x"}'}], "probes[1].parameters.n"),
        ([{"parameters": b"{"}], "probes[0].parameters"),
        ([{"parameters": b'{"n": 1}', "expected": b"NaN"}], "probes[0].expected"),
        ([{"parameters": b'{"n": 1}', "run_timeout_ns": -1}], "probes[0].run_timeout_ns"),
        ([{"parameters": b'{"n": 1}'}] * (PROBES_MAX + 1), "probes"),
        ([{"parameters": b'{"n": 1}', "expected": b"1" * 300_000}], "probes"),
    ):
        await invalid(admit(*probes), field)
    await invalid(admit(name=""), "capability")


# Rollouts


async def test_a_rollout_is_started_shared_compared_and_ended(plane):
    machine = plane.cell.machine
    attach(machine, "old", offers=(an_offer("echo", version="1.0.0"),))
    attach(machine, "new", offers=(an_offer("echo", version="2.0.0"),))
    start = fleet_pb2.StartRolloutRequest(capability="echo", version="2.0.0", share_permille=1_000)
    await plane.fleet.StartRollout(start)
    plane.cell.submit(a_spec(1))
    allocate(machine)
    machine.now_ns += SECOND_NS
    say(machine, "new", reports=[completed(1, wall_ns=7)], now_ns=machine.now_ns)
    rollout = await plane.fleet.GetRollout(fleet_pb2.GetRolloutRequest(capability="echo"))
    assert (rollout.version, rollout.share_permille, rollout.state) == ("2.0.0", 1_000, RolloutState.RUNNING)
    assert (rollout.canary.completed, rollout.canary.took_ns, rollout.stable.completed) == (1, 7, 0)
    assert (rollout.canary_workers, rollout.stable_workers) == (1, 1)
    start.share_permille = 100
    await plane.fleet.StartRollout(start)
    assert (await capability(plane)).rollout.share_permille == 100
    await plane.fleet.EndRollout(fleet_pb2.EndRolloutRequest(capability="echo", promote=True))
    page = await plane.fleet.ListRollouts(fleet_pb2.ListRolloutsRequest())
    assert [(item.capability, item.state) for item in page.rollouts] == [("echo", fleet_pb2.ROLLOUT_STATE_PROMOTED)]
    assert not page.next_cursor
    start.only_running = True
    await refused(plane.fleet.StartRollout(start), grpc.StatusCode.FAILED_PRECONDITION, "PROMOTED")


async def test_rollouts_that_cannot_be(plane):
    get = plane.fleet.GetRollout(fleet_pb2.GetRolloutRequest(capability="echo"))
    await refused(get, grpc.StatusCode.NOT_FOUND, "merit rollout start echo")
    end = plane.fleet.EndRollout(fleet_pb2.EndRolloutRequest(capability="echo"))
    await refused(end, grpc.StatusCode.NOT_FOUND, "capability")
    for fields, field in (
        ({"version": "1.0.0"}, "capability"),
        ({"capability": "echo", "version": "one"}, "version"),
        ({"capability": "echo", "version": "1.0.0", "share_permille": 1_001}, "share_permille"),
    ):
        await invalid(plane.fleet.StartRollout(fleet_pb2.StartRolloutRequest(**fields)), field)


async def test_rollouts_come_in_pages(plane):
    for name in "abc":
        await plane.fleet.StartRollout(fleet_pb2.StartRolloutRequest(capability=name, version="1.0.0"))
    page = await plane.fleet.ListRollouts(fleet_pb2.ListRolloutsRequest(limit=2))
    assert ([item.capability for item in page.rollouts], page.next_cursor) == (["a", "b"], "b")
    page = await plane.fleet.ListRollouts(fleet_pb2.ListRolloutsRequest(limit=2, cursor="b"))
    assert ([item.capability for item in page.rollouts], page.next_cursor) == (["c"], "")


# Why


async def explained(plane, number=1, **fields):
    request = fleet_pb2.ExplainTaskRequest(task_id=an_id(number), **fields)
    return [step async for step in plane.fleet.ExplainTask(request)]


async def test_a_task_that_waits_is_explained_by_the_live_cell(plane):
    machine = plane.cell.machine
    attach(machine, "old", offers=(an_offer("echo", version="1.0.0"),))
    attach(machine, "new", offers=(an_offer("echo", version="2.0.0"),), granted=0)
    plane.cell.submit(a_spec(1, terms=Terms(demand=Demand(versions=">=2"))))
    allocate(machine)
    (step,) = await explained(plane)
    found = step.explanation
    assert (found.task_id, found.capability, found.chosen, found.strategy) == (an_id(1), "echo", "", "least-loaded")
    assert found.why
    reasons = {ruling.worker_id: " ".join(ruling.reasons) for ruling in found.rulings}
    assert "1.0.0" in reasons["old"]
    assert "no room" in reasons["new"]
    assert not any(ruling.fits for ruling in found.rulings)
    (step,) = await explained(plane, rulings_max=1)
    assert (len(step.explanation.rulings), step.explanation.left_out) == (1, 1)
    assert not plane.explainer.asked


async def test_one_that_was_given_to_somebody_is_explained_from_the_journal(plane):
    attach(plane.cell.machine)
    plane.cell.submit(a_spec(1))
    allocate(plane.cell.machine)
    ruling = Ruling("w1", True, ("why not",), (("load", 3), ("turn", 0)), 1)
    told = Explanation(an_id(1), 1, "echo", "d", "least-loaded", 5, "w1", True, (ruling,), 2, "it was given")
    plane.explainer.steps = [FoldedSoFar(1, 9), told]
    first, last = await explained(plane)
    assert (first.progress.sequence, first.progress.last) == (1, 9)
    assert plane.explainer.asked == [(an_id(1), 1, plane.cell.state.tasks[an_id(1)].attempts[0].assigned_ns, 100)]
    found = last.explanation
    assert (found.chosen, found.agrees, found.left_out, found.at_ns) == ("w1", True, 2, 5)
    (shown,) = found.rulings
    assert [(figure.name, figure.value) for figure in shown.figures] == [("load", 3), ("turn", 0)]
    assert (shown.worker_id, list(shown.reasons), shown.rank) == ("w1", ["why not"], 1)


async def test_what_cannot_be_explained_is_said(plane):
    attach(plane.cell.machine)
    plane.cell.submit(a_spec(1), a_spec(2, "nobody_offers"))
    allocate(plane.cell.machine)
    await refused(explained(plane, attempt=2), grpc.StatusCode.FAILED_PRECONDITION, "attempt: ", "it has 1")
    call = explained(plane, 2, attempt=1)
    await refused(call, grpc.StatusCode.FAILED_PRECONDITION, "never given to anybody (PENDING)")
    await refused(explained(plane, 3), grpc.StatusCode.NOT_FOUND, "task_id: ")
    await invalid(explained(plane, rulings_max=10_001), "rulings_max")
    bad = fleet_pb2.ExplainTaskRequest(task_id="yesterday")
    await invalid(plane.fleet.ExplainTask(bad).read(), "task_id")
    plane.explainer.steps = [CannotExplain("too long ago")]
    await refused(explained(plane), grpc.StatusCode.FAILED_PRECONDITION, "too long ago")
    plane.explainer.steps = [CannotExplain("many ask", busy=True)]
    await refused(explained(plane), grpc.StatusCode.RESOURCE_EXHAUSTED, "many ask")
    plane.old = JournalError("record 7 is damaged")
    call = plane.fleet.ExplainTask(fleet_pb2.ExplainTaskRequest(task_id=new_id()))
    await refused(call.read(), grpc.StatusCode.UNAVAILABLE, "record 7 is damaged")


async def test_one_that_the_cell_has_forgotten_is_looked_for_in_the_journal(plane):
    attach(plane.cell.machine)
    plane.cell.submit(a_spec(1))
    allocate(plane.cell.machine)
    plane.old = plane.cell.state.tasks[an_id(1)]
    plane.explainer.steps = [FoldedSoFar(1, 1)]
    assert len([step async for step in plane.fleet.ExplainTask(fleet_pb2.ExplainTaskRequest(task_id=new_id()))]) == 1
    assert plane.explainer.asked[0][:2] == (an_id(1), 1)
