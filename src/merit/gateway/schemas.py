"""JSON Schemas of capabilities, compiled once each; they never fetch anything and match in linear time."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any, Final

import jsonschema_rs

from merit.model.json_check import BadJson, check_json

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
REASON_LENGTH_MAX: Final = 500
COMPILED_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of schemas kept compiled, by their text; compiled they take about four times as much."""


class BadSchema(ValueError):
    """The schema cannot be used; the message says why."""


class _Refuses:
    """Retriever for references to other documents: there are none to be had."""

    def __call__(self, uri: str) -> Any:
        raise ValueError(f"reference to {uri}: a schema must be complete in itself")


class Schemas:
    """Compiled schemas by their text; the least recently used ones are forgotten."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[bytes, Any] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # frames that name blobs are checked in threads

    def validator(self, schema: bytes) -> Any:
        """The compiled schema.

        Raises:
            BadSchema: it is no JSON Schema 2020-12, refers to other documents, or has a pattern that cannot be
                matched in linear time.
        """
        with self._lock:
            compiled = self._compiled.get(schema)
            if compiled is not None:
                self._compiled.move_to_end(schema)
                return compiled
            compiled = self._compiled[schema] = _compile(schema)
            self._bytes += len(schema)
            while self._bytes > COMPILED_BYTES_MAX:
                self._bytes -= len(self._compiled.popitem(last=False)[0])
            return compiled

    def problem(self, schema: bytes, value: Any) -> tuple[str, str] | None:
        """Where ``value`` does not fit and why, or None when it fits. The place is a path such as ``user.tags[2]``."""
        validator = self.validator(schema)
        if validator.is_valid(value):
            return None
        error = next(iter(validator.iter_errors(value)))
        return _brief(_path(error.instance_path)), _brief(str(error.message))


def _compile(schema: bytes) -> Any:
    try:
        document = check_json(schema)
        if not isinstance(document, dict | bool):
            raise BadSchema("must be an object or a boolean")
        # Before anything looks at it: the check of a schema fetches the dialect that it names, if it is unknown.
        if isinstance(document, dict) and document.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
            raise BadSchema(f"$schema: must be {DIALECT}, or left out")
        jsonschema_rs.meta.validate(document)
        return jsonschema_rs.Draft202012Validator(
            document,
            retriever=_Refuses(),
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=False,
        )
    except (BadJson, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise BadSchema(_brief(str(error).split("\n", 1)[0])) from error


def _brief(text: str) -> str:
    """The library quotes what does not fit in full, however large; its end is what says why."""
    if len(text) <= REASON_LENGTH_MAX:
        return text
    half = REASON_LENGTH_MAX // 2
    return f"{text[:half]} … {text[-half:]}"


def _path(parts: list[str | int]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
