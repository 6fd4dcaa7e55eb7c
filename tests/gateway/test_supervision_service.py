"""How the fleet is supervised is set and asked for over gRPC, and what people decide; what cannot be is refused with its
field."""

import grpc
import pytest
import pytest_asyncio

from merit.core.codec import encode_event
from merit.core.supervising import SUPERVISION
from merit.model.commands import JudgeWorker
from merit.model.events import CircuitChanged, QueuePaused, WorkerJudged, WorkerPaused, WorkerRated
from merit.model.limits import SECOND_NS
from merit.model.record import NO_HASH, seal
from merit.model.supervision import (
    FACTOR_MAX,
    FACTOR_MIN,
    SCORE_MAX,
    Circuit,
    CircuitState,
    Conduct,
    Judgement,
    Objective,
    Point,
    Policy,
    Stage,
    Verdict,
)
from merit.model.track_record import Rating
from merit.testing.builders import PRINCIPAL, TENANT, attach, tell
from merit.wire.supervision import POLICY_FIELDS, decode_policy, encode_policy
from merit.wire.v1 import fleet_pb2, supervision_pb2, tasks_pb2
from tests.gateway.operated import operated
from tests.gateway.test_operating import invalid, refused

WHOLE = Policy(
    engine="adaptive",
    scoring="reference",
    reputation="simple",
    every_ns=SECOND_NS,
    reward_at=90_000,
    punish_at=40_000,
    reward_permille=50,
    punish_permille=200,
    pause_after=2,
    pause_below=600,
    pause_ns=2 * SECOND_NS,
    pauses_max=4,
    recover_points=10_000,
    canaries=5,
    cool_down_ns=4 * SECOND_NS,
    attempts_min=6,
    trusted_at=800,
    trusted_attempts=30,
    weights=(("errors", 1_000), ("time", 0)),
    circuit_failures=7,
    circuit_share=400,
    circuit_window=30,
    circuit_open_ns=5 * SECOND_NS,
    circuit_open_ns_max=6 * SECOND_NS,
    circuit_probes=2,
)
Wire = supervision_pb2.SupervisionPolicy


def weights(**millipoints):
    return supervision_pb2.ScoreWeights(
        weights=[supervision_pb2.ScoreWeight(name=name, millipoints=number) for name, number in millipoints.items()]
    )


@pytest_asyncio.fixture
async def plane():
    async with operated() as guest:
        yield guest


async def set_(plane, anew=False, **fields):
    request = supervision_pb2.SetSupervisionRequest(policy=Wire(**fields), anew=anew)
    await plane.supervision.SetSupervision(request)


async def judge(plane, verdict, worker_id="w1", **fields):
    request = supervision_pb2.JudgeWorkerRequest(worker_id=worker_id, verdict=verdict, **fields)
    await plane.supervision.JudgeWorker(request)


# What is set


def test_every_field_has_its_own_and_survives_the_wire():
    assert all(getattr(WHOLE, name) != getattr(Policy(), name) for name in Policy.__struct_fields__)
    assert decode_policy(encode_policy(WHOLE, WHOLE.weights), Policy()) == WHOLE
    wire = {field.name for field in Wire.DESCRIPTOR.fields}
    assert {*POLICY_FIELDS.values(), "weights"} == wire


async def test_what_is_given_changes_and_the_rest_stays(plane):
    await set_(plane, punish_at_millipoints=40_000, weights=weights(errors=99_000))
    await set_(plane, pause_ns=7 * SECOND_NS)
    set_now = Policy(punish_at=40_000, pause_ns=7 * SECOND_NS, weights=(("errors", 99_000),))
    assert plane.cell.state.policy == set_now
    told = await plane.supervision.GetSupervision(supervision_pb2.GetSupervisionRequest())
    assert told.policy.punish_at_millipoints == 40_000
    shown = {weight.name: weight.millipoints for weight in told.policy.weights.weights}
    assert (shown["errors"], shown["quality"]) == (99_000, 300_000)
    assert list(told.engines) == ["adaptive", "threshold"]
    assert list(told.scorings) == ["reference", "relative"]
    assert list(told.reputations) == ["beta", "simple"]
    await set_(plane, scoring="reference")
    assert plane.cell.state.policy.weights == (), "another scoring has other weights"
    await set_(plane, anew=True, canaries=4)
    assert plane.cell.state.policy == Policy(canaries=4)


