"""What operators set and decide about supervision, as it goes over the wire, and what comes back."""

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from merit import AsyncClient, Client
from merit.sdk.fleet_views import fleet_worker_view
from merit.sdk.supervision import SupervisionArguments, decision_view, policy_message, supervision_view
from merit.wire.v1 import fleet_pb2, supervision_pb2
from tests.sdk.scripted_plane import ScriptedPlane, a_scripted_plane

pytestmark = pytest.mark.timeout(30)

WHOLE: dict[str, Any] = {
    "engine": "adaptive",
    "scoring": "reference",
    "reputation": "simple",
    "every_s": 0.5,
    "reward_at": 90.5,
    "punish_at": 40.0,
    "reward": 0.05,
    "punish": 0.2,
    "pause_after": 2,
    "pause_below": 0.6,
    "pause_s": 2.0,
    "pauses_max": 4,
    "recover": 10.0,
    "canaries": 5,
    "cool_down_s": 4.0,
    "attempts_min": 6,
    "trusted_at": 0.8,
    "trusted_attempts": 30,
    "weights": {"errors": 1.5},
    "circuit_failures": 7,
    "circuit_share": 0.4,
    "circuit_window": 30,
    "circuit_open_s": 5.0,
    "circuit_open_s_max": 6.0,
    "circuit_probes": 2,
}


@pytest_asyncio.fixture
async def scripted():
    async with a_scripted_plane() as (plane, address):
        plane.answers["JudgeWorker"] = lambda _: supervision_pb2.JudgeWorkerResponse()
        plane.answers["SetSupervision"] = lambda _: supervision_pb2.SetSupervisionResponse()
        plane.answers["SetObjective"] = lambda _: supervision_pb2.SetObjectiveResponse()
        yield plane, address


@pytest_asyncio.fixture
async def fleet(scripted):
    """The operations of a client that is connected."""
    async with AsyncClient(scripted[1], connect_timeout_s=5) as merit:
        yield merit.operations.fleet


def asked(plane: ScriptedPlane, call: str) -> list[Any]:
    """All questions of this name."""
    return [request for name, request, _ in plane.asked if name == call]


# How it is supervised


def test_each_setting_has_a_name_a_unit_and_a_field():
    assert set(WHOLE) == set(SupervisionArguments.__annotations__)
    message = policy_message(WHOLE)
    assert all(message.HasField(field.name) for field in message.DESCRIPTOR.fields)  # type: ignore[arg-type]  # its own names
    assert (message.every_ns, message.reward_at_millipoints, message.reward_permille) == (500_000_000, 90_500, 50)
    assert (message.pause_below_permille, message.circuit_open_ns_max) == (600, 6_000_000_000)
    view = supervision_view(supervision_pb2.SupervisionReport(policy=message, engines=["e"], troubles=["t"]))
    assert {name: view[name] for name in WHOLE} == WHOLE
    assert (view["engines"], view["scorings"], view["troubles"]) == (["e"], [], ["t"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speed", 1),
        ("engine", 3),
        ("engine", "\ud800"),
        ("reward_at", "many"),
        ("reward_at", -1.0),
        ("reward_at", float("nan")),
        ("pause_s", float("inf")),
        ("canaries", 1.5),
        ("canaries", True),
        ("canaries", 2**40),
        ("trusted_at", 2**31 - 1),
        ("weights", {"errors": -1}),
    ],
)
def test_what_cannot_be_sent_is_said(name, value):
    with pytest.raises(ValueError, match=f"^{name}"):
        policy_message({name: value})


async def test_what_is_given_is_set(scripted, fleet):
    plane, _ = scripted
    await fleet.set_supervision(punish_at=40.0)
    await fleet.set_supervision(anew=True)
    first, second = asked(plane, "SetSupervision")
    assert first.policy == supervision_pb2.SupervisionPolicy(punish_at_millipoints=40_000)
    assert (first.anew, second.anew) == (False, True)


