"""What a ledger knows of results that others look at: who was asked, what they said, and whether what came of it is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from merit.core.auditing import AUDIT
from merit.lab.answers import PROBE_RESULT, GivenAnswer, read, right_answer
from merit.lab.asked import demand_of, review_of
from merit.lab.terms_book import TIMER_SLACK_NS
from merit.lab.violation import Violation
from merit.model.auditing import AuditPolicy, OnBroken
from merit.model.events import (
    AttemptAssigned,
    AttemptFailed,
    AttemptReturned,
    AuditAnswered,
    AuditSet,
    AuditStarted,
    Event,
    LeadershipStarted,
    ResultJudged,
    TaskCanceled,
    TaskCompleted,
    TaskDelayed,
    TaskDied,
    TaskSubmitted,
)
from merit.model.tasks import AttemptState, Review, ReviewKind
from merit.model.tenancy import GOLD_TENANT, PROBE_TENANT

if TYPE_CHECKING:
    from merit.lab.ledger import Ledger

_USUAL = AuditPolicy("")
_UNKNOWN = 500
"""How much one is trusted of whom nothing is known."""


class Voice(Struct, frozen=True):
    """What a worker has said. ``result``: its digest."""

    worker: str
    result: bytes
    answer: GivenAnswer


class OpenCase(Struct):
    """A result that is being looked at. ``voices``: that of its worker first."""

    number: int
    worker: str
    due_ns: int
    voices: list[Voice]
    policy: AuditPolicy
    """As it was when the result came."""
    reviews: list[str] = field(default_factory=list)
    verdicts: dict[str, bool] = field(default_factory=dict)
    """By worker: whether its answer was found to be right."""
    over: AttemptState | None = None
    """How its attempt has ended, if it has."""

    @property
    def kind(self) -> ReviewKind:
        """How it is looked at."""
        return ReviewKind.JUDGE if self.policy.judge else ReviewKind.COPY

    def alike(self, voice: Voice) -> int:
        """How many say the same."""
        return sum(1 for other in self.voices if other.answer.says == voice.answer.says)


class AuditBook:
    """Reads every event before the ledger's own books do, and before it is folded.

    Args:
        ledger: whose book it is.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.met: Counter[str] = Counter()
        self.cases: dict[str, OpenCase] = {}
        """By task whose result is looked at."""
        self._policies: dict[str, AuditPolicy] = {}
        self._done: dict[str, Voice] = {}
        """What came of tasks by which results are looked at."""
        self._hands: dict[str, list[str]] = {}
        """By such a task: the workers that have had it."""
        self._gold: dict[tuple[str, str], str] = {}
        """By worker and capability: the task with a known result that it was given last."""
        self._unneeded: list[str] = []
        """Tasks by which results were looked at that are decided about, in the record that is being read."""
        self._grace_until_ns = 0

    def take(self, event: Event, payloads: Mapping[bytes, bytes], now_ns: int) -> None:
        """The next event.

        Raises:
            Violation: it must not be.
        """
        match event:
            case AuditSet(policy=policy):
                self._policies[policy.capability] = policy
            case TaskSubmitted():
                self._submitted(event)
            case AttemptAssigned():
                if event.task in self._hands:
                    self._hands[event.task].append(event.worker)
            case AttemptReturned():
                if event.task in self._hands:
                    self._hands[event.task].pop()
            case AuditStarted():
                self._started(event, payloads, now_ns)
            case AuditAnswered():
                self._answered(event)
            case ResultJudged():
                self._judged(event)
            case AttemptFailed() if event.task in self.cases:
                self._failed(event, self.cases[event.task])
            case TaskCompleted():
                self._completed(event, payloads)
            case TaskDelayed() | TaskDied() | TaskCanceled() if event.task in self.cases:
                self._closed(event.task)
            case LeadershipStarted():
                self._grace_until_ns = event.grace_until_ns
            case _:
                pass

    def record_over(self, now_ns: int, *, led: bool) -> None:
        """A whole record has been read; ``led`` as for ``TermsBook``.

        Raises:
            Violation: somebody is still at what does not matter any more, or a result is looked at for ever.
        """
        settled = self._ledger.settled
        for review in self._unneeded:
            if review not in settled:
                raise Violation("audit", review, "goes on, and what it was to find out is decided")
        self._unneeded.clear()
        for task, case in self.cases.items():
            if not any(review not in settled for review in case.reviews):
                raise Violation("audit", task, "is to be looked at, and nobody is asked")
            if case.over is not None:
                raise Violation("audit", task, f"has had its result {case.over.name}, and goes on as if it had not")
            quiet_until_ns = max(self._grace_until_ns, self._ledger.quiet_ns[1])
            if led and now_ns >= max(case.due_ns, quiet_until_ns) + TIMER_SLACK_NS:
                late_ms = (now_ns - case.due_ns) // 1_000_000
                raise Violation("audit", task, f"is still looked at {late_ms} ms after that should be over")

    # Who may do what

    def barred(self, task: str) -> set[str]:
        """Those who must not be given it: who made the result that it is about, has said something of it, or is at another
        such task."""
        return {worker for worker, says in self._involved(task) if says}

    def shunned(self, task: str) -> set[str]:
        """As ``barred``, and all that have had one of the others."""
        return {worker for worker, _ in self._involved(task)}

    def _involved(self, task: str) -> Iterator[tuple[str, bool]]:
        """Who has had to do with the result that the task is about; whether they have, or may have, a say in it."""
        review, ledger = review_of(self._ledger.submitted[task]), self._ledger
        case = self.cases.get(review.of) if review is not None else None
        if case is None:
            return
        for voice in case.voices:
            yield voice.worker, True
        for other in case.reviews:
            if other != task:
                live = ledger.live.get(other)
                yield from ((worker, live is not None and live[1] == worker) for worker in self._hands[other])

    # Who is asked

    def _submitted(self, event: TaskSubmitted) -> None:
        review = review_of(event)
        if (review is not None) != (event.principal == AUDIT):
            raise Violation("audit", event.task, f"was made by {event.principal} to find out {review}")
        if review is None:
            return
        self._hands[event.task] = []
        if review.kind is ReviewKind.GOLD:
            self._gold_made(event, review)
            return
        case, of = self.cases.get(review.of), self._ledger.submitted.get(review.of)
        if case is None or of is None or of.tenant != event.tenant:
            raise Violation("audit", event.task, f"is about {review.of}, which is not looked at")
        asked = (of.capability, of.parameters, of.parameters_blob)
        if review.kind is not case.kind:
            raise Violation("audit", event.task, f"is a {review.kind.name}, and {case.policy} was set")
        if review.kind is ReviewKind.COPY:
            if asked != (event.capability, event.parameters, event.parameters_blob):
                raise Violation("audit", event.task, f"should be a copy of {review.of}")
            if self._ledger.terms_book.not_safe(review.of):
                raise Violation("audit", review.of, "is done once more, and is not safe to repeat")
        elif event.capability != case.policy.judge:
            raise Violation("audit", event.task, f"asks {event.capability} to judge")
        case.reviews.append(event.task)

    def _gold_made(self, event: TaskSubmitted, review: Review) -> None:
        worker = demand_of(event).worker
        before = self._gold.get((worker, event.capability), event.task)
        if before != event.task and before not in self._ledger.settled:
            raise Violation("gold", event.task, f"was made for {worker}, which has {before}")
        if not worker or event.tenant != GOLD_TENANT or review.number >= len(self._policy(event.capability).gold):
            raise Violation("gold", event.task, f"is of {event.tenant}, for {worker or 'anybody'}, about {review}")
        self._gold[worker, event.capability] = event.task

    def _policy(self, capability: str) -> AuditPolicy:
        return self._policies.get(capability, _USUAL)

    # What is found

    def _started(self, event: AuditStarted, payloads: Mapping[bytes, bytes], now_ns: int) -> None:
        task, spec, holder = event.task, self._ledger.submitted[event.task], self._ledger.live.get(event.task)
        policy = self._policy(spec.capability)
        if holder is None or event.task in self.cases:
            return  # the ledger says so, or the fold
        if (policy.copies < 2 and not policy.judge) or spec.tenant == PROBE_TENANT or review_of(spec) is not None:
            raise Violation("audit", task, f"is looked at, and {policy} does not ask for that")
        voice = Voice(holder[1], event.result, read(payloads[event.result]))
        due_ns = now_ns + policy.timeout_ns
        self.cases[task] = OpenCase(event.number, holder[1], due_ns, [voice], policy)
        self.met["audit begun"] += 1

    def _answered(self, event: AuditAnswered) -> None:
        case, task = self.cases.get(event.task), event.task
        if case is None or event.review not in case.reviews or event.review not in self._ledger.settled:
            raise Violation("audit", task, f"{event.review} has answered, and was not asked or is at it")
        voice = self._done.get(event.review)
        if event.result != (voice.result if voice is not None else b""):
            raise Violation("audit", task, f"{event.worker} is said to have said something else than it has")
        if voice is None:
            return
        if event.worker != voice.worker or voice.worker in {other.worker for other in case.voices}:
            raise Violation("audit", task, f"{voice.worker} has said it, not {event.worker}, or has a say twice")
        case.voices.append(voice)

    def _judged(self, event: ResultJudged) -> None:
        task, worker, right = event.task, event.worker, event.right
        if event.how == "gold":
            self._gold_judged(event)
            return
        case = self.cases.get(task)
        voice = next((one for one in case.voices if one.worker == worker), None) if case is not None else None
        spec = self._ledger.submitted[task]
        if case is None or voice is None or event.capability != spec.capability:
            raise Violation("audit", task, f"{worker} is judged by {event.how}, and has said nothing of it")
        case.verdicts[worker] = right
        if event.how == "judge":
            words = [one.answer.ok for one in case.voices[1:]]
            if case.kind is not ReviewKind.JUDGE or words != [right] or worker != case.worker:
                raise Violation("audit", task, f"{worker} was found {right} by {words}")
            return
        wrong = [one for one in case.voices if one.answer.says != right_answer(spec.parameters)]
        if case.kind is not ReviewKind.COPY or (right and case.alike(voice) < 2):
            raise Violation("audit", task, f"{worker} alone says so, and is called right")
        if max((case.alike(one) for one in wrong), default=0) < 2 and right is (voice in wrong):
            raise Violation("audit", task, f"{worker} was called {right}, and no two that are wrong say the same")

    def _gold_judged(self, event: ResultJudged) -> None:
        gold = self._ledger.submitted.get(event.task)
        voice = self._done.get(event.task)
        if gold is None or voice is None or gold.tenant != GOLD_TENANT or voice.worker != event.worker:
            raise Violation("gold", event.task, f"{event.worker} is judged by it, and has not done it")
        if event.right is not (voice.answer == read(PROBE_RESULT)):
            raise Violation("gold", event.task, f"{event.worker} said {voice.answer} and was called {event.right}")
        self.met[f"gold: {'right' if event.right else 'wrong'}"] += 1

    # What comes of it

    def _failed(self, event: AttemptFailed, case: OpenCase) -> None:
        task, policy = event.task, case.policy
        if event.number != case.number or case.over is not None:
            raise Violation("audit", task, f"attempt {event.number} was {event.state.name}, looked at is {case.number}")
        case.over = event.state
        if event.state is AttemptState.REJECTED:
            against = any(case.alike(one) > 1 for one in case.voices[1:]) or case.voices[-1].answer.ok is False
            if not against or case.verdicts.get(case.worker):
                raise Violation("audit", task, f"is rejected, and nobody has said otherwise: {case.voices}")
        elif policy.on_broken is not OnBroken.REJECT or case.verdicts:
            raise Violation("audit", task, f"is {event.state.name}, by {policy.on_broken}, after {case.verdicts}")
        else:
            self.met["audit broken, not accepted"] += 1

    def _completed(self, event: TaskCompleted, payloads: Mapping[bytes, bytes]) -> None:
        task, case, holder = event.task, self.cases.get(event.task), self._ledger.live.get(event.task)
        if case is None:
            if task in self._hands and holder is not None:
                self._done[task] = Voice(holder[1], event.result, read(payloads[event.result]))
            return
        if event.number:
            verdict = case.verdicts.get(case.worker)
            if (event.number, event.result) != (case.number, case.voices[0].result) or case.over or verdict is False:
                raise Violation("audit", task, f"attempt {event.number} counts, after {case.over}, {case.verdicts}")
            self._accepted(task, case)
            self._check_outvoted(task, case, case.voices[0])
        else:
            others = [one for one in case.voices[1:] if one.result == event.result]
            if case.over is not AttemptState.REJECTED or not others or case.alike(others[0]) < 2:
                raise Violation("audit", task, f"has a result that nobody, or one alone, has given: {case.voices}")
            self._check_outvoted(task, case, others[0])
            self.met["audit: another answer counts"] += 1
        self._closed(task)

    def _accepted(self, task: str, case: OpenCase) -> None:
        """The result that was looked at counts: it was found to be right, or nothing could be found out."""
        found = case.verdicts.get(case.worker)
        if found is None:
            # Of one that is forgotten nothing is said.
            known = case.worker in self._ledger.state.profiles
            agreed = case.alike(case.voices[0]) > 1 or case.voices[-1].answer.ok
            if case.policy.on_broken is OnBroken.REJECT and (known or not agreed):
                raise Violation("audit", task, "counts, though nothing could be found out")
            self.met["audit broken, accepted"] += 1
        else:
            self.met[f"audit: right by {case.kind.name}"] += 1

    def _check_outvoted(self, task: str, case: OpenCase, accepted: Voice) -> None:
        """At least two who are right, and are trusted more than all others together, have the last word."""
        right = right_answer(self._ledger.submitted[task].parameters)
        honest = [one for one in case.voices if one.answer.says == right]
        outvote = 2 * self._trust(task, honest) > self._trust(task, case.voices)
        if case.kind is ReviewKind.COPY and len(honest) > 1 and outvote and accepted not in honest:
            raise Violation("audit", task, f"has the result {accepted}, and most that were asked say {right}")

    def _trust(self, task: str, voices: list[Voice]) -> int:
        state, capability = self._ledger.state, self._ledger.submitted[task].capability
        profiles = [state.profiles.get(one.worker) for one in voices]
        records = [profile.records.get(capability) if profile is not None else None for profile in profiles]
        return sum(max(1, record.rating.value) if record is not None else _UNKNOWN for record in records)

    def _closed(self, task: str) -> None:
        case = self.cases.pop(task)
        self._unneeded += case.reviews
        if case.over is AttemptState.REJECTED:
            self.met[f"audit: wrong by {case.kind.name}"] += 1
