"""Queues, limits and tenants: what operators see and set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from heapq import nsmallest

import grpc
from msgspec import Struct

from merit.gateway.answers import obey, refuse
from merit.gateway.fields import BadField, check_name, check_text
from merit.gateway.identity import tenant_of
from merit.gateway.portions import portions
from merit.gateway.settings_check import check_rule, check_tenant_terms
from merit.gateway.task_search import page_size
from merit.model.commands import PauseQueue, ResumeQueue, SetRule, SetTenant
from merit.model.limits import DESCRIPTION_LENGTH_MAX, NAME_LENGTH_MAX
from merit.model.rules import RuleKind
from merit.model.tasks import TaskState
from merit.model.tenancy import LOCAL_PRINCIPAL
from merit.ports.cell import Cell
from merit.wire.settings import decode_rule, decode_tenant, encode_rule, encode_tenant
from merit.wire.v1 import queues_pb2, queues_pb2_grpc

_OF_CAPABILITIES = (RuleKind.CAPABILITY, RuleKind.KEY)


class _Counts(Struct):
    """Of some capabilities, each as it was when it was looked at."""

    running: dict[str, Counter[str]]
    """Attempts that are alive, by capability, then by tenant."""
    oldest_ns: dict[str, int]
    """Since when the pending task has waited that waits the longest, Unix time."""


class QueuesService(queues_pb2_grpc.QueuesServicer):
    """See the module."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    async def ListQueues(  # noqa: N802  (the contract's name)
        self,
        request: queues_pb2.ListQueuesRequest,
        context: grpc.aio.ServicerContext[queues_pb2.ListQueuesRequest, queues_pb2.ListQueuesResponse],
    ) -> queues_pb2.ListQueuesResponse:
        """The queues that there are, by name; a page at a time."""
        try:
            check_text("cursor", request.cursor, 0, NAME_LENGTH_MAX)
        except BadField as refused:
            await refuse(context, refused)
        count_max = page_size(request.limit)
        names = await self._names(request.cursor, count_max + 1)
        page = names[:count_max]
        counts = await self._count(frozenset(page))
        return queues_pb2.ListQueuesResponse(
            queues=[self._view(name, counts) for name in page],
            next_cursor=page[-1] if len(names) > count_max else "",
        )

    async def GetQueue(  # noqa: N802  (the contract's name)
        self,
        request: queues_pb2.GetQueueRequest,
        context: grpc.aio.ServicerContext[queues_pb2.GetQueueRequest, queues_pb2.Queue],
    ) -> queues_pb2.Queue:
        """One queue, with the tenants that have anything in it."""
        name = request.capability
        try:
            check_name("capability", name)
        except BadField as refused:
            await refuse(context, refused)
        counts = await self._count({name})
        if not (counts.running[name] or self._known(name)):
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"capability: no worker has ever offered {name}, and nothing waits for it"
            )
        message = self._view(name, counts)
        pending: Counter[str] = Counter()
        for queue in self._cell.desk.backlog.of_capability(name):
            pending.update({tenant: flow.size for tenant, flow in queue.flows.items() if flow.size})
        running = counts.running[name]
        for tenant in sorted(pending.keys() | running.keys()):
            message.tenants.add(tenant=tenant, pending=pending[tenant], running=running[tenant])
        return message

    def _known(self, name: str) -> bool:
        state = self._cell.state
        return (
            name in state.offers
            or name in state.paused
            or self._cell.desk.backlog.pending(name) > 0
            or any((kind, name) in state.rules for kind in _OF_CAPABILITIES)
        )

    async def _names(self, above: str, count_max: int) -> list[str]:
        """The first names of queues after this one. There may be as many of them as there are tasks."""
        state = self._cell.state
        names = {*state.offers, *state.paused, *(name for kind, name in state.rules if kind in _OF_CAPABILITIES)}
        first = nsmallest(count_max, (name for name in names if name > above))
        async for portion in portions(self._cell.desk.backlog.queues.values()):
            more = {queue.capability for queue in portion if queue.size and queue.capability > above}
            first = nsmallest(count_max, more.union(first))
        return first

    async def _count(self, names: AbstractSet[str]) -> _Counts:
        state = self._cell.state
        counts = _Counts({name: Counter() for name in names}, {})
        async for portion in portions([task_id for worker in state.workers.values() for task_id in worker.attempts]):
            for task_id in portion:
                task = state.tasks.get(task_id)
                if task is not None and task.capability in names:
                    counts.running[task.capability][task.tenant] += 1
        waiting = {name for name in names if self._cell.desk.backlog.pending(name)}
        if waiting:
            await self._find_oldest(waiting, counts.oldest_ns)
        return counts

    async def _find_oldest(self, waiting: set[str], oldest_ns: dict[str, int]) -> None:
        """Tasks come in the order in which they were submitted, so the first one of each that is pending is it, but for
        one that had to wait for its time."""
        async for portion in portions(self._cell.state.tasks.values()):
            for task in portion:
                if task.state is TaskState.PENDING and task.capability in waiting:
                    oldest_ns[task.capability] = task.since_ns
                    waiting.discard(task.capability)
            if not waiting:
                return

    def _view(self, name: str, counts: _Counts) -> queues_pb2.Queue:
        state = self._cell.state
        since_ns = counts.oldest_ns.get(name)
        rules = (state.rules.get((kind, name)) for kind in _OF_CAPABILITIES)
        return queues_pb2.Queue(
            capability=name,
            pending=self._cell.desk.backlog.pending(name),
            running=counts.running[name].total(),
            workers=len(self._cell.desk.lines.offering(name)),
            paused=name in state.paused,
            pause_reason=state.paused.get(name, ""),
            oldest_age_ns=max(1, self._cell.now_ns - since_ns) if since_ns is not None else 0,
            rules=[encode_rule(rule) for rule in rules if rule is not None],
            auditing=sum(state.tasks[case].capability == name for case in state.cases),
        )

    async def PauseQueue(  # noqa: N802  (the contract's name)
        self,
        request: queues_pb2.PauseQueueRequest,
        context: grpc.aio.ServicerContext[queues_pb2.PauseQueueRequest, queues_pb2.PauseQueueResponse],
    ) -> queues_pb2.PauseQueueResponse:
        """Give nothing of a capability out; what runs goes on."""
        tenant = await tenant_of(context)
        try:
            check_name("capability", request.capability)
            check_text("reason", request.reason, 0, DESCRIPTION_LENGTH_MAX)
        except BadField as refused:
            await refuse(context, refused)
        await obey(self._cell, context, PauseQueue(tenant, LOCAL_PRINCIPAL, request.capability, request.reason))
        return queues_pb2.PauseQueueResponse()

    async def ResumeQueue(  # noqa: N802  (the contract's name)
        self,
        request: queues_pb2.ResumeQueueRequest,
        context: grpc.aio.ServicerContext[queues_pb2.ResumeQueueRequest, queues_pb2.ResumeQueueResponse],
    ) -> queues_pb2.ResumeQueueResponse:
        """Give it out again."""
        tenant = await tenant_of(context)
        try:
            check_name("capability", request.capability)
        except BadField as refused:
            await refuse(context, refused)
        await obey(self._cell, context, ResumeQueue(tenant, LOCAL_PRINCIPAL, request.capability))
        return queues_pb2.ResumeQueueResponse()

    async def SetRule(  # noqa: N802  (the contract's name)
        self,
        request: queues_pb2.SetRuleRequest,
        context: grpc.aio.ServicerContext[queues_pb2.SetRuleRequest, queues_pb2.SetRuleResponse],
    ) -> queues_pb2.SetRuleResponse:
        """A limit, in place of the one of its kind and name."""
        tenant = await tenant_of(context)
        try:
            rule = decode_rule(request.rule)
            check_rule(rule)
        except (BadField, ValueError) as error:
            await refuse(context, error)
        await obey(self._cell, context, SetRule(tenant, LOCAL_PRINCIPAL, rule))
        return queues_pb2.SetRuleResponse()

    async def ListRules(  # noqa: N802  (the contract's name)
        self,
        request: queues_pb2.ListRulesRequest,
        context: grpc.aio.ServicerContext[queues_pb2.ListRulesRequest, queues_pb2.ListRulesResponse],
    ) -> queues_pb2.ListRulesResponse:
        """All limits, by kind and name; ``RULES_MAX`` at most, so that one answer has room for them."""
        del request, context
        rules = sorted(self._cell.state.rules.items())
        return queues_pb2.ListRulesResponse(rules=[encode_rule(rule) for _, rule in rules])

    async def SetTenant(  # noqa: N802  (the contract's name)
        self,
        request: queues_pb2.SetTenantRequest,
        context: grpc.aio.ServicerContext[queues_pb2.SetTenantRequest, queues_pb2.SetTenantResponse],
    ) -> queues_pb2.SetTenantResponse:
        """What a tenant gets."""
        tenant = await tenant_of(context)
        terms = decode_tenant(request.tenant)
        try:
            check_tenant_terms(terms)
        except BadField as refused:
            await refuse(context, refused)
        await obey(self._cell, context, SetTenant(tenant, LOCAL_PRINCIPAL, terms))
        return queues_pb2.SetTenantResponse()

    async def ListTenants(  # noqa: N802  (the contract's name)
        self,
        request: queues_pb2.ListTenantsRequest,
        context: grpc.aio.ServicerContext[queues_pb2.ListTenantsRequest, queues_pb2.ListTenantsResponse],
    ) -> queues_pb2.ListTenantsResponse:
        """The tenants that have live tasks or settings of their own, by name; ``tenants_max`` bounds them."""
        del request, context
        tenants = sorted(self._cell.state.tenants.items())
        return queues_pb2.ListTenantsResponse(
            tenants=[encode_tenant(tenant.terms, tenant.live) for _, tenant in tenants]
        )