async def test_objectives_are_set_and_listed(scripted, fleet):
    plane, _ = scripted
    await fleet.set_objective("c", 0.99, within_s=1.5)
    (request,) = asked(plane, "SetObjective")
    sent = supervision_pb2.Objective(
        capability="c", share_permille=990, within_ns=1_500_000_000, window_ns=3_600_000_000_000
    )
    assert request.objective == sent
    plane.answers["ListObjectives"] = lambda _: supervision_pb2.ListObjectivesResponse(objectives=[sent])
    told = {"capability": "c", "share": 0.99, "within_s": 1.5, "window_s": 3_600.0}
    assert await fleet.objectives() == [told]
    for fields in ({"within_s": -1.0}, {"window_s": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            await fleet.set_objective("c", 0.5, **fields)


# What a person decides


async def test_orders_about_a_worker(scripted, fleet):
    plane, _ = scripted
    await fleet.pardon_worker("w", "sorry")
    await fleet.undo("w", 7)
    await fleet.pin_worker("w", 1.5)
    await fleet.pin_worker("w")
    await fleet.unpin_worker("w")
    Order = supervision_pb2.JudgeWorkerRequest  # noqa: N806  (a class)
    assert asked(plane, "JudgeWorker") == [
        Order(worker_id="w", verdict=supervision_pb2.VERDICT_PARDON, reason="sorry"),
        Order(worker_id="w", verdict=supervision_pb2.VERDICT_PARDON, undoes=7),
        Order(worker_id="w", verdict=supervision_pb2.VERDICT_PIN, factor_permille=1_500),
        Order(worker_id="w", verdict=supervision_pb2.VERDICT_PIN),
        Order(worker_id="w", verdict=supervision_pb2.VERDICT_UNPIN),
    ]
    for work in (fleet.undo("w", 0), fleet.decision(-1)):
        with pytest.raises(ValueError, match="decision: "):
            await work
    for factor in (0.0, -1.0):
        with pytest.raises(ValueError, match="factor: "):
            await fleet.pin_worker("w", factor)


async def test_without_a_loop_it_is_the_same(scripted):
    plane, address = scripted
    answer = supervision_pb2.SupervisionDecision(worker_id="w", judgement=supervision_pb2.Judgement(sequence=7))
    plane.answers["GetDecision"] = lambda _: answer
    plane.answers["GetSupervision"] = lambda _: supervision_pb2.SupervisionReport(engines=["e"])
    plane.answers["ListObjectives"] = lambda _: supervision_pb2.ListObjectivesResponse()

    def work():
        with Client(address) as merit:
            fleet = merit.operations.fleet
            fleet.pardon_worker("w")
            fleet.undo("w", 7)
            fleet.pin_worker("w", 0.5)
            fleet.unpin_worker("w")
            fleet.set_supervision(canaries=2)
            fleet.set_objective("c", 0.5)
            return fleet.decision(7)["worker"], fleet.supervision()["engines"], fleet.objectives()

    assert await asyncio.to_thread(work) == ("w", ["e"], [])
    assert len(asked(plane, "JudgeWorker")) == 4


# What is told


def test_how_a_worker_stands_is_told():
    conduct = supervision_pb2.Conduct(
        factor_permille=900,
        score_millipoints=40_500,
        reputation=supervision_pb2.Rating(value_permille=500, low_permille=400, high_permille=600),
        stage=supervision_pb2.STAGE_PAUSED,
        since_ns=10**18,
        circuit=supervision_pb2.Circuit(state=supervision_pb2.CIRCUIT_STATE_OPEN, until_ns=10**18, openings=2),
        privileges=["merit.trusted"],
        judgements=[
            supervision_pb2.Judgement(
                sequence=7,
                verdict=supervision_pb2.VERDICT_PUNISH,
                factor_permille=900,
                score_millipoints=40_500,
                figures=[supervision_pb2.JudgedBy(name="score", value=40_500)],
            )
        ],
        points=[supervision_pb2.StandingPoint(at_ns=10**18, score_millipoints=40_500, factor_permille=900)],
        metrics=supervision_pb2.WorkerMetrics(attempts=4, error_permille=250, mean_ns=10**9, quality_permille=1_000),
    )
    view = fleet_worker_view(fleet_pb2.FleetWorker(id="w", conduct=conduct))
    assert (view["score"], view["factor"], view["stage"]) == (40.5, 0.9, "PAUSED")
    assert view["reputation"] == {"value": 0.5, "low": 0.4, "high": 0.6}
    assert view["circuit"] == {"state": "OPEN", "until": "2001-09-09T01:46:40.000Z", "openings": 2}
    (decision,) = view["decisions"]
    assert (decision["decision"], decision["verdict"], decision["figures"]) == (7, "PUNISH", {"score": 40_500})
    assert view["history"][0]["factor"] == 0.9
    assert (view["metrics"]["error_rate"], view["metrics"]["p95_s"], view["metrics"]["quality"]) == (0.25, None, None)


def test_of_one_that_is_long_gone_nothing_is_known():
    view = fleet_worker_view(fleet_pb2.FleetWorker(id="w"))
    assert {view[name] for name in ("score", "factor", "stage", "pinned")} == {None}


def test_a_decision_of_a_breaker_has_no_verdict():
    message = supervision_pb2.SupervisionDecision(
        worker_id="w",
        judgement=supervision_pb2.Judgement(sequence=7, reason="5 of 5 failed"),
        circuit=supervision_pb2.Circuit(state=supervision_pb2.CIRCUIT_STATE_HALF_OPEN),
    )
    view = decision_view(message)
    assert (view["verdict"], view["circuit"]["state"], view["reason"]) == (None, "HALF_OPEN", "5 of 5 failed")
    assert (view["circuit"]["until"], view["undoes"], view["reputation"]) == (None, None, None)
