"""What becomes of workers by their record: how they are rated, and what is decided about them.

Every few seconds those with news are rated: what the fold has counted is turned into a reputation for each capability and a
score. The decision engine has an opinion about that, ``merit.supervision.sanctions`` says what follows, and here it is
carried out, with the means that operators have as well. Only what cannot wait is looked at as it happens: a breaker, and
those who are on probation.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import Final

from merit.auditing.evidence import Outcomes
from merit.auditing.reputation import overall
from merit.core.allocating import rate
from merit.core.desk import Desk
from merit.core.governing import find, pause, remove, resume, say
from merit.core.noting import SUPERVISE_KEY, reached_permille
from merit.model.commands import JudgeWorker, SetObjective, SetSupervision
from merit.model.events import CircuitChanged, ObjectiveSet, SupervisionSet, WorkerJudged, WorkerRated
from merit.model.limits import CAPABILITIES_MAX, MILLISECOND_NS, WORDS_MAX
from merit.model.supervision import (
    CLOSED,
    FACTOR_MAX,
    FACTOR_MIN,
    FACTOR_ONE,
    Circuit,
    CircuitState,
    Conduct,
    Stage,
    Verdict,
)
from merit.model.tasks import Refusal
from merit.model.track_record import EndedAttempt, Ending
from merit.model.workers import Profile, WorkerState
from merit.supervision import breaker
from merit.supervision.engine import FleetFigures, Subject
from merit.supervision.metrics import PERMILLE, Metrics, metrics_of
from merit.supervision.sanctions import FRESH, Dossier, Sanction, sanctions, wait_ns

SUPERVISION: Final = "merit.supervision"
"""The principal that decides where no person does."""
_ROUND_MAX: Final = 64
"""Workers that are rated in one batch …"""
_REST_NS: Final = 20 * MILLISECOND_NS
"""… and how long those behind them wait at least, so that tasks go on meanwhile."""
_WORDS: Final = {Verdict.RESET: "RESET", Verdict.RETRAIN: "RETRAIN"}
_TURNS: Final = FRESH | {Verdict.REWARD, Verdict.PUNISH}
"""What an engine may know of as having been decided last."""


# As it happens


def consider(desk: Desk) -> None:
    """Look at the workers whose attempts have just ended in a way that cannot wait."""
    suspects, desk.suspects = desk.suspects, {}
    for worker, outcomes in suspects.items():
        profile = desk.state.profiles.get(worker)
        if profile is None:
            continue
        desk.cursor = worker
        circuit = profile.conduct.circuit
        endings = _apart(_endings(profile))
        for number, well in enumerate(outcomes, start=len(endings) - len(outcomes) + 1):
            circuit = breaker.after(circuit, endings[: max(1, number)], well, desk.state.policy, desk.now_ns)
        opens = circuit.state is CircuitState.OPEN
        # Where nobody else is left, to wait would help no task.
        if circuit != profile.conduct.circuit and not (opens and _only_for(desk, profile)):
            _switch(desk, profile, f"{outcomes.count(False)} of its last {len(outcomes)} attempts failed", circuit)
        if profile.conduct.stage is Stage.PROBATION:
            _look_at(desk, profile)


def _apart(endings: list[EndedAttempt]) -> list[EndedAttempt]:
    """Attempts that were lost together, with their worker, as one: it may have been at many when it stopped once."""
    return [
        ended
        for before, ended in zip([None, *endings], endings, strict=False)
        if before is None
        or ended.ending is not Ending.LOST
        or before.ending is not Ending.LOST
        or before.ended_ns != ended.ended_ns
    ]


def _switch(desk: Desk, profile: Profile, reason: str, circuit: Circuit) -> None:
    desk.emit(CircuitChanged(profile.worker, circuit, reason))
    watch(desk, profile)
    rate(desk, profile.worker)


def watch(desk: Desk, profile: Profile) -> None:
    """Let the desk know what is special about a worker: that it matters what it does next, or that something becomes due."""
    conduct = profile.conduct
    due = []
    if conduct.stage is Stage.PAUSED:
        # First it may be taken back if its score is good enough, then it may prove itself.
        early_ns = conduct.since_ns + desk.state.policy.pause_ns
        full_ns = conduct.since_ns + wait_ns(dossier_of(desk, profile), desk.state.policy, desk.now_ns)
        due.append(early_ns if early_ns > desk.now_ns else full_ns)
    if conduct.circuit.state is CircuitState.OPEN:
        due.append(conduct.circuit.until_ns)
    if due:
        due_ns, now_ns = min(due), desk.now_ns
        # What could not be done when it was due (it is draining, say) is tried again later.
        desk.timers.arm(
            SUPERVISE_KEY + profile.worker, due_ns if due_ns > now_ns else now_ns + desk.state.policy.every_ns
        )
    else:
        desk.timers.disarm(SUPERVISE_KEY + profile.worker)
    if conduct.stage is Stage.PROBATION or conduct.circuit != CLOSED:
        desk.tried.add(profile.worker)
    else:
        desk.tried.discard(profile.worker)


def recall_conduct(desk: Desk) -> None:
    """A new leader: who has news, who is being tried, and what is due."""
    for profile in desk.state.profiles.values():
        conduct = profile.conduct
        if conduct.stage is not Stage.ACTIVE or conduct.circuit != CLOSED:
            watch(desk, profile)
        if any(record.counted != record.counts for record in profile.records.values()):
            desk.news[profile.worker] = None
    if desk.news:
        desk.timers.arm(SUPERVISE_KEY, desk.now_ns + desk.state.policy.every_ns)


# Now and then


def supervise_due(desk: Desk, worker: str) -> None:
    """It is time for a round, or for what is due for a worker."""
    if worker:
        profile = desk.state.profiles.get(worker)
        if profile is not None:
            _look_at(desk, profile)
        return
    for name in list(islice(desk.news, _ROUND_MAX)):
        del desk.news[name]
        profile = desk.state.profiles.get(name)
        if profile is not None:
            desk.cursor = name
            _rate(desk, profile)
            _look_at(desk, profile)
    if desk.news:
        desk.timers.arm(SUPERVISE_KEY, desk.now_ns + _REST_NS)


def _endings(profile: Profile) -> list[EndedAttempt]:
    """Its last attempts at whatever, in the order in which they ended."""
    records = profile.records.values()
    if len(records) == 1:
        return [ended for record in records for ended in record.endings()]
    return sorted(chain.from_iterable(record.endings() for record in records), key=lambda ended: ended.ended_ns)


def _rate(desk: Desk, profile: Profile) -> None:
    """Turn what was counted since the last time into reputations and a score."""
    policy = desk.state.policy
    panel, ratings = desk.panel, []
    for capability, record in profile.records.items():
        counts = record.counts
        if counts == record.counted:
            continue
        before = record.counted or (0,) * len(counts)
        completed, failed, rejected, slow, passed, wrong = (a - b for a, b in zip(counts, before, strict=True))
        evidence = Outcomes(
            completed=completed, failed=failed, rejected=rejected, slow=slow, passed=passed, wrong=wrong
        )
        memory, rating = panel.learn(policy, record.memory, evidence)
        ratings.append((capability, rating, memory))
    fresh = {capability: rating for capability, rating, _ in ratings}
    over_all = overall(
        [(fresh.get(name, record.rating), sum(record.counts[:3])) for name, record in profile.records.items()]
    )
    score = panel.score(policy, metrics(desk, profile))
    desk.emit(WorkerRated(profile.worker, score, over_all, tuple(ratings)))
    # Strategies go by it.
    rate(desk, profile.worker)


def metrics(desk: Desk, profile: Profile) -> Metrics:
    """What the last attempts of a worker come to, over all its capabilities; of one that was taken back, those since then."""
    records = profile.records.values()
    since_ns = profile.conduct.fresh_ns
    return metrics_of(
        [ended for ended in _endings(profile) if ended.ended_ns >= since_ns],
        desk.now_ns,
        passed=sum(record.passed for record in records),
        wrong=sum(record.wrong for record in records),
        lateness_permille=_lateness_permille(desk, profile),
        life_completed=profile.completed,
        life_failed=profile.failed,
    )


def _lateness_permille(desk: Desk, profile: Profile) -> int:
    """How long its attempts take beside what those of the same capabilities took lately, by whomever."""
    took_ns = usual_ns = 0
    for capability, record in profile.records.items():
        usual = desk.usual_ns.get(capability, 0)
        if usual and record.attempts:
            took_ns += record.took_ns * record.attempts
            usual_ns += usual * record.attempts
    return PERMILLE * took_ns // usual_ns if usual_ns else PERMILLE


def fleet_of(desk: Desk) -> FleetFigures:
    """What an engine may know of the others; looked at once a round."""
    if desk.others is not None and desk.others[0] + desk.state.policy.every_ns > desk.now_ns:
        return desk.others[1]
    state = desk.state
    conducts = [state.profiles[name].conduct for name in state.workers if name in state.profiles]
    concurrency = sum(worker.concurrency for worker in state.workers.values())
    live = sum(min(len(worker.attempts), worker.concurrency) for worker in state.workers.values())
    fleet = FleetFigures(
        scores=tuple(sorted(conduct.score for conduct in conducts if conduct.rated_ns)),
        load_permille=PERMILLE * live // concurrency if concurrency else 0,
        backlog=desk.backlog.size,
        objectives=tuple(
            (objective, reached)
            for name, objective in sorted(state.objectives.items())
            if (reached := reached_permille(desk, objective)) is not None
        ),
    )
    desk.others = (desk.now_ns, fleet)
    return fleet


# What is decided


def _look_at(desk: Desk, profile: Profile) -> None:
    """Try it again if it is time to, ask the engine, and carry out what follows."""
    policy, conduct = desk.state.policy, profile.conduct
    circuit = breaker.ready(conduct.circuit, desk.now_ns)
    if circuit != conduct.circuit:
        _switch(desk, profile, "its time is over: it is tried again", circuit)
    worker = desk.state.workers.get(profile.worker)
    # What a person, or its admission, has decided holds.
    kept_away = profile.removed or (profile.paused and conduct.stage is not Stage.PAUSED)
    if kept_away or (worker is not None and worker.state is WorkerState.DRAINING):
        watch(desk, profile)
        return
    opinion = None
    if conduct.stage is Stage.ACTIVE and conduct.rated_ns and not conduct.pinned:
        opinion = desk.panel.judge(policy, _subject(desk, profile), fleet_of(desk))
    decided = sanctions(dossier_of(desk, profile), opinion, policy, desk.now_ns)
    for sanction in decided:
        _carry_out(desk, profile, sanction)
    if decided or not conduct.at_liberty:
        watch(desk, profile)


def _subject(desk: Desk, profile: Profile) -> Subject:
    conduct = profile.conduct
    last = next((one for one in reversed(conduct.judgements) if one.verdict in _TURNS), None)
    return Subject(
        worker=profile.worker,
        score=conduct.score,
        factor=conduct.factor,
        metrics=metrics(desk, profile),
        rating=conduct.rating,
        last=last.verdict if last is not None and not last.undone else None,
        since_ns=desk.now_ns - conduct.judged_ns,
        attempts_since=profile.completed + profile.failed - conduct.judged_at,
    )


def dossier_of(desk: Desk, profile: Profile) -> Dossier:
    """What a decision about the worker goes by."""
    conduct = profile.conduct
    return Dossier(
        factor=conduct.factor,
        score=conduct.score,
        rating=conduct.rating,
        checked=sum(record.passed + record.wrong for record in profile.records.values()),
        authorised=conduct.trusted,
        pinned=conduct.pinned,
        stage=conduct.stage,
        since_ns=conduct.since_ns,
        decided_ns=conduct.judged_ns,
        punishments=conduct.strikes,
        pauses=conduct.pauses_ns,
        relapses=conduct.relapses,
        right=conduct.right,
        wrong=conduct.wrong,
        only_for=_only_for(desk, profile),
        backlog=_backlog(desk, profile),
    )


def _only_for(desk: Desk, profile: Profile) -> str:
    """A capability of which nobody is left to take tasks without this worker; empty: there is none."""
    worker = desk.state.workers.get(profile.worker)
    for offer in worker.offers if worker is not None else ():
        if not any(_takes(desk, name) for name in desk.lines.offering(offer.name) if name != profile.worker):
            return offer.name
    return ""


def _takes(desk: Desk, worker: str) -> bool:
    """Whether a worker that is attached gets tasks."""
    profile = desk.state.profiles.get(worker)
    return desk.state.workers[worker].state is WorkerState.ACTIVE and (
        profile is None or profile.conduct.circuit.state is not CircuitState.OPEN
    )


def _backlog(desk: Desk, profile: Profile) -> int:
    """Pending tasks of what it can do."""
    worker = desk.state.workers.get(profile.worker)
    return sum(desk.backlog.pending(offer.name) for offer in worker.offers) if worker is not None else 0


def _carry_out(desk: Desk, profile: Profile, sanction: Sanction) -> None:
    name, verdict = profile.worker, sanction.verdict
    desk.emit(WorkerJudged(name, SUPERVISION, verdict, sanction.factor, sanction.reason, sanction.figures))
    if verdict is Verdict.PAUSE:
        pause(desk, name, SUPERVISION, sanction.reason)
    elif verdict in (Verdict.PROBATION, Verdict.RESTORE):
        if profile.paused:
            resume(desk, profile, SUPERVISION)
    elif verdict is Verdict.DEACTIVATE:
        remove(desk, name, SUPERVISION, sanction.reason)
    elif verdict in _WORDS:
        if len(profile.words) < WORDS_MAX:
            say(desk, name, SUPERVISION, _WORDS[verdict])
    elif verdict in (Verdict.AUTHORISE, Verdict.REVOKE) and name in desk.state.workers:
        desk.lines.seat_again(desk.state.workers[name])
    rate(desk, name)


# What people decide


def set_supervision(desk: Desk, command: SetSupervision) -> None:
    """The fleet is supervised in another way from now on."""
    policy, panel = command.policy, desk.panel
    for field, name, known in (
        ("engine", policy.engine, panel.engines),
        ("scoring", policy.scoring, panel.scorings),
        ("reputation", policy.reputation, panel.models),
    ):
        if name not in known:
            reason = f"{name} is none of {', '.join(sorted(known))}"
            desk.refusals.append(Refusal("", "invalid", field, reason))
            return
    if policy != desk.state.policy:
        desk.emit(SupervisionSet(policy, command.principal))
        for worker in desk.tried:
            rate(desk, worker)


def set_objective(desk: Desk, command: SetObjective) -> None:
    """Tasks of a capability are to reach something else from now on."""
    objective, known = command.objective, desk.state.objectives
    if not objective.share_permille and objective.capability not in known:
        return
    if objective.capability not in known and len(known) >= CAPABILITIES_MAX:
        reason = f"{CAPABILITIES_MAX:,} capabilities have objectives, which is the bound"
        desk.refusals.append(Refusal("", "exhausted", "capability", reason))
        return
    desk.emit(ObjectiveSet(objective, command.principal))


def judge_worker(desk: Desk, command: JudgeWorker) -> None:
    """A person pardons a worker, undoes a decision, or fixes a factor."""
    worker, profile = find(desk, command.worker)
    if profile is None:
        return
    conduct = profile.conduct
    factor = command.factor or conduct.factor
    if command.verdict is Verdict.PARDON:
        factor = max(factor, FACTOR_ONE)
    if command.undoes:
        undone = next((one for one in conduct.judgements if one.sequence == command.undoes), None)
        if undone is None or undone.undone:
            last = ", ".join(str(one.sequence) for one in conduct.judgements if not one.undone)
            reason = (
                f"{command.undoes} is none of the last decisions about {command.worker} that hold: {last or 'none'}"
            )
            desk.refusals.append(Refusal("", "not_found", "undoes", reason))
            return
        factor = _without(conduct, command.undoes)
    elif command.verdict is Verdict.UNPIN and not conduct.pinned:
        desk.refusals.append(Refusal("", "conflict", "worker", f"the factor of {command.worker} is not pinned"))
        return
    shut_out = conduct.stage in (Stage.PAUSED, Stage.OUT) and (profile.paused or profile.removed)
    if command.verdict is Verdict.PARDON and shut_out and worker is not None and worker.state is WorkerState.DRAINING:
        reason = f"{command.worker} is DRAINING; wait until it has left"
        desk.refusals.append(Refusal("", "conflict", "worker", reason))
        return
    desk.emit(
        WorkerJudged(command.worker, command.principal, command.verdict, factor, command.reason, undoes=command.undoes)
    )
    if shut_out and conduct.stage is Stage.ACTIVE:
        resume(desk, profile, command.principal)
    watch(desk, profile)
    if worker is not None:
        rate(desk, worker.id)


def _without(conduct: Conduct, sequence: int) -> int:
    """The factor as it would be without one of the decisions."""
    before, found = FACTOR_ONE, 0
    for judgement in conduct.judgements:
        if judgement.sequence == sequence:
            found = conduct.factor * before // judgement.factor
        elif found and judgement.verdict is Verdict.PIN:
            return conduct.factor  # since then a person has said what it is to be
        before = judgement.factor
    return max(FACTOR_MIN, min(FACTOR_MAX, found)) if found else conduct.factor
