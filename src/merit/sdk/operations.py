"""What operators see and set: tasks by filter, queues, limits, tenants, dead letters, schedules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from merit.model.limits import PAYLOAD_BYTES_MAX, PAYLOAD_INLINE_BYTES_MAX
from merit.model.rules import RuleKind
from merit.model.schedules import Missed, Overlap
from merit.model.tasks import Refusal
from merit.model.tenancy import DEFAULT_TENANT
from merit.sdk.asking import Asker
from merit.sdk.channel import put_blob
from merit.sdk.fleet_operations import FleetOperations
from merit.sdk.options import Prepared, TaskRequest, check_text, time_ns_of
from merit.sdk.results import Refused
from merit.sdk.specs import encode_parameters
from merit.sdk.views import (
    Page,
    queue_view,
    rule_view,
    schedule_view,
    status_view,
    task_view,
    tenant_view,
    when,
    worker_view,
)
from merit.wire.frames import decode_refusal
from merit.wire.specs import encode_spec
from merit.wire.v1 import (
    dead_letters_pb2,
    dead_letters_pb2_grpc,
    queues_pb2,
    queues_pb2_grpc,
    schedules_pb2,
    schedules_pb2_grpc,
    tasks_pb2,
    tasks_pb2_grpc,
)

Choice = TypeVar("Choice", bound=IntEnum)
Answer = TypeVar("Answer", queues_pb2.ListQueuesResponse, schedules_pb2.ListSchedulesResponse)

_PAGE: Final = 1_000
_MILLI: Final = 1_000
_RATE_HZ_MAX: Final = 10**9


class Where(Struct, frozen=True, kw_only=True):
    """Which tasks are meant: those for which all of it holds. What is left out holds for all."""

    states: Sequence[str] = ()
    """One of these."""
    capability: str = ""
    tenant: str = ""
    """Left out: in questions every tenant, in orders that of the client."""
    labels: Mapping[str, str] = {}
    """All of these."""
    text: str = ""
    """Words: each begins one of the description, of a failure's message, or of a parameter that is marked ``Searchable``,
    whether upper or lower case."""
    submitted_from: datetime | None = None
    """Not before."""
    submitted_to: datetime | None = None
    """Before."""
    schedule: str = ""
    worker: str = ""
    """An attempt was given to it."""
    reviews: bool = False
    """Also those that the control plane has made to look at the results of others. Those that look at the result of one task
    have the label ``merit.review-of`` with its id."""

    def narrowed(self, state: str, capability: str) -> Where:
        """The same, with this state and capability if they are given."""
        where = replace(self, states=(state,)) if state else self
        return replace(where, capability=capability) if capability else where

    def message(self) -> tasks_pb2.TaskFilter:
        """For the wire.

        Raises:
            ValueError: a field cannot be sent.
        """
        texts = [("capability", self.capability), ("tenant", self.tenant), ("text", self.text)]
        texts += [("schedule", self.schedule), ("worker", self.worker)]
        texts += [("labels", text) for label in self.labels.items() for text in label]
        for field, text in texts:
            check_text(field, text)
        return tasks_pb2.TaskFilter(
            states=[_state(name) for name in self.states],  # type: ignore[misc]  # numbers of the enum, looked up by name
            capability=self.capability,
            tenant=self.tenant,
            labels=[tasks_pb2.Label(name=name, value=value) for name, value in self.labels.items()],
            text=self.text,
            submitted_from_ns=time_ns_of("submitted_from", self.submitted_from) if self.submitted_from else 0,
            submitted_to_ns=time_ns_of("submitted_to", self.submitted_to) if self.submitted_to else 0,
            schedule=self.schedule,
            worker_id=self.worker,
            reviews=self.reviews,
        )


class Retried(Struct, frozen=True):
    """Dead letters that are tried again: each with the task that does it."""

    pairs: list[tuple[str, str]]
    refusals: list[Refusal]


class Purged(Struct, frozen=True):
    """Dead letters that are kept no longer."""

    tasks: list[str]
    refusals: list[Refusal]


class Operations:
    """Questions and orders. Orders are durable on return.

    While the control plane is away a question is asked again for as long as the client is patient, and so is an order that
    may be given twice. All raise ``Unreachable``, ``Refused`` (with the field and the reason) and ``MeritError``.
    """

    def __init__(self, asker: Asker, tenant: str = DEFAULT_TENANT) -> None:
        self._asker = asker
        self._tenant = tenant
        self.fleet = FleetOperations(asker)
        """Workers, capabilities, rollouts, and why tasks go where they go."""

    # Tasks

    async def task(self, task_id: str) -> dict[str, Any]:
        """Everything about one task, as JSON has it."""
        request = tasks_pb2.GetTaskRequest(id=task_id)
        message = await self._asker.ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).GetTask(request))
        view = task_view(message)
        for field, blob in (("parameters", message.parameters_blob), ("result", message.result_blob)):
            if blob:
                view[field] = {"blob": blob}
        return view

    async def tasks(self, where: Where | None = None, *, limit: int = 100, cursor: str = "", at_least: int = 0) -> Page:
        """Tasks, newest first, a page at a time.

        Args:
            where: which are meant.
            limit: so many on the page at most; 1,000 are possible.
            cursor: where the page before has ended.
            at_least: wait until all that happened up to this event is known (``status`` and a page say a ``sequence``); one
                that is still to come is refused.
        """
        request = tasks_pb2.ListTasksRequest(
            filter=(where or Where()).message(),
            limit=limit,
            cursor=cursor,
            at_least=_count("at_least", at_least, 2**63),
        )
        return _page(await self._asker.ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).ListTasks(request)))

    async def cancel(self, where: Where, reason: str = "") -> int:
        """Call off all tasks that fit, however many; how many there were. To mean all, name the states."""
        return sum([count async for count in self.canceling(where, reason)])

    async def canceling(self, where: Where, reason: str = "") -> AsyncIterator[int]:
        """As ``cancel``, for many: how many each portion had, once it is called off."""
        request = tasks_pb2.CancelTasksRequest(filter=where.message(), reason=reason)
        while True:
            answer = await self._asker.ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).CancelTasks(request))
            yield len(answer.canceled)
            if not answer.more or not answer.canceled:
                return

    async def cancel_each(self, ids: Sequence[str], reason: str = "") -> list[Refusal]:
        """Call these tasks off; what could not be, with the reason."""
        request = tasks_pb2.CancelTasksRequest(ids=ids, reason=reason)
        answer = await self._asker.ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).CancelTasks(request))
        return [decode_refusal(refusal) for refusal in answer.refusals]

    async def workers(self) -> list[dict[str, Any]]:
        """The workers that the control plane knows."""
        request = tasks_pb2.ListWorkersRequest()
        answer = await self._asker.ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).ListWorkers(request))
        return [worker_view(message) for message in answer.workers]

    async def status(self) -> dict[str, Any]:
        """The control plane in a few numbers."""
        request = tasks_pb2.GetStatusRequest()
        return status_view(await self._asker.ask(lambda channel: tasks_pb2_grpc.TasksStub(channel).GetStatus(request)))

    # Queues, limits, tenants

    async def queues(self) -> list[dict[str, Any]]:
        """The queues, one for each capability, by name."""

        async def page(cursor: str) -> queues_pb2.ListQueuesResponse:
            request = queues_pb2.ListQueuesRequest(limit=_PAGE, cursor=cursor)
            return await self._asker.ask(lambda channel: queues_pb2_grpc.QueuesStub(channel).ListQueues(request))

        return [queue_view(message) async for answer in _pages(page) for message in answer.queues]

    async def queue(self, capability: str) -> dict[str, Any]:
        """One queue, with what each tenant has in it."""
        request = queues_pb2.GetQueueRequest(capability=capability)
        return queue_view(await self._asker.ask(lambda channel: queues_pb2_grpc.QueuesStub(channel).GetQueue(request)))

    async def pause_queue(self, capability: str, reason: str = "") -> None:
        """Give nothing of a capability out; what runs goes on."""
        request = queues_pb2.PauseQueueRequest(capability=capability, reason=reason)
        await self._asker.ask(lambda channel: queues_pb2_grpc.QueuesStub(channel).PauseQueue(request))

    async def resume_queue(self, capability: str) -> None:
        """Give it out again."""
        request = queues_pb2.ResumeQueueRequest(capability=capability)
        await self._asker.ask(lambda channel: queues_pb2_grpc.QueuesStub(channel).ResumeQueue(request))

    async def set_rule(
        self, kind: RuleKind | str, name: str, *, concurrency: int = 0, rate_hz: float = 0.0, burst: int = 1
    ) -> None:
        """Limit the attempts at a capability (CAPABILITY), for a tenant (TENANT), or at a capability with the same key,
        each key by itself (KEY). It takes the place of the limit of the same kind and name; without limits it ends it.

        Args:
            kind: what is counted.
            name: of the capability or the tenant.
            concurrency: attempts that may live at once; 0: any number.
            rate_hz: attempts that may begin in a second; 0: any number. A thousandth is the smallest step.
            burst: how many may begin at once after a pause, within the rate.
        """
        if not (rate_hz == 0 or 1 / _MILLI <= rate_hz <= _RATE_HZ_MAX):
            raise ValueError(f"rate_hz: {rate_hz!r} is neither 0 nor between 0.001 and {_RATE_HZ_MAX:,}")
        rule = queues_pb2.Rule(
            kind=int(_choice("kind", RuleKind, kind)),  # type: ignore[arg-type]  # the numbers are those of the wire
            name=name,
            concurrency=_count("concurrency", concurrency, 2**32),
            rate_millihz=round(rate_hz * _MILLI),
            burst=_count("burst", burst, 2**32),
        )
        request = queues_pb2.SetRuleRequest(rule=rule)
        await self._asker.ask(lambda channel: queues_pb2_grpc.QueuesStub(channel).SetRule(request))

    async def rules(self) -> list[dict[str, Any]]:
        """The limits that hold."""
        request = queues_pb2.ListRulesRequest()
        answer = await self._asker.ask(lambda channel: queues_pb2_grpc.QueuesStub(channel).ListRules(request))
        return [rule_view(message) for message in answer.rules]

    async def set_tenant(self, name: str, *, weight: int = 1, live_max: int = 0) -> None:
        """Set what a tenant gets.

        Args:
            name: of the tenant.
            weight: its share of the workers, against those of the others.
            live_max: tasks that are not final; 0: as many as the control plane takes.
        """
        tenant = queues_pb2.Tenant(
            name=name, weight=_count("weight", weight, 2**32), live_max=_count("live_max", live_max, 2**63)
        )
        request = queues_pb2.SetTenantRequest(tenant=tenant)
        await self._asker.ask(lambda channel: queues_pb2_grpc.QueuesStub(channel).SetTenant(request))

    async def tenants(self) -> list[dict[str, Any]]:
        """The tenants that have tasks or settings of their own."""
        request = queues_pb2.ListTenantsRequest()
        answer = await self._asker.ask(lambda channel: queues_pb2_grpc.QueuesStub(channel).ListTenants(request))
        return [tenant_view(message) for message in answer.tenants]

    # Dead letters

    async def dead(self, where: Where | None = None, *, limit: int = 100, cursor: str = "") -> Page:
        """Tasks that failed for good and that nobody has tried again or purged, a page at a time."""
        request = dead_letters_pb2.ListDeadRequest(filter=(where or Where()).message(), limit=limit, cursor=cursor)
        return _page(
            await self._asker.ask(lambda channel: dead_letters_pb2_grpc.DeadLettersStub(channel).ListDead(request))
        )

    async def retry_dead(self, ids: Sequence[str] = (), where: Where | None = None) -> Retried:
        """Try dead letters again, each by a new task that names it as its origin: these, or all that fit.

        When the connection breaks meanwhile (``Unreachable``), some may have been tried again: those are dead letters no
        longer.
        """
        retried = Retried([], [])
        request = dead_letters_pb2.RetryDeadRequest(ids=ids, filter=_chosen(ids, where))
        while True:
            answer = await self._asker.order(
                lambda channel: dead_letters_pb2_grpc.DeadLettersStub(channel).RetryDead(request)
            )
            retried.pairs.extend((item.dead_id, item.task_id) for item in answer.retried)
            retried.refusals.extend(decode_refusal(refusal) for refusal in answer.refusals)
            if not answer.more or not answer.retried:
                return retried

    async def purge_dead(self, ids: Sequence[str] = (), where: Where | None = None) -> Purged:
        """Let dead letters go that nobody needs any more: these, or all that fit."""
        purged = Purged([], [])
        request = dead_letters_pb2.PurgeDeadRequest(ids=ids, filter=_chosen(ids, where))
        while True:
            answer = await self._asker.order(
                lambda channel: dead_letters_pb2_grpc.DeadLettersStub(channel).PurgeDead(request)
            )
            purged.tasks.extend(answer.purged)
            purged.refusals.extend(decode_refusal(refusal) for refusal in answer.refusals)
            if not answer.more or not answer.purged:
                return purged

    # Schedules

    async def set_schedule(
        self,
        name: str,
        cron: str,
        request: TaskRequest,
        *,
        zone: str = "UTC",
        missed: Missed | str = Missed.ONE,
        overlap: Overlap | str = Overlap.SKIP,
        paused: bool = False,
    ) -> list[str]:
        """Make a task again and again, by a schedule that is new or takes the place of the one of its name.

        Args:
            name: of the schedule.
            cron: five fields, as in crontab(5), or six with seconds first.
            request: the task, without what each one has of its own (``after``, ``inputs``, times, idempotency key).
            zone: of the IANA database, such as Europe/Berlin.
            missed: what becomes of times that passed while nobody was there: SKIP, ONE task for all, or ALL of them.
            overlap: what becomes of a time that comes while the task before is not final: SKIP it, ALLOW both, or CANCEL
                the one before.
            paused: make no tasks for now.

        Returns:
            When it is due next, as ISO 8601 in UTC.
        """
        if request.delay_s is not None:
            raise ValueError("request.delay_s: a scheduled task begins at the schedule's times; leave it out")
        data, blob = encode_parameters(request.parameters), ""
        if len(data) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"request.parameters: {len(data):,} bytes; {PAYLOAD_BYTES_MAX:,} at most")
        prepared = Prepared.of(request)
        if len(data) > PAYLOAD_INLINE_BYTES_MAX:
            content = data
            data, blob = b"", await self._asker.ask(lambda channel: put_blob(channel, content))
        schedule = schedules_pb2.Schedule(
            name=name,
            tenant=self._tenant,
            cron=cron,
            zone=zone,
            template=encode_spec(prepared.spec("", request.capability, data, blob)),
            missed=int(_choice("missed", Missed, missed)),  # type: ignore[arg-type]  # the numbers are those of the wire
            overlap=int(_choice("overlap", Overlap, overlap)),  # type: ignore[arg-type]  # as above
            paused=paused,
        )
        return await self._set(schedules_pb2.SetScheduleRequest(schedule=schedule))

    async def schedules(self) -> list[dict[str, Any]]:
        """The schedules, by name."""
        return [schedule_view(message) async for message in self._schedules()]

    async def _schedules(self) -> AsyncIterator[schedules_pb2.PlannedSchedule]:
        async def page(cursor: str) -> schedules_pb2.ListSchedulesResponse:
            request = schedules_pb2.ListSchedulesRequest(limit=_PAGE, cursor=cursor)
            return await self._asker.ask(
                lambda channel: schedules_pb2_grpc.SchedulesStub(channel).ListSchedules(request)
            )

        async for answer in _pages(page):
            for message in answer.schedules:
                yield message

    async def pause_schedule(self, name: str) -> None:
        """No tasks of this schedule for now. Its times that pass meanwhile are not missed, they do not count."""
        await self._set_paused(name, paused=True)

    async def resume_schedule(self, name: str) -> list[str]:
        """Tasks again from now on; when it is due next, as ISO 8601 in UTC."""
        return await self._set_paused(name, paused=False)

    async def _set_paused(self, name: str, *, paused: bool) -> list[str]:
        # The schedule as it is, set anew: whoever changes it at the very same moment may have to say it again.
        async for planned in self._schedules():
            if planned.schedule.name == name:
                order = schedules_pb2.SetScheduleRequest(schedule=planned.schedule)
                order.schedule.paused = paused
                return await self._set(order)
        raise Refused(Refusal("", "not_found", "name", f"there is no schedule {name}"))

    async def _set(self, order: schedules_pb2.SetScheduleRequest) -> list[str]:
        answer = await self._asker.ask(lambda channel: schedules_pb2_grpc.SchedulesStub(channel).SetSchedule(order))
        return [when(time_ns) or "" for time_ns in answer.next_ns]

    async def remove_schedule(self, name: str) -> None:
        """No more tasks of this schedule; those that it has made go on."""
        request = schedules_pb2.RemoveScheduleRequest(name=name)
        await self._asker.order(lambda channel: schedules_pb2_grpc.SchedulesStub(channel).RemoveSchedule(request))

    async def run_schedule(self, name: str) -> str:
        """Make a schedule's task now, beside its times; its id."""
        request = schedules_pb2.RunScheduleRequest(name=name)
        answer = await self._asker.order(lambda channel: schedules_pb2_grpc.SchedulesStub(channel).RunSchedule(request))
        return answer.task_id


