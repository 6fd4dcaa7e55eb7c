"""Makes capabilities of an HTTP endpoint.

    agent = HttpAgent("https://translate.example.org", headers={"Authorization": "Bearer ${env:TRANSLATOR_TOKEN}"})
    translate = http_capability(
        agent,
        "translate",
        path="/v1/{language}/translations",
        input={
            "type": "object",
            "required": ["language", "text"],
            "properties": {"language": {"type": "string"}, "text": {"type": "string"}},
        },
        body_json={"text": "{text}"},
        result="/translation",
    )

Where a request goes is fixed by whoever makes the agent: no parameter and no redirect leads to another scheme, host or
port, and proxies that the environment names are not used. Nothing is kept between requests but connections: no cookies.

Each request says which attempt it belongs to: `Idempotency-Key: TASK.NUMBER`, `Merit-Task`, `Merit-Attempt`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from merit.sdk.amounts import Amounts
from merit.sdk.capability import PREFERENCE_DEFAULT, Capability, register
from merit.sdk.channel import Backoff
from merit.sdk.context import Permanent, active
from merit.sdk.http_answer import AnswerPlan, HttpCallFailed
from merit.sdk.http_request import HttpRequestPlan, takes_all
from merit.sdk.http_schema import DeclaredInput, signature_of_schemas
from merit.sdk.http_spec import (
    ANSWER_BYTES_MAX,
    HttpAgentSettings,
    HttpCallSpec,
    checked,
    read_http_spec,
    with_secrets,
    without,
)
from merit.sdk.outcome import bounded_text, message_of
from merit.sdk.schema import CapabilityError

if TYPE_CHECKING:
    import httpx2

_RETRIES = 2
_FIRST_WAIT_S = 0.2
_IDLE_CONNECTIONS_MAX = 20


class HttpAgent:
    """An endpoint behind which an agent is: one set of connections for all its capabilities.

    `url` is its scheme, host, port, and what all paths begin with. `headers` go with every request; `${env:NAME}` in them is
    the environment variable NAME, now. At most `concurrency` requests are under way at a time, and `requests_per_s` are
    begun in a second. `proxy` is the URL of an HTTP proxy; `ca_file` holds the certificates to trust instead of the system's.

    Raises CapabilityError for what cannot be right, for a variable that is not set, and where httpx2 is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        connect_timeout_s: float = 5.0,
        concurrency: int = 100,
        requests_per_s: float | None = None,
        proxy: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        given = {"headers": dict(headers or {}), "connect_timeout_s": connect_timeout_s, "concurrency": concurrency}
        given |= {"requests_per_s": requests_per_s, "proxy": proxy, "ca_file": ca_file}
        self._settings = checked(HttpAgentSettings, given, "agent: ")
        try:
            import httpx2
        except ImportError:
            raise CapabilityError(
                "agents behind HTTP endpoints need httpx2, which is not installed: pip install 'merit-fleet[http]'"
            ) from None
        self.url = _origin(url, "the agent's URL")
        self._proxy = None if proxy is None else httpx2.Proxy(_origin(proxy, "agent: proxy"))
        self.headers, self.secrets = with_secrets("agent", self._settings.headers)
        try:
            self._tls = (
                ssl.create_default_context(cafile=ca_file) if ca_file else httpx2.create_ssl_context(trust_env=False)
            )
        except (OSError, ValueError) as error:
            raise CapabilityError(f"agent: ca_file: {ca_file} cannot be read as certificates: {error}") from None
        # It would log every URL, and with it the parameters of tasks.
        quiet = logging.getLogger("httpx2")
        quiet.setLevel(quiet.level or logging.WARNING)
        self._lines: dict[asyncio.AbstractEventLoop, _Line] = {}

    def __repr__(self) -> str:
        return f"<HTTP agent at {self.url}>"

    def target(self, path: str) -> httpx2.URL:
        """The URL of a path, percent-encoded, with a query if need be."""
        before = self.url.raw_path.rstrip(b"/")
        return self.url.copy_with(raw_path=before + path.encode("ascii"))

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[httpx2.AsyncClient]:
        """Wait for one's turn, and have a client for one request."""
        loop = asyncio.get_running_loop()
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = _Line(self._client(), asyncio.Semaphore(self._settings.concurrency))
            keeper = loop.create_task(self._keep(loop, line), name=f"merit-http-{self.url.host}")
            _keepers.add(keeper)
            keeper.add_done_callback(_keepers.discard)
        async with line.room:
            if self._settings.requests_per_s is not None:
                async with line.pace:
                    now_s = time.monotonic()
                    at_s = max(now_s, line.next_s)
                    await asyncio.sleep(at_s - now_s)
                    # Not before: who gives up waiting has taken no turn.
                    line.next_s = at_s + 1 / self._settings.requests_per_s
            yield line.client

    async def _keep(self, loop: asyncio.AbstractEventLoop, line: _Line) -> None:
        """Wait for the end of the loop, which cancels what is left, and close the connections while it still can."""
        try:
            await asyncio.Event().wait()
        finally:
            del self._lines[loop]
            await line.client.aclose()

    def _client(self) -> httpx2.AsyncClient:
        import httpx2

        settings = self._settings
        return httpx2.AsyncClient(
            # What one task is given to keep is no business of the next.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            verify=self._tls,
            proxy=self._proxy,
            # As a whole a request is bounded by its capability.
            timeout=httpx2.Timeout(None, connect=settings.connect_timeout_s),
            limits=httpx2.Limits(
                max_connections=settings.concurrency,
                max_keepalive_connections=min(settings.concurrency, _IDLE_CONNECTIONS_MAX),
            ),
            trust_env=False,
        )