async def test_plug_ins_that_have_failed_are_named(plane):
    plane.cell.desk.panel.troubles["mine"] = "ValueError: no"
    try:
        told = await plane.supervision.GetSupervision(supervision_pb2.GetSupervisionRequest())
    finally:
        plane.cell.desk.panel.troubles.clear()
    assert list(told.troubles) == ["mine: ValueError: no"]


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("policy.engine", {"engine": ""}),
        ("engine", {"engine": "guess"}),
        ("scoring", {"scoring": "guess"}),
        ("reputation", {"reputation": "guess"}),
        ("policy.every_ns", {"every_ns": 0}),
        ("policy.every_ns", {"every_ns": -1}),
        ("policy.reward_at_millipoints", {"reward_at_millipoints": SCORE_MAX + 1}),
        ("policy.punish_at_millipoints", {"punish_at_millipoints": SCORE_MAX + 1}),
        ("policy.punish_at_millipoints", {"punish_at_millipoints": 85_000}),
        ("policy.reward_permille", {"reward_permille": 1_001}),
        ("policy.punish_permille", {"punish_permille": 1_001}),
        ("policy.pause_after", {"pause_after": 0}),
        ("policy.pause_below_permille", {"pause_below_permille": FACTOR_MAX + 1}),
        ("policy.pause_ns", {"pause_ns": 0}),
        ("policy.pauses_max", {"pauses_max": 0}),
        ("policy.recover_millipoints", {"recover_millipoints": SCORE_MAX + 1}),
        ("policy.canaries", {"canaries": 0}),
        ("policy.cool_down_ns", {"cool_down_ns": 0}),
        ("policy.attempts_min", {"attempts_min": 0}),
        ("policy.trusted_at_permille", {"trusted_at_permille": 1_001}),
        ("policy.trusted_attempts", {"trusted_attempts": 2**31}),
        ("policy.circuit_failures", {"circuit_failures": 0}),
        ("policy.circuit_share_permille", {"circuit_share_permille": 1_001}),
        ("policy.circuit_window", {"circuit_window": 51}),
        ("policy.circuit_open_ns", {"circuit_open_ns": 0}),
        ("policy.circuit_open_ns", {"circuit_open_ns": 3_601 * SECOND_NS}),
        ("policy.circuit_probes", {"circuit_probes": 0}),
        ("policy.weights", {"weights": weights(beauty=1)}),
        ("policy.weights.errors", {"weights": weights(errors=10**9)}),
    ],
)
async def test_what_cannot_be_is_refused_with_its_field(plane, field, given):
    await invalid(set_(plane, **given), field)
    assert plane.cell.state.policy == Policy()


async def test_a_weight_stands_once(plane):
    twice = supervision_pb2.ScoreWeights(weights=[supervision_pb2.ScoreWeight(name="errors", millipoints=1)] * 2)
    await invalid(set_(plane, weights=twice), "policy.weights", "twice")


async def test_objectives_are_set_listed_and_ended(plane):
    for name in ("c", "a", "b"):
        objective = supervision_pb2.Objective(capability=name, share_permille=990, within_ns=SECOND_NS)
        await plane.supervision.SetObjective(supervision_pb2.SetObjectiveRequest(objective=objective))
    assert plane.cell.state.objectives["a"] == Objective("a", 990, SECOND_NS)
    found, cursor = [], ""
    while True:
        request = supervision_pb2.ListObjectivesRequest(limit=2, cursor=cursor)
        page = await plane.supervision.ListObjectives(request)
        found += [one.capability for one in page.objectives]
        cursor = page.next_cursor
        if not cursor:
            break
    assert found == ["a", "b", "c"]
    await plane.supervision.SetObjective(
        supervision_pb2.SetObjectiveRequest(objective=supervision_pb2.Objective(capability="a"))
    )
    assert "a" not in plane.cell.state.objectives
    await invalid(plane.supervision.ListObjectives(supervision_pb2.ListObjectivesRequest(cursor="x" * 201)), "cursor")


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("objective.capability", {"capability": ""}),
        ("objective.share_permille", {"share_permille": 1_001}),
        ("objective.within_ns", {"within_ns": -1}),
        ("objective.window_ns", {"window_ns": 1}),
    ],
)
async def test_an_objective_that_cannot_be_is_refused(plane, field, given):
    objective = supervision_pb2.Objective(**{"capability": "a", "share_permille": 990, **given})
    await invalid(plane.supervision.SetObjective(supervision_pb2.SetObjectiveRequest(objective=objective)), field)


