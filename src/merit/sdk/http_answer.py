"""What an answer means: a result, a failure that may pass, or one that will not; read within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from merit.sdk.context import Permanent
from merit.sdk.http_spec import HttpCallSpec
from merit.sdk.outcome import bounded_text

if TYPE_CHECKING:
    import httpx2

EXCERPT_BYTES_MAX = 1024
_EXCERPT_READ_BYTES_MAX = 16 * 1024
_EXCERPT_WAIT_S = 1.0
_MAY_PASS = frozenset({408, 425, 429})
"""Request time-out, too early, too many requests: the classes of 4xx that say "later"."""
_KNOWN = frozenset(HTTPStatus)
_NO_CONTENT = frozenset({204, 205})
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252", "utf-16"})


class HttpCallFailed(Exception):
    """The endpoint could not be reached, took too long, or answered something that is no result; it may be better next time.

    `retry_after_s` is how long the answer asked to wait, or None.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """How the answers of one capability are judged and read. `where` names the endpoint in messages, without parameters."""

    where: str
    ok: frozenset[int]
    permanent: frozenset[int]
    answer_bytes_max: int
    result: str
    redact: Callable[[str], str]

    @classmethod
    def of(cls, spec: HttpCallSpec, where: str, redact: Callable[[str], str]) -> AnswerPlan:
        """From what the spec says of it."""
        usual = _statuses(["3xx", "4xx"]) - _MAY_PASS
        permanent = usual if spec.permanent_statuses is None else _statuses(spec.permanent_statuses)
        return cls(where, _statuses(spec.ok_statuses), permanent, spec.answer_bytes_max, spec.result, redact)

    async def result_of(self, response: httpx2.Response, now_s: float) -> Any:
        """The result that the answer holds. `now_s` is Unix time.

        Raises HttpCallFailed, or Permanent where trying again is pointless.
        """
        status = response.status_code
        if status not in self.ok:
            raise await self._failure(response, now_s)
        if status in _NO_CONTENT and self.result == "json":
            return None
        raw = await self._content(response)
        if self.result == "text":
            return self._text(raw, response.charset_encoding or "utf-8")
        if not raw and self.result == "json":
            return None
        try:
            document = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HttpCallFailed(f"{self.where} answered {status} with what is not JSON: {error}") from None
        return document if self.result == "json" else self._at_pointer(document)

    async def _failure(self, response: httpx2.Response, now_s: float) -> Exception:
        status = response.status_code
        phrase = f" {HTTPStatus(status).phrase}" if status in _KNOWN else ""
        said = await self._excerpt(response)
        hint = (
            " (it redirects; redirects says how often to follow, within the same origin)" if 300 <= status < 400 else ""
        )
        message = f"{self.where} answered {status}{phrase}{hint}{said}"
        if status in self.permanent:
            return Permanent(message)
        return HttpCallFailed(message, _retry_after_s(response.headers.get("retry-after", ""), now_s))

    async def _content(self, response: httpx2.Response) -> bytes:
        """The whole answer, decompressed; not a byte more is taken than may be."""
        content = bytearray()
        async with contextlib.aclosing(response.aiter_bytes()) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > self.answer_bytes_max:
                    raise Permanent(
                        f"{self.where} answered with more than {self.answer_bytes_max} bytes (answer_bytes_max)"
                    )
        return bytes(content)

    async def _excerpt(self, response: httpx2.Response) -> str:
        """How the answer begins, for a message; a failure that is slow to explain itself is a failure all the same."""
        import httpx2

        content = bytearray()
        with contextlib.suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(_EXCERPT_WAIT_S), contextlib.aclosing(response.aiter_bytes()) as chunks:
                async for chunk in chunks:
                    content += chunk
                    if len(content) > _EXCERPT_READ_BYTES_MAX:
                        break
        # Secrets go first: a cut could leave half of one.
        text = self.redact(" ".join(content[:_EXCERPT_READ_BYTES_MAX].decode("utf-8", "replace").split()))
        return f"; it says: {bounded_text(text, EXCERPT_BYTES_MAX)}" if text else ""

    def _text(self, raw: bytes, charset: str) -> str:
        if charset not in _CHARSETS:
            raise Permanent(
                f"{self.where} answered in the charset {bounded_text(charset, 80)!r}, which is not read here"
            )
        try:
            return raw.decode(charset)
        except UnicodeDecodeError as error:
            raise HttpCallFailed(f"{self.where} answered with what is no {charset} text: {error.reason}") from None

    def _at_pointer(self, document: Any) -> Any:
        """The value at the JSON pointer (RFC 6901)."""
        value = document
        for step in self.result[1:].split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif (
                isinstance(value, list) and key.isascii() and key.isdecimal() and len(key) < 9 and int(key) < len(value)
            ):
                value = value[int(key)]
            else:
                raise HttpCallFailed(f"{self.where} answered without a value at {self.result}")
        return value


def _statuses(declared: list[Any]) -> frozenset[int]:
    found: set[int] = set()
    for one in declared:
        found.update([one] if isinstance(one, int) else range(int(one[0]) * 100, int(one[0]) * 100 + 100))
    return frozenset(found)


def _retry_after_s(text: str, now_s: float) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110, 10.2.3), a number of seconds or a date; None without one."""
    if text.isascii() and text.isdecimal():
        return float(text) if len(text) < 10 else None
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        return None