@dataclass(slots=True, eq=False)
class _Line:
    """The connections of an agent within one event loop, and the order in which requests may begin."""

    client: httpx2.AsyncClient
    room: asyncio.Semaphore
    pace: asyncio.Lock = field(default_factory=asyncio.Lock)
    next_s: float = 0.0


_keepers: set[asyncio.Task[None]] = set()
"""A loop holds its tasks but weakly, and an agent may be forgotten before the loop has ended."""


def http_capability(
    agent: HttpAgent | str,
    name: str,
    *,
    version: str = "1.0.0",
    description: str = "",
    tags: Sequence[str] = (),
    concurrency: int | None = None,
    safe_to_repeat: bool = True,
    resources: Amounts | None = None,
    cost: float = 0.0,
    preference: float = PREFERENCE_DEFAULT,
    stateful: bool = False,
    requires: Sequence[str] = (),
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST",
    path: str = "/",
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Literal["json", "form", "none"] | None = None,
    body_json: Any = None,
    body_text: str | None = None,
    content_type: str | None = None,
    input: Mapping[str, Any] | None = None,  # noqa: A002 — the word that the spec has, and a keyword at all calls
    output: Mapping[str, Any] | None = None,
    result: str = "json",
    ok_statuses: Sequence[int | str] = ("2xx",),
    permanent_statuses: Sequence[int | str] | None = None,
    answer_bytes_max: int = ANSWER_BYTES_MAX,
    timeout_s: float = 30.0,
    safe: bool | None = None,
    retries: int | None = None,
    retry_wait_s_max: float = 10.0,
    redirects: int = 0,
) -> Capability[..., Any]:
    """Declare requests to an agent, or to one at a URL, as a capability.

    `path`, the values of `query`, `body_text` and the strings of `body_json` are templates: `{parameter}`, and `{{` and `}}`
    for braces. A value of `query` or a string of `body_json` that is one placeholder and no more becomes the parameter
    itself, a list included, and is left out if the parameter is. `body` "json" (the default of POST, PUT and PATCH) sends all
    parameters as a JSON object, "form" as a form, "none" (that of GET and DELETE) nothing. `input` and `output` are JSON
    Schemas. `result` is "json" for the whole answer, a JSON pointer for a part of it, or "text".

    Statuses are numbers and classes such as "4xx". One that is not among `ok_statuses` is a failure, and a permanent one if
    it is among `permanent_statuses`, by default 3xx and 4xx but 408, 425 and 429. A request takes at most `timeout_s`. One
    that is `safe` (GET by default) is said again up to `retries` times (2) within the attempt, after a pause with jitter or
    what Retry-After asks for; a longer one than `retry_wait_s_max` is left to the control plane. `redirects` are followed so
    often, to the same scheme, host and port. What is not about requests (`version` to `requires`) is as for every `Capability`.

    Raises CapabilityError for what does not fit together: the message names the setting and the reason.
    """
    declared: dict[str, Any] = {"name": name, "version": version, "description": description, "tags": list(tags)}
    declared |= {"concurrency": concurrency, "safe_to_repeat": safe_to_repeat, "resources": dict(resources or {})}
    declared |= {"cost": cost, "preference": preference, "stateful": stateful, "requires": list(requires)}
    declared |= {"method": method, "path": path}
    declared |= {"query": dict(query or {}), "headers": dict(headers or {}), "body": body, "body_json": body_json}
    declared |= {"body_text": body_text, "content_type": content_type, "result": result, "timeout_s": timeout_s}
    declared |= {"input": None if input is None else dict(input), "output": None if output is None else dict(output)}
    declared |= {"ok_statuses": list(ok_statuses), "answer_bytes_max": answer_bytes_max, "redirects": redirects}
    declared["permanent_statuses"] = None if permanent_statuses is None else list(permanent_statuses)
    declared |= {"safe": safe, "retries": retries, "retry_wait_s_max": retry_wait_s_max}
    spec = checked(HttpCallSpec, declared, f"{name}: ")
    return _declare(HttpAgent(agent) if isinstance(agent, str) else agent, spec)


