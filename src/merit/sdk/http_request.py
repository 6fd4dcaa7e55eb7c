"""From arguments to a request: what a parameter can fill, and what it never can.

Parameters stand in segments of the path, in values of the query, and in the body; never in the scheme, the host, a name
or a header. In the path and the query everything but letters, digits and `-._~` is percent-encoded, so that a value is
one segment or one value whatever is in it. Only dots are not safe that way: to a server `%2E%2E` is the same as `..`
(RFC 3986, 6.2.2), so a value that holds such a step, or leaves a segment empty, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlencode

import msgspec

from merit.sdk.command_template import Template, text_of
from merit.sdk.http_schema import DeclaredInput
from merit.sdk.http_spec import HttpCallSpec
from merit.sdk.schema import CapabilityError, InvalidInput

TARGET_BYTES_MAX = 8 * 1024
"""Of path and query: what most servers take."""

_LITERAL_SAFE = "%!$&'()*+,;=:@~"
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SEPARATORS = re.compile(r"[/\\]")
_WITH_BODY = ("POST", "PUT", "PATCH")

Arguments = Mapping[str, Any]
Write = Callable[[Arguments], Any]
_LEFT_OUT: Any = object()


@dataclass(frozen=True, slots=True)
class HttpRequestPlan:
    """The request of one capability, to be filled with arguments. `content_type` is None for a request without a body."""

    segments: tuple[Template, ...]
    query: tuple[tuple[str, Template], ...]
    write_body: Callable[[Arguments], bytes] | None
    content_type: str | None

    @classmethod
    def of(cls, spec: HttpCallSpec, declared: DeclaredInput) -> HttpRequestPlan:
        """Raises CapabilityError for what does not fit together."""
        name = spec.name
        segments = _segments(name, spec.path)
        query = tuple((quote(key, safe=""), Template.parse(name, text)) for key, text in spec.query.items())
        body = _Body(spec, declared)
        for template in (*segments, *(t for _, t in query if _only(t) is None)):
            _need(name, template, declared)
        used = {n for template in (*segments, *(t for _, t in query)) for n in template.names} | body.used
        for unknown in sorted(used - declared.names):
            raise CapabilityError(f"{name}: placeholder {{{unknown}}} has no parameter; declare it in input.properties")
        if not body.takes_all:
            for idle in sorted(declared.names - used):
                raise CapabilityError(
                    f"{name}: parameter '{idle}' is used in neither path, query nor body; use it, or take it out of input"
                )
        return cls(segments, query, body.write, body.content_type)

    def target(self, arguments: Arguments) -> str:
        """Path and query, percent-encoded. Raises InvalidInput for what cannot stand there."""
        target = "".join(f"/{_filled_segment(template, arguments)}" for template in self.segments)
        pairs = [
            f"{key}={quote(text, safe='')}" for key, template in self.query for text in _texts(template, arguments)
        ]
        if pairs:
            target += f"?{'&'.join(pairs)}"
        if len(target) > TARGET_BYTES_MAX:
            raise InvalidInput(
                f"path and query would have {len(target)} bytes, the limit is {TARGET_BYTES_MAX}; give shorter values"
            )
        return target

    def content(self, arguments: Arguments) -> bytes | None:
        """The body, or None for none. Raises InvalidInput for what cannot stand there."""
        return None if self.write_body is None else self.write_body(arguments)


# --- path and query -----------------------------------------------------------------------------------------------------


def _segments(name: str, path: str) -> tuple[Template, ...]:
    where = f"{name}: path {path!r}"
    if not path.startswith("/"):
        raise CapabilityError(f"{where} must begin with '/'")
    if any(char in path for char in "?#\\"):
        raise CapabilityError(
            f"{where}: '?', '#' and '\\' have no place in it; what stands behind '?' belongs in query"
        )
    if _BARE_PERCENT.search(path):
        raise CapabilityError(f"{where}: a '%' that is meant as such is written %25")
    segments = tuple(Template.parse(name, segment) for segment in path[1:].split("/"))
    for template in segments:
        if not template.names and unquote(template.fill({})) in (".", ".."):
            raise CapabilityError(f"{where}: write it without '.' and '..'")
    return segments


def _filled_segment(template: Template, arguments: Arguments) -> str:
    texts = {name: text_of(name, arguments[name]) for name in template.names}
    if texts:
        meant = "".join(unquote(literal) + (texts[name] if name else "") for literal, name in template.pieces)
        names = ", ".join(texts)
        if not meant:
            raise InvalidInput(f"{names}: must not be empty, since it is a part of the path")
        if any(part in (".", "..") for part in _SEPARATORS.split(meant)):
            raise InvalidInput(f"{names}: must not lead to another path by '.' or '..'")
    encoded = {name: quote(text, safe="") for name, text in texts.items()}
    return "".join(
        quote(literal, safe=_LITERAL_SAFE) + (encoded[name] if name else "") for literal, name in template.pieces
    )


def _texts(template: Template, arguments: Arguments) -> list[str]:
    """The values of one name in a query or form: several for a list, none for a parameter that is not given, or null."""
    only = _only(template)
    if only is None:
        return [template.fill({name: text_of(name, arguments[name]) for name in template.names})]
    return _values(only, arguments.get(only))


def _values(name: str, value: Any) -> list[str]:
    if value is None:
        return []
    return [text_of(name, one) for one in value] if isinstance(value, list) else [text_of(name, value)]


def _only(template: Template) -> str | None:
    """The parameter that is the whole of the text, if one is."""
    return template.names[0] if len(template.pieces) == 1 and not template.pieces[0][0] and template.names else None


def _need(name: str, template: Template, declared: DeclaredInput) -> None:
    """Raise CapabilityError for a placeholder that cannot be left out, and whose parameter may be missing."""
    for needed in template.names:
        if needed in declared.names - declared.sure:
            raise CapabilityError(
                f"{name}: parameter '{needed}' may be missing where {{{needed}}} stands; list it in input.required, "
                "or give it a default"
            )


# --- body ---------------------------------------------------------------------------------------------------------------


class _Body:
    """How the body of one capability is written, and of what."""

    def __init__(self, spec: HttpCallSpec, declared: DeclaredInput) -> None:
        kind = _kind_of_body(spec)
        self._name = spec.name
        self._declared = declared
        self.used: set[str] = set()
        self.takes_all = kind in ("json", "form")
        self.write: Callable[[Arguments], bytes] | None = None
        usual: str | None = None
        if kind in ("json", "form"):
            self.write = msgspec.json.encode if kind == "json" else _form
            usual = "application/json" if kind == "json" else "application/x-www-form-urlencoded"
        elif kind == "body_json":
            write, usual = self._json(spec.body_json), "application/json"
            if isinstance(spec.body_json, str):
                _need(spec.name, Template.parse(spec.name, spec.body_json), declared)
            self.write = lambda arguments: msgspec.json.encode(write(arguments))
        elif kind == "body_text":
            usual = "text/plain; charset=utf-8"
            if spec.content_type and "json" in spec.content_type.lower():
                raise CapabilityError(f"{spec.name}: body_text: values would break out of JSON; use body_json")
            self.write = self._text(spec.body_text or "")
        elif spec.content_type:
            raise CapabilityError(f"{spec.name}: content_type: there is no body that it could be the type of")
        self.content_type = (spec.content_type or usual) if self.write else None

    def _json(self, value: Any) -> Write:
        """Writes `value` with its placeholders filled: one that is a whole string becomes the parameter, of whatever type."""
        if isinstance(value, str):
            template = self._template(value)
            only = _only(template)
            if only is not None:
                return lambda arguments: arguments.get(only, _LEFT_OUT)
            _need(self._name, template, self._declared)
            return lambda arguments: template.fill({n: text_of(n, arguments[n]) for n in template.names})
        if isinstance(value, list):
            items = [self._json(one) for one in value]
            return lambda arguments: [v for write in items if (v := write(arguments)) is not _LEFT_OUT]
        if isinstance(value, dict):
            fields = [(key, self._json(one)) for key, one in value.items()]
            return lambda arguments: {k: v for k, write in fields if (v := write(arguments)) is not _LEFT_OUT}
        return lambda arguments: value

    def _text(self, text: str) -> Callable[[Arguments], bytes]:
        template = self._template(text)
        _need(self._name, template, self._declared)

        return lambda arguments: template.fill({n: text_of(n, arguments[n]) for n in template.names}).encode()

    def _template(self, text: str) -> Template:
        template = Template.parse(self._name, text)
        self.used.update(template.names)
        return template


def takes_all(spec: HttpCallSpec) -> bool:
    """Whether the body holds all parameters, whatever they are called. Raises CapabilityError for two bodies."""
    return _kind_of_body(spec) in ("json", "form")


def _kind_of_body(spec: HttpCallSpec) -> str:
    given = [one for one in ("body", "body_json", "body_text") if getattr(spec, one) is not None]
    if len(given) > 1:
        raise CapabilityError(f"{spec.name}: {given[0]} and {given[1]}: a request has one body; take one out")
    kind = spec.body or (given[0] if given else "json" if spec.method in _WITH_BODY else "none")
    if spec.method == "GET" and kind != "none":
        raise CapabilityError(f"{spec.name}: {given[0]}: GET takes no body; use query, or another method")
    return kind


def _form(arguments: Arguments) -> bytes:
    return urlencode([(name, text) for name, value in arguments.items() for text in _values(name, value)]).encode()