# What people decide


async def test_a_person_pins_unpins_and_pardons(plane):
    attach(plane.cell.machine)
    await judge(plane, supervision_pb2.VERDICT_PIN, factor_permille=1_500, reason="proven elsewhere")
    conduct = plane.cell.state.profiles["w1"].conduct
    assert (conduct.factor, conduct.pinned, conduct.judgements[-1].reason) == (1_500, True, "proven elsewhere")
    await judge(plane, supervision_pb2.VERDICT_UNPIN)
    assert not conduct.pinned
    await refused(judge(plane, supervision_pb2.VERDICT_UNPIN), grpc.StatusCode.FAILED_PRECONDITION, "not pinned")
    await judge(plane, supervision_pb2.VERDICT_PARDON, undoes=conduct.judgements[0].sequence)
    assert conduct.judgements[0].undone
    nothing = judge(plane, supervision_pb2.VERDICT_PARDON, undoes=1)
    await refused(nothing, grpc.StatusCode.NOT_FOUND, "undoes: ", "that hold")
    nobody = judge(plane, supervision_pb2.VERDICT_PARDON, "nobody")
    await refused(nobody, grpc.StatusCode.NOT_FOUND, "worker: ", "nobody")


@pytest.mark.parametrize(
    ("field", "verdict", "given"),
    [
        ("worker_id", Verdict.PARDON, {"worker_id": ""}),
        ("verdict", 0, {}),
        ("verdict", Verdict.PUNISH, {}),
        ("verdict", 99, {}),
        ("factor_permille", Verdict.PIN, {"factor_permille": FACTOR_MIN - 1}),
        ("factor_permille", Verdict.PIN, {"factor_permille": FACTOR_MAX + 1}),
        ("factor_permille", Verdict.PARDON, {"factor_permille": 1_000}),
        ("undoes", Verdict.PARDON, {"undoes": 2**63}),
        ("undoes", Verdict.PIN, {"undoes": 7}),
        ("reason", Verdict.PARDON, {"reason": "x" * 100_000}),
    ],
)
async def test_an_order_that_cannot_be_is_refused_with_its_field(plane, field, verdict, given):
    attach(plane.cell.machine)
    await invalid(judge(plane, int(verdict), **given), field)
    assert not plane.cell.commands


# What is told


def judged(state):
    """A worker about which everything was decided that there is to be told."""
    conduct = state.profiles["w1"].conduct
    judgement = Judgement(7, 3, Verdict.PUNISH, 900, 40_500, SUPERVISION, "slow", (("score", 40_500),))
    state.profiles["w1"].conduct = Conduct(
        factor=900,
        score=40_500,
        rating=Rating(500, 400, 600),
        rated_ns=3,
        punishments=1,
        stage=Stage.PROBATION,
        since_ns=5,
        trusted=True,
        circuit=Circuit(CircuitState.OPEN, 9 * SECOND_NS, 2),
        judgements=(judgement,),
        points=(Point(3, 40_500, 900, 400),),
    )
    assert conduct == Conduct()


async def test_a_worker_is_told_with_how_it_stands(plane):
    attach(plane.cell.machine)
    judged(plane.cell.state)
    told = await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id="w1"))
    conduct = told.conduct
    assert (conduct.factor_permille, conduct.score_millipoints, conduct.punishments) == (900, 40_500, 1)
    assert conduct.reputation == supervision_pb2.Rating(value_permille=500, low_permille=400, high_permille=600)
    assert conduct.stage == supervision_pb2.STAGE_PROBATION
    assert conduct.circuit == supervision_pb2.Circuit(
        state=supervision_pb2.CIRCUIT_STATE_OPEN, until_ns=9 * SECOND_NS, openings=2
    )
    assert list(conduct.privileges) == ["merit.trusted"]
    (judgement,) = conduct.judgements
    assert (judgement.sequence, judgement.verdict, judgement.reason) == (7, supervision_pb2.VERDICT_PUNISH, "slow")
    assert [(figure.name, figure.value) for figure in judgement.figures] == [("score", 40_500)]
    assert [(point.at_ns, point.reputation_permille) for point in conduct.points] == [(3, 400)]
    assert any("breaker is open" in liberty for liberty in conduct.liberties)
    assert conduct.HasField("metrics")
    (listed,) = (await plane.fleet.ListWorkers(fleet_pb2.ListFleetRequest())).workers
    assert listed.conduct.factor_permille == 900
    assert not any((listed.conduct.judgements, listed.conduct.points, listed.conduct.liberties))