def load_http_agent(path: str | Path, url: str) -> list[Capability[..., Any]]:
    """The capabilities of the agent at `url` that a .toml or .json file declares: `[agent]` with the settings of `HttpAgent`,
    and `[[capability]]` tables with those of `http_capability`.

    Raises OSError for a file that cannot be read, CapabilityError (naming the file) for one that does not fit.
    """
    spec = read_http_spec(path)
    try:
        agent = HttpAgent(url, **spec.agent.model_dump())
        return [_declare(agent, one) for one in spec.capability]
    except CapabilityError as error:
        raise CapabilityError(f"{path}: {error}") from None


def _declare(agent: HttpAgent, spec: HttpCallSpec) -> Capability[..., Any]:
    declared = DeclaredInput(spec.name, spec.input, open_unless_said=takes_all(spec))
    call = _Call.of(agent, spec, declared)
    output = spec.output if spec.output is not None else {"type": "string"} if spec.result == "text" else {}
    signature = signature_of_schemas(spec.name, declared, output, call.answer.redact)

    async def run(**arguments: Any) -> Any:
        return await call.run(arguments)

    run.__name__ = run.__qualname__ = spec.name
    return register(
        Capability(
            run,
            name=spec.name,
            version=spec.version,
            description=spec.description or f"Asks {call.answer.where}",
            mode="async",
            signature=signature,
            concurrency=spec.concurrency,
            tags=spec.tags,
            safe_to_repeat=spec.safe_to_repeat,
            resources=spec.resources,
            cost=spec.cost,
            preference=spec.preference,
            stateful=spec.stateful,
            requires=spec.requires,
        )
    )


