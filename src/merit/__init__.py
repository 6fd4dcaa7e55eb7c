"""Merit: a control plane for fleets of agents. Agents earn their work.

What most programs need is here; it is loaded when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merit.core.trails import CheckedTrail, TrailInvalid, check_trail
    from merit.model.tasks import Priority
    from merit.sdk.audits import Audit, GoldExample, LogAudit, ResultComparison, ResultRule
    from merit.sdk.capability import Capability, capability
    from merit.sdk.client import AsyncClient
    from merit.sdk.command_line import command_line, load_commands
    from merit.sdk.context import Cancelled, Context, Permanent, current
    from merit.sdk.fleet_operations import AdmissionProbe, WorkerWhere
    from merit.sdk.following import Step
    from merit.sdk.handles import TaskHandle
    from merit.sdk.http_agent import HttpAgent, http_capability, load_http_agent
    from merit.sdk.operations import Where
    from merit.sdk.operator_words import on_command
    from merit.sdk.options import Options, Retry, TaskRequest
    from merit.sdk.results import MeritError, Refused, Result, TaskCanceledError, TaskFailedError, Unreachable
    from merit.sdk.sync_client import Client
    from merit.sdk.unary_worker import UnaryWorker, serve_unary
    from merit.sdk.worker import WorkerProcess, serve

_WHERE = {
    "AdmissionProbe": "sdk.fleet_operations",
    "AsyncClient": "sdk.client",
    "Audit": "sdk.audits",
    "Cancelled": "sdk.context",
    "Capability": "sdk.capability",
    "CheckedTrail": "core.trails",
    "Client": "sdk.sync_client",
    "Context": "sdk.context",
    "GoldExample": "sdk.audits",
    "HttpAgent": "sdk.http_agent",
    "LogAudit": "sdk.audits",
    "MeritError": "sdk.results",
    "Options": "sdk.options",
    "Permanent": "sdk.context",
    "Priority": "model.tasks",
    "Refused": "sdk.results",
    "Result": "sdk.results",
    "ResultComparison": "sdk.audits",
    "ResultExpired": "sdk.results",
    "ResultRule": "sdk.audits",
    "Searchable": "sdk.searchable",
    "Retry": "sdk.options",
    "Step": "sdk.following",
    "TaskCanceledError": "sdk.results",
    "TaskFailedError": "sdk.results",
    "TaskHandle": "sdk.handles",
    "TaskRequest": "sdk.options",
    "UnaryWorker": "sdk.unary_worker",
    "TrailInvalid": "core.trails",
    "Unreachable": "sdk.results",
    "Where": "sdk.operations",
    "WorkerProcess": "sdk.worker",
    "WorkerWhere": "sdk.fleet_operations",
    "capability": "sdk.capability",
    "check_trail": "core.trails",
    "command_line": "sdk.command_line",
    "current": "sdk.context",
    "http_capability": "sdk.http_agent",
    "load_commands": "sdk.command_line",
    "load_http_agent": "sdk.http_agent",
    "on_command": "sdk.operator_words",
    "serve": "sdk.worker",
    "serve_unary": "sdk.unary_worker",
}

__all__ = [
    "AdmissionProbe",
    "AsyncClient",
    "Audit",
    "Cancelled",
    "Capability",
    "CheckedTrail",
    "Client",
    "Context",
    "GoldExample",
    "HttpAgent",
    "LogAudit",
    "MeritError",
    "Options",
    "Permanent",
    "Priority",
    "Refused",
    "Result",
    "ResultComparison",
    "ResultExpired",
    "ResultRule",
    "Retry",
    "Searchable",
    "Step",
    "TaskCanceledError",
    "TaskFailedError",
    "TaskHandle",
    "TaskRequest",
    "TrailInvalid",
    "UnaryWorker",
    "Unreachable",
    "Where",
    "WorkerProcess",
    "WorkerWhere",
    "capability",
    "check_trail",
    "command_line",
    "current",
    "http_capability",
    "load_commands",
    "load_http_agent",
    "on_command",
    "serve",
    "serve_unary",
]


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'merit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"merit.{where}"), name)
    globals()[name] = value
    return value
