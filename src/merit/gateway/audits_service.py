"""How the results of capabilities are looked at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import grpc

from merit.auditing.compare import MakeComparer
from merit.gateway.answers import Context, obey, refuse
from merit.gateway.audit_check import check_audit
from merit.gateway.audit_items import PolicyProblem
from merit.gateway.auditing_process import CannotAudit
from merit.gateway.fields import BadField, check_name, check_range
from merit.gateway.identity import tenant_of
from merit.gateway.schemas import Schemas
from merit.model.auditing import AuditPolicy
from merit.model.commands import SetAudit
from merit.model.limits import AUDIT_POLICY_BYTES_MAX
from merit.model.tenancy import LOCAL_PRINCIPAL
from merit.ports.cell import Cell
from merit.wire.audits import decode_audit, encode_audit
from merit.wire.v1 import audits_pb2, audits_pb2_grpc


class AuditsService(audits_pb2_grpc.AuditsServicer):
    """See the module.

    Args:
        cell: has the policies.
        schemas: compile those of policies.
        comparers: what can compare results, by name.
        problem: says why rules and auditors of a policy cannot be carried out.
    """

    def __init__(
        self,
        cell: Cell,
        schemas: Schemas,
        comparers: Mapping[str, MakeComparer],
        problem: Callable[[AuditPolicy], Awaitable[PolicyProblem]],
    ) -> None:
        self._cell = cell
        self._schemas = schemas
        self._comparers = comparers
        self._problem = problem

    async def SetAudit(  # noqa: N802  (the contract's name)
        self, request: audits_pb2.SetAuditRequest, context: Context
    ) -> audits_pb2.SetAuditResponse:
        """From now on the results of a capability are looked at like this."""
        tenant = await tenant_of(context)
        try:
            check_range("policy", request.ByteSize(), 0, AUDIT_POLICY_BYTES_MAX)
            policy = decode_audit(request.policy)
            await check_audit(policy, self._schemas, self._comparers, self._problem)
        except (BadField, ValueError) as refused:
            await refuse(context, refused)
        except CannotAudit as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"rules cannot be looked at just now: {error}")
        await obey(self._cell, context, SetAudit(tenant, LOCAL_PRINCIPAL, policy))
        return audits_pb2.SetAuditResponse()

    async def GetAudit(  # noqa: N802  (the contract's name)
        self, request: audits_pb2.GetAuditRequest, context: Context
    ) -> audits_pb2.AuditPolicy:
        """What is set for a capability."""
        try:
            check_name("capability", request.capability)
        except BadField as refused:
            await refuse(context, refused)
        policy = self._cell.state.audits.get(request.capability)
        if policy is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"capability: no audit is set for {request.capability}; set one with: merit capability audit",
            )
        return encode_audit(policy)