# --- asking -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Call:
    """A declared request, ready to be made."""

    agent: HttpAgent
    spec: HttpCallSpec
    request: HttpRequestPlan
    answer: AnswerPlan
    retries: int
    headers: httpx2.Headers = field(repr=False)

    @classmethod
    def of(cls, agent: HttpAgent, spec: HttpCallSpec, declared: DeclaredInput) -> _Call:
        """Raises CapabilityError for what does not fit together."""
        import httpx2

        safe = spec.method == "GET" if spec.safe is None else spec.safe
        if spec.retries and not safe:
            raise CapabilityError(
                f"{spec.name}: retries: only what is safe is said again; say safe = true, or 0 retries"
            )
        if safe and not spec.safe_to_repeat:
            raise CapabilityError(f"{spec.name}: safe contradicts safe_to_repeat = false; take one of them out")
        request = HttpRequestPlan.of(spec, declared)
        own, secrets = with_secrets(spec.name, spec.headers)
        secrets |= agent.secrets
        headers = httpx2.Headers(
            {"User-Agent": "merit", "Accept": "*/*" if spec.result == "text" else "application/json"}
        )
        headers.update(agent.headers)
        headers.update(own)
        if request.content_type is not None:
            headers["Content-Type"] = request.content_type
        base = str(agent.url).rstrip("/")
        answer = AnswerPlan.of(spec, f"{spec.method} {base}{spec.path}", lambda text: without(secrets, text))
        return cls(agent, spec, request, answer, (_RETRIES if spec.retries is None else spec.retries) * safe, headers)

    async def run(self, arguments: Mapping[str, Any]) -> Any:
        """Ask, and ask again where that is allowed. Raises InvalidInput, HttpCallFailed, Permanent."""
        url, content = self.agent.target(self.request.target(arguments)), self.request.content(arguments)
        backoff = Backoff(min(_FIRST_WAIT_S, self.spec.retry_wait_s_max), self.spec.retry_wait_s_max)
        for tried in count(1):
            try:
                return await self.once(url, content)
            except HttpCallFailed as failed:
                wait_s = (failed.retry_after_s or 0.0) + backoff.next_s()
                too_long = (failed.retry_after_s or 0.0) > self.spec.retry_wait_s_max or _too_late(wait_s)
                if tried > self.retries or too_long:
                    if tried == 1:
                        raise
                    raise HttpCallFailed(f"{failed} (the last of {tried} requests)") from None
            await asyncio.sleep(wait_s)
        raise AssertionError("it is asked until there is a result or a failure")

    async def once(self, url: httpx2.URL, content: bytes | None) -> Any:
        """One request and its redirects. Raises HttpCallFailed, Permanent."""
        import httpx2

        async with self.agent.turn() as client:
            request = client.build_request(
                self.spec.method, url, headers=self.headers | _attempt_headers(), content=content
            )
            try:
                async with asyncio.timeout(self.spec.timeout_s), contextlib.AsyncExitStack() as answers:
                    response = await self._answered(client, request, answers)
                    return await self.answer.result_of(response, time.time())
            except TimeoutError:
                raise HttpCallFailed(f"{self.answer.where} took longer than {self.spec.timeout_s:g} s") from None
            except httpx2.ConnectTimeout:
                raise HttpCallFailed(f"{self.answer.where} could not be connected to in time") from None
            except httpx2.HTTPError as error:
                said = self.answer.redact(message_of(error))
                raise HttpCallFailed(f"{self.answer.where} gave no whole answer: {bounded_text(said, 500)}") from None

    async def _answered(
        self, client: httpx2.AsyncClient, request: httpx2.Request, answers: contextlib.AsyncExitStack
    ) -> httpx2.Response:
        """The answer after redirects, to be read. Raises Permanent for a redirect that must not be followed."""
        for followed in count():
            response = await client.send(request, stream=True)
            answers.push_async_callback(response.aclose)
            following = response.next_request
            if following is None or followed == self.spec.redirects or response.status_code in self.answer.ok:
                return response
            if following.url.origin != self.agent.url.origin:
                raise Permanent(f"{self.answer.where} redirects to another origin, where nothing is sent")
            # A form that was posted may be answered so; a DELETE that becomes a GET would be a success that is none.
            if following.method != request.method and response.status_code != 303 and request.method != "POST":
                raise Permanent(f"{self.answer.where} redirects with {response.status_code}, which loses its method")
            await response.aclose()
            request = following
        raise AssertionError("redirects are counted")


def _attempt_headers() -> dict[str, str]:
    """Which attempt asks; nothing where the function is called as such."""
    context = active.get(None)
    if context is None:
        return {}
    task, number = quote(context.task, safe="#:@/"), str(context.attempt_number)
    return {"Idempotency-Key": f"{task}.{number}", "Merit-Task": task, "Merit-Attempt": number}


def _too_late(wait_s: float) -> bool:
    """Whether the attempt will have timed out by then."""
    context = active.get(None)
    return context is not None and context.deadline_ns != 0 and time.time() + wait_s >= context.deadline_ns / 1e9


def _origin(text: str, where: str) -> httpx2.URL:
    """A URL that says where to go, and no more. Raises CapabilityError."""
    import httpx2

    if "@" in str(text):
        raise CapabilityError(f"{where}: no name and password in a URL; write headers.Authorization with ${{env:NAME}}")
    shown = bounded_text(str(text), 200)
    try:
        url = httpx2.URL(text)
    except (httpx2.InvalidURL, TypeError) as error:
        raise CapabilityError(f"{where}: {shown} is no URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise CapabilityError(f"{where}: {shown} must begin with http:// or https:// and name a host")
    if url.query or url.fragment or "?" in text or "#" in text:
        raise CapabilityError(f"{where}: {shown} must end before '?' and '#'")
    return url
