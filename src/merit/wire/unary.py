"""The unary worker contract and the model: capabilities in its words, and what Merit adds to it in tags and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from merit.model.json_check import BadJson, check_json
from merit.model.limits import NAME_LENGTH_MAX
from merit.model.workers import Offer
from merit.wire.worker_abstraction import worker_abstraction_pb2 as unary

TASK_KEY: Final = "merit-task"
ATTEMPT_KEY: Final = "merit-attempt"
TENANT_KEY: Final = "merit-tenant"
"""In ``Task.metadata``, beside the task's own labels."""
KIND_KEY: Final = "merit-kind"
PERMANENT_KEY: Final = "merit-permanent"
"""In ``TaskResult.metadata`` of a task that failed: what kind of failure it is; ``true``: trying again cannot help."""
WORKER_KEY: Final = "merit-worker"
ATTEMPTS_KEY: Final = "merit-attempts"
"""In that of a task that Merit had done: by whom, and how many attempts it took."""

CONCURRENCY_TAG: Final = "max_concurrency"
REOPEN_TAG: Final = "reopen"
TENANTS_TAG: Final = "tenants"
DRAINING_TAG: Final = "draining"
CAPACITY_TAG: Final = "capacity."
VERSION_TAG: Final = "version."
"""``key=value`` tags of a worker; the last two are followed by the name of a resource or of a capability."""

STOP: Final = "STOP"
PAUSE: Final = "PAUSE"
RESUME: Final = "RESUME"
"""Commands in answers to heartbeats, beside those that operators give."""

FINAL: Final = frozenset({unary.TASK_STATUS_COMPLETED, unary.TASK_STATUS_FAILED, unary.TASK_STATUS_CANCELED})
PARAMETERS_MAX: Final = 256
"""Of one capability."""


class BadParameter(ValueError):
    """A parameter of a task cannot be: ``field`` names it, ``reason`` says why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def parameters_of(task: unary.Task) -> bytes:
    """The parameters of a task as one JSON object.

    Raises:
        BadParameter: one stands twice, or is no JSON that one can live with.
    """
    members: dict[str, msgspec.Raw] = {}
    for parameter in task.parameters:
        field = f"parameters.{parameter.key[:NAME_LENGTH_MAX]}"
        if parameter.key in members:
            raise BadParameter(field, "stands twice")
        data = parameter.value_json.encode()
        try:
            check_json(data)
        except BadJson as error:
            raise BadParameter(field, f"value_json {error}") from None
        members[parameter.key] = msgspec.Raw(data)
    return msgspec.json.encode(members)


_SCHEMA_TYPE: Final[Mapping[str, str]] = {
    "string": "string",
    "str": "string",
    "int": "integer",
    "integer": "integer",
    "number": "number",
    "float": "number",
    "double": "number",
    "boolean": "boolean",
    "bool": "boolean",
    "object": "object",
    "dict": "object",
    "array": "array",
    "list": "array",
}
"""Of a parameter's type: that of JSON Schema. What is not here may be anything."""
_TOOL_TYPE: Final[Mapping[str, str]] = {"integer": "int"}
"""And back, where they differ."""
_TOLD_TYPE: Final = "x-merit-type"
"""Keyword of a property in a schema: the type of the parameter as its worker has told it, where that says more."""
_ANYTHING: Final = "any"
"""Type of a parameter of which nothing better can be said in this contract."""


def schema_of(parameters: Iterable[unary.ToolParameter]) -> bytes:
    """JSON Schema of a capability's parameters; empty when there are none: anything. What is not declared may be there too.

    Raises:
        ValueError: there are too many, or one has no name, or that of another.
    """
    declared = list(parameters)
    if not declared:
        return b""
    if len(declared) > PARAMETERS_MAX:
        raise ValueError(f"{len(declared):,} parameters; {PARAMETERS_MAX} at most")
    properties: dict[str, Any] = {}
    for parameter in declared:
        if not 1 <= len(parameter.name) <= NAME_LENGTH_MAX:
            raise ValueError(f"the name of a parameter has {len(parameter.name):,} characters; 1 to {NAME_LENGTH_MAX}")
        if parameter.name in properties:
            raise ValueError(f"{parameter.name!r} stands twice")
        properties[parameter.name] = _property(parameter)
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    required = [parameter.name for parameter in declared if parameter.required]
    if required:
        schema["required"] = required
    return msgspec.json.encode(schema)


def _property(parameter: unary.ToolParameter) -> dict[str, Any]:
    made: dict[str, Any] = {}
    kind = _SCHEMA_TYPE.get(parameter.type.strip().lower())
    if kind is not None:
        made["type"] = kind
    if parameter.type != _tool_type(kind):
        made[_TOLD_TYPE] = parameter.type  # so that others are told what it has said
    if parameter.description:
        made["description"] = parameter.description
    return made


def _tool_type(kind: object) -> str:
    return _TOOL_TYPE.get(kind, kind) if isinstance(kind, str) else _ANYTHING


def describe(offer: Offer) -> unary.ToolCapability:
    """A capability in the words of this contract: the names, types and descriptions of its parameters."""
    tool = unary.ToolCapability(name=offer.name, description=offer.description)
    schema = msgspec.json.decode(offer.input_schema) if offer.input_schema else {}
    if not isinstance(schema, dict) or not isinstance(schema.get("properties"), dict):
        return tool
    required = schema.get("required")
    for name, described in schema["properties"].items():
        about = described if isinstance(described, dict) else {}
        kind, told, description = (about.get(key) for key in ("type", _TOLD_TYPE, "description"))
        tool.parameters.add(
            name=name,
            type=told if isinstance(told, str) else _tool_type(kind),
            description=description if isinstance(description, str) else "",
            required=isinstance(required, list) and name in required,
        )
    return tool
