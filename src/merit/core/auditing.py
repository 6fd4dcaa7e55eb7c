"""What costs others work: results are looked at by copies of their tasks, by judges, and by tasks with known results.

Such a task is one like others, for its worker too. A copy and a judge's task belong to the tenant whose result it is about;
those who have had anything to do with that never get them. What comes of them is gathered in a case (``AuditCase``), which
is decided as soon as it can be: by a vote in which each voice counts as much as its worker is trusted, or by the judge's word.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, Final

import msgspec

from merit.auditing.sampling import is_looked_at
from merit.auditing.votes import ONE_VOICE, count_votes
from merit.core.allocating import rate
from merit.core.attempts import complete, die, fail, past_deadline
from merit.core.desk import Desk
from merit.core.looking import could_be_asked
from merit.core.noting import note_ending
from merit.core.submitting import admit, cancel, refusal_of
from merit.core.timing import arm
from merit.model.auditing import AuditCase, AuditPolicy, OnBroken
from merit.model.events import AttemptFailed, AuditAnswered, ResultJudged
from merit.model.ids import make_id
from merit.model.limits import ASKED_MAX
from merit.model.tasks import (
    AttemptState,
    Demand,
    Failure,
    Review,
    ReviewKind,
    Task,
    TaskSpec,
    TaskState,
    Terms,
)
from merit.model.tenancy import GOLD_TENANT, PROBE_TENANT

AUDIT: Final = "merit.audit"
"""The principal that asks others."""
_ATTEMPTS_MAX: Final = 2
_MAJORITY: Final = 500


# Opening


def result_reported(desk: Desk, worker: str, task: Task) -> None:
    """A worker has handed in a result of a capability that is audited."""
    policy, case = desk.state.audits.get(task.capability), desk.state.cases.get(task.id)
    if policy is None:
        return
    if case is not None and not case.asked:
        if case.judge:
            _ask_judge(desk, task, case)
        else:
            for _ in range(case.copies - 1):
                _ask_copy(desk, task)
        if not case.reviews:
            _give_up(desk, task, case, "nobody could be asked")
    if policy.gold and task.tenant not in (PROBE_TENANT, GOLD_TENANT):
        _draw_gold(desk, worker, task, policy)


def _ask_copy(desk: Desk, task: Task) -> None:
    demand = task.terms.demand if task.terms is not None else None
    terms = Terms(demand=demand, review=Review(ReviewKind.COPY, task.id))
    _ask(desk, task, task.capability, task.parameters, task.parameters_blob, terms)


def _ask_judge(desk: Desk, task: Task, case: AuditCase) -> None:
    subject = {
        "task": task.id,
        "capability": task.capability,
        "parameters": msgspec.Raw(task.parameters or b"null"),
        "result": msgspec.Raw(task.result or b"null"),
    }
    parameters = msgspec.json.encode(subject)
    _ask(desk, task, case.judge, parameters, "", Terms(review=Review(ReviewKind.JUDGE, task.id)))


def _ask(desk: Desk, task: Task, capability: str, parameters: bytes, blob: str, terms: Terms) -> None:
    left_ns = task.due_ns - desk.now_ns
    spec = TaskSpec(
        _make_id(desk, task.id),
        capability,
        parameters,
        blob,
        priority=task.priority,
        run_timeout_ns=min(task.run_timeout_ns, left_ns),
        attempts_max=_ATTEMPTS_MAX,
        timeout_ns=left_ns,
        terms=terms,
    )
    refusal = refusal_of(desk, spec, task.tenant)
    if refusal is None:
        arm(desk, admit(desk, spec, task.tenant, AUDIT))


def _make_id(desk: Desk, about: str) -> str:
    seed = f"{about}\0{desk.state.sequence}".encode() + desk.state.salt
    return make_id(desk.now_ns, sha256(seed).digest()[:10])


# Answers


def review_ended(desk: Desk, review: Task) -> None:
    """A task by which a result, or a worker, is looked at has come to its end."""
    terms = review.terms
    if terms is None or terms.review is None:
        return
    if terms.review.kind is ReviewKind.GOLD:
        _weigh(desk, review, terms.review)
        return
    case = desk.state.cases.get(terms.review.of)
    if case is None or review.id not in case.reviews:
        return
    worker = review.attempts[-1].worker if review.attempts else ""
    answered = review.state is TaskState.COMPLETED and not review.result_blob
    result = desk.keep(review.result) if answered else b""
    desk.emit(AuditAnswered(case.task, review.id, worker, result))
    if not case.reviews:
        _decide(desk, desk.state.tasks[case.task], case)


def audit_due(desk: Desk, task_id: str) -> None:
    """It takes too long to find out whether the result of the task is right; or all of the task does."""
    task, case = desk.state.tasks[task_id], desk.state.cases[task_id]
    if task.deadline_ns and task.deadline_ns <= desk.now_ns:
        die(desk, task, past_deadline(task))
    elif task.due_ns <= desk.now_ns:
        _decide(desk, task, case)
    else:
        arm(desk, task)


def call_off(desk: Desk, review: str) -> None:
    """What this task was to find out does not matter any more."""
    task = desk.state.tasks.get(review)
    if task is not None and not task.state.final:
        cancel(desk, task, AUDIT, "what it was to find out does not matter any more")


def _decide(desk: Desk, task: Task, case: AuditCase) -> None:
    if case.judge:
        _by_judge(desk, task, case)
    else:
        _by_vote(desk, task, case)


def _by_judge(desk: Desk, task: Task, case: AuditCase) -> None:
    word = next((answer for answer in case.answers if answer.result), None)
    verdict = _read(word.result) if word is not None else None
    if word is None or not isinstance(verdict, dict) or not isinstance(verdict.get("ok"), bool):
        said = "nothing that says whether it is right" if word is not None else "nothing"
        _give_up(desk, task, case, f"the judge said {said}; it has to answer with ok (true or false) and reason")
        return
    reason = str(verdict.get("reason", ""))[:1_000] or f"{word.worker} says so"
    _judge(desk, case.worker, task, right=verdict["ok"], how="judge", reason=reason)
    if verdict["ok"]:
        _accept(desk, task, case)
    else:
        _reject(desk, task, case, f"{word.worker}, who was asked to judge it: {reason}")


def _by_vote(desk: Desk, task: Task, case: AuditCase) -> None:
    said = [(case.worker, task.result), *((one.worker, one.result) for one in case.answers if one.result)]
    grouping = desk.panel.group(case.comparison, [_read(result) for _, result in said])
    names = grouping.names
    weights = {worker: max(1, _trust(desk, worker, task.capability)) for worker, _ in said}
    count = count_votes(((worker, name) for (worker, _), name in zip(said, names, strict=True)), weights)
    winner = count.winner
    # Two have to say the same: of one alone nobody knows whether it is right.
    if winner is None or names.count(winner) < 2 or count.permille <= _MAJORITY:
        _ask_more(desk, task, case)
        return
    for (worker, _), name in zip(said, names, strict=True):
        right = name == winner
        others = ", ".join(
            other for (other, _), its in zip(said, names, strict=True) if its == winner and other != worker
        )
        reason = f"{others} said the same" if right else f"{others} said otherwise"
        _judge(desk, worker, task, right=right, how="copies", reason=reason)
    if names[0] == winner:
        _accept(desk, task, case)
        return
    result = said[names.index(winner)][1]
    _note(
        desk,
        task,
        case,
        f"{', '.join(w for (w, _), its in zip(said, names, strict=True) if its == winner)} said otherwise",
    )
    complete(desk, task, 0, desk.keep(result))


def _ask_more(desk: Desk, task: Task, case: AuditCase) -> None:
    """Nothing is clear yet: one more is asked, if there is one, and time."""
    barred = {case.worker, *(answer.worker for answer in case.answers)}
    enough = case.asked >= min(ASKED_MAX, case.copies - 1 + 2 * max(1, case.retries))
    if task.due_ns > desk.now_ns and not enough and could_be_asked(desk, "", task, barred):
        _ask_copy(desk, task)
        if case.reviews:
            return
    _give_up(desk, task, case, f"of {1 + len(case.answers)} answers no two that most trust is in are the same")


def _read(result: bytes) -> Any:
    try:
        return msgspec.json.decode(result)
    except msgspec.DecodeError:
        return None  # it has been erased since


def _trust(desk: Desk, worker: str, capability: str) -> int:
    profile = desk.state.profiles.get(worker)
    record = profile.records.get(capability) if profile is not None else None
    return record.rating.value if record is not None else ONE_VOICE // 2


def _judge(desk: Desk, worker: str, task: Task, *, right: bool, how: str, reason: str) -> None:
    if worker in desk.state.profiles:
        desk.emit(ResultJudged(worker, task.capability, task.id, right, how, reason))
        note_ending(desk, worker, well=True)


# Ends of cases


def _close(desk: Desk, task: Task, case: AuditCase) -> None:
    """It is about to be decided: nobody has to look any more, and what its worker has done is another figure."""
    desk.orphan(task)
    rate(desk, case.worker)


def _accept(desk: Desk, task: Task, case: AuditCase) -> None:
    _close(desk, task, case)
    note_ending(desk, case.worker, well=True)
    complete(desk, task, case.number, desk.keep(task.result))


def _reject(desk: Desk, task: Task, case: AuditCase, reason: str) -> None:
    _close(desk, task, case)
    fail(desk, task, case.number, AttemptState.REJECTED, Failure("audit", reason))


def _note(desk: Desk, task: Task, case: AuditCase, reason: str) -> None:
    """The attempt's result is not accepted; what becomes of the task is another matter."""
    _close(desk, task, case)
    desk.emit(AttemptFailed(task.id, case.number, AttemptState.REJECTED, Failure("audit", reason)))
    note_ending(desk, case.worker, well=False)