async def test_one_that_was_never_rated_has_no_score(plane):
    attach(plane.cell.machine)
    told = await plane.fleet.GetWorker(fleet_pb2.GetWorkerRequest(id="w1"))
    assert not told.conduct.HasField("score_millipoints")
    assert not told.offers[0].HasField("reputation")


async def test_the_status_counts_those_that_do_not_get_all(plane):
    for name in ("w1", "w2", "w3"):
        attach(plane.cell.machine, name)
    judged(plane.cell.state)
    plane.cell.state.profiles["w2"].conduct.stage = Stage.PAUSED
    told = await plane.tasks.GetStatus(tasks_pb2.GetStatusRequest())
    assert (told.workers_punished, told.workers_paused, told.breakers_open) == (1, 1, 1)


# What is in the journal


def written(plane, *events, first=1):
    record = seal("still", first, 1, "leader", 42, NO_HASH, [encode_event(event) for event in events], [])
    plane.disk.store(record)


async def decision(plane, sequence):
    return await plane.supervision.GetDecision(supervision_pb2.GetDecisionRequest(sequence=sequence))


async def test_a_decision_is_told_from_the_journal_with_what_it_went_by_and_what_followed(plane):
    written(
        plane,
        WorkerRated("w1", 30_000, Rating(100, 50, 200), ()),
        WorkerRated("w2", 90_000, Rating(900, 800, 950), ()),
        WorkerJudged("w1", SUPERVISION, Verdict.PUNISH, 400, "late", (("score", 30_000),)),
        WorkerJudged("w1", SUPERVISION, Verdict.PAUSE, 400, "late again"),
        WorkerPaused("w2", PRINCIPAL, "lunch"),
        WorkerPaused("w1", SUPERVISION, "late again"),
        CircuitChanged("w1", Circuit(CircuitState.OPEN, 99, 1), "5 of 5 failed"),
        QueuePaused("echo", PRINCIPAL, ""),
    )
    punished, paused, opened = [await decision(plane, sequence) for sequence in (3, 4, 7)]
    judgement = punished.judgement
    assert (punished.worker_id, judgement.at_ns, judgement.verdict) == ("w1", 42, supervision_pb2.VERDICT_PUNISH)
    assert (judgement.factor_permille, judgement.score_millipoints, judgement.reason) == (400, 30_000, "late")
    assert punished.reputation.low_permille == 50
    assert list(punished.followed) == []
    assert list(paused.followed) == ["it was paused"]
    assert (opened.circuit.until_ns, opened.judgement.reason) == (99, "5 of 5 failed")
    assert opened.judgement.verdict == supervision_pb2.VERDICT_UNSPECIFIED


async def test_whether_it_holds_is_known_as_long_as_the_worker_remembers_it(plane):
    attach(plane.cell.machine)
    tell(plane.cell.machine, JudgeWorker, "w1", Verdict.PIN, "mine", 700)
    (judgement,) = plane.cell.state.profiles["w1"].conduct.judgements
    tell(plane.cell.machine, JudgeWorker, "w1", Verdict.PARDON, "no", 0, judgement.sequence)
    event = WorkerJudged("w1", PRINCIPAL, Verdict.PIN, 700, "mine")
    written(plane, *[QueuePaused("echo", TENANT, "")] * (judgement.sequence - 1), event)
    assert (await decision(plane, judgement.sequence)).judgement.undone


async def test_what_is_no_decision_is_said_to_be_none(plane):
    await invalid(decision(plane, 0), "sequence")
    await refused(decision(plane, 1), grpc.StatusCode.NOT_FOUND, "the journal is empty")
    written(plane, QueuePaused("echo", PRINCIPAL, ""))
    await refused(decision(plane, 1), grpc.StatusCode.NOT_FOUND, "no decision about a worker (QueuePaused)")
    await refused(decision(plane, 2), grpc.StatusCode.NOT_FOUND, "events 1 to 1")
