"""The JSON side of a capability whose parameters and result are declared as JSON Schemas instead of type hints."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import msgspec

from merit.model.limits import SCHEMA_BYTES_MAX
from merit.sdk.outcome import bounded_text
from merit.sdk.schema import DIALECT, CapabilityError, InvalidInput, InvalidOutput, Signature, build_signature

REASON_BYTES_MAX = 500
_COMPOSED = ("$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "unevaluatedProperties", "additionalProperties")
"""With one of these, properties may be declared elsewhere in the schema, or the schema says itself what becomes of others."""


class DeclaredInput:
    """The declared parameters of one capability.

    `names` are the properties of the schema, `sure` those of them that every call has: required, or with a default.
    """

    def __init__(self, name: str, schema: dict[str, Any] | None, *, open_unless_said: bool) -> None:
        """Where the schema says nothing of parameters there are none, or any at all if `open_unless_said`.

        Raises CapabilityError for what is no JSON Schema (2020-12) of an object that is complete in itself.
        """
        document: dict[str, Any] = {"type": "object"} if schema is None else schema
        if document.get("type") != "object":
            raise CapabilityError(f'{name}: input: parameters are an object; write type = "object"')
        closed = ("properties" in document or not open_unless_said) and not any(key in document for key in _COMPOSED)
        self.schema = {"$schema": DIALECT, **document, **({"additionalProperties": False} if closed else {})}
        self._validator = _compiled(name, "input", self.schema)
        properties = document.get("properties", {})
        self.defaults = {
            key: value["default"] for key, value in properties.items() if isinstance(value, dict) and "default" in value
        }
        self.names = frozenset(properties)
        self.sure = self.names & (frozenset(document.get("required", ())) | frozenset(self.defaults))
        lax = _compiled(name, "input", {key: value for key, value in self.schema.items() if key != "required"})
        for key, value in self.defaults.items():
            for error in lax.iter_errors({key: value}):
                if error.instance_path[:1] == [key]:
                    raise CapabilityError(f"{name}: input: the default of '{key}' does not fit: {_reason(error)}")

    def decode(self, raw: bytes) -> dict[str, Any]:
        """The arguments, with defaults. Raises InvalidInput."""
        try:
            given = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"parameters are not JSON: {error}") from None
        if not isinstance(given, dict):
            raise InvalidInput("parameters must be a JSON object")
        # A copy: nobody may change the default of all.
        arguments = given if self.defaults.keys() <= given.keys() else copy.deepcopy(self.defaults) | given
        problem = _problem_of(self._validator, arguments)
        if problem:
            raise InvalidInput(problem)
        return arguments


def signature_of_schemas(
    name: str, declared: DeclaredInput, output: dict[str, Any], redact: Callable[[str], str]
) -> Signature:
    """A Signature of schemas. `redact` is asked about every message that quotes a result.

    Raises CapabilityError for an output that is no JSON Schema.
    """
    document = {"$schema": DIALECT, **output}
    validator = _compiled(name, "output", document)
    encode_any = build_signature(name, [], Any).encode

    def encode(value: Any) -> bytes:
        problem = _problem_of(validator, value, redact)
        if problem:
            raise InvalidOutput(f"not of the declared output schema: {problem}")
        return encode_any(value)

    return Signature(input_schema=declared.schema, output_schema=document, decode=declared.decode, encode=encode)


def _refuse(uri: str) -> Any:
    """Retriever for references to other documents: the library would fetch them."""
    raise ValueError(f"reference to {uri}: a schema must be complete in itself")


def _compiled(name: str, field: str, document: dict[str, Any]) -> Any:
    where = f"{name}: {field}"
    if document["$schema"] not in (DIALECT, f"{DIALECT}#"):
        raise CapabilityError(f"{where}: $schema must be {DIALECT}, or left out")
    size_bytes = len(msgspec.json.encode(document))
    if size_bytes > SCHEMA_BYTES_MAX:
        raise CapabilityError(f"{where}: the schema has {size_bytes} bytes, the limit is {SCHEMA_BYTES_MAX}")
    try:
        jsonschema_rs.meta.validate(document)
        return jsonschema_rs.Draft202012Validator(
            document,
            retriever=_refuse,
            pattern_options=jsonschema_rs.RegexOptions(),  # linear in time, as the control plane demands
            validate_formats=False,
        )
    except jsonschema_rs.ValidationError as error:
        raise CapabilityError(f"{where}: not a JSON Schema: {_at(error.instance_path)}{_reason(error)}") from None
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        raise CapabilityError(f"{where}: {_reason(error)}") from None


def _problem_of(validator: Any, value: Any, redact: Callable[[str], str] = str) -> str:
    """Where `value` does not fit and why; empty if it does."""
    if validator.is_valid(value):
        return ""
    error = next(iter(validator.iter_errors(value)))
    return f"{_at(error.instance_path, redact)}{_reason(error, redact)}"


def _at(path: list[str | int], redact: Callable[[str], str] = str) -> str:
    place = redact(".".join(str(step) for step in path))
    return f"{bounded_text(place, REASON_BYTES_MAX)}: " if place else ""


def _reason(error: Exception, redact: Callable[[str], str] = str) -> str:
    """The library quotes what does not fit in full, however large; its end is what says why."""
    text = redact(str(getattr(error, "message", "") or error).split("\n", 1)[0])
    if len(text) <= REASON_BYTES_MAX:
        return bounded_text(text, REASON_BYTES_MAX)
    half = REASON_BYTES_MAX // 2
    return f"{bounded_text(text, half)} {bounded_text(text, half, keep_end=True)}"