def _give_up(desk: Desk, task: Task, case: AuditCase, reason: str) -> None:
    """Nothing could be found out, by no fault of the worker."""
    if case.on_broken is OnBroken.REJECT:
        _close(desk, task, case)
        fail(desk, task, case.number, AttemptState.CANCELED, Failure("audit_broken", reason))
    else:
        _accept(desk, task, case)


# Gold


def _draw_gold(desk: Desk, worker: str, task: Task, policy: AuditPolicy) -> None:
    """Give the worker a task of which the right result is known, now and then."""
    at = (worker, task.capability)
    if at in desk.tested or worker not in desk.seats:
        return
    if not is_looked_at(f"gold/{task.id}", desk.state.salt, policy.gold_permille):
        return
    number = int.from_bytes(sha256(task.id.encode() + desk.state.salt).digest()[:4], "big") % len(policy.gold)
    spec = TaskSpec(
        _make_id(desk, f"gold/{task.id}"),
        task.capability,
        policy.gold[number].parameters,
        priority=task.priority,
        run_timeout_ns=task.run_timeout_ns,
        attempts_max=1,
        timeout_ns=policy.timeout_ns,
        terms=Terms(demand=Demand(worker=worker), review=Review(ReviewKind.GOLD, number=number)),
    )
    if refusal_of(desk, spec, GOLD_TENANT) is None:
        arm(desk, admit(desk, spec, GOLD_TENANT, AUDIT))
        desk.tested[at] = spec.id