async def _pages(page: Callable[[str], Awaitable[Answer]]) -> AsyncIterator[Answer]:
    cursor = ""
    while True:
        answer = await page(cursor)
        yield answer
        cursor = answer.next_cursor
        if not cursor:
            return


def _page(answer: tasks_pb2.ListTasksResponse) -> Page:
    tasks = [task_view(message) for message in answer.tasks]
    return Page(tasks, answer.next_cursor, answer.sequence, answer.lacking)


def _chosen(ids: Sequence[str], where: Where | None) -> tasks_pb2.TaskFilter | None:
    if bool(ids) == (where is not None):
        raise ValueError("ids: say either which dead letters are meant, or by `where` what they have in common")
    return None if where is None else where.message()


def _count(field: str, count: int, end: int) -> int:
    if not isinstance(count, int) or not 0 <= count < end:
        raise ValueError(f"{field}: {count!r} is no whole number from 0 on, or too large")
    return count


def _choice(field: str, choices: type[Choice], wanted: Choice | str) -> Choice:
    try:
        return choices[wanted.upper()] if isinstance(wanted, str) else choices(wanted)
    except (KeyError, ValueError):
        raise ValueError(f"{field}: {wanted!r} is none of {', '.join(item.name for item in choices)}") from None


def _state(name: str) -> int:
    try:
        return tasks_pb2.TaskState.Value(f"TASK_STATE_{name.upper()}")
    except ValueError:
        names = ", ".join(item.removeprefix("TASK_STATE_") for item in tasks_pb2.TaskState.keys()[1:])
        raise ValueError(f"state: {name!r} is none of {names}") from None