def _weigh(desk: Desk, gold: Task, review: Review) -> None:
    worker = gold.terms.demand.worker if gold.terms is not None and gold.terms.demand is not None else ""
    desk.tested.pop((worker, gold.capability), None)
    policy = desk.state.audits.get(gold.capability)
    asked = policy.gold[review.number] if policy is not None and review.number < len(policy.gold) else None
    # Others may have been set since, so that there is nothing to compare it with any more.
    if policy is None or asked is None or asked.parameters != gold.parameters or gold.state is not TaskState.COMPLETED:
        return
    found = desk.panel.difference(policy.comparison, _read(asked.expected), _read(gold.result))
    if gold.result_blob or found is not None:
        where = f" at {found.pointer}" if found is not None and found.pointer else ""
        reason = f"another result than the known one{where}" + (f": {found.reason}" if found is not None else "")
        if found is not None and found.undecided:
            return
        _judge(desk, worker, gold, right=False, how="gold", reason=reason)
    else:
        _judge(desk, worker, gold, right=True, how="gold", reason="the known result")


def recall_gold(desk: Desk) -> None:
    """A new leader: which workers have gold tasks."""
    for task in desk.state.tasks.values():
        if (
            task.tenant == GOLD_TENANT
            and not task.state.final
            and task.terms is not None
            and task.terms.demand is not None
        ):
            desk.tested[task.terms.demand.worker, task.capability] = task.id
