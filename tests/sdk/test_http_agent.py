import asyncio
import email.utils
import gc
import gzip
import json
import logging
import subprocess
import sys
import time
import zlib
from contextlib import contextmanager
from urllib.parse import parse_qsl, unquote

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from merit.sdk.context import Context, Permanent, active
from merit.sdk.execution import Job
from merit.sdk.http_agent import HttpAgent, http_capability
from merit.sdk.http_answer import HttpCallFailed
from merit.sdk.http_request import HttpRequestPlan
from merit.sdk.http_schema import DeclaredInput
from merit.sdk.http_spec import HttpCallSpec
from merit.sdk.runner import Runner
from merit.sdk.schema import InvalidInput, InvalidOutput
from tests.merit_command import environment
from tests.sdk.http_endpoint import answered, endpoint, hangs

WAIT_S = 30
ELSEWHERE = HttpAgent("http://agent.example:8080/base")
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}


def words(*names, **more):
    return {
        "type": "object",
        "required": list(names),
        "properties": {name: {"type": "string"} for name in names},
        **more,
    }


@pytest_asyncio.fixture
async def there():
    async with endpoint() as made:
        yield made


async def run(capability, **arguments):
    """As a worker does it: through the decoder, and through the encoder."""
    signature = capability.signature
    value = await capability(**signature.decode(json.dumps(arguments).encode()))
    return json.loads(signature.encode(value))


@contextmanager
def attempt(task="t-1", number=3, deadline_ns=0):
    token = active.set(Context("a", task, number, deadline_ns))
    try:
        yield
    finally:
        active.reset(token)


# --- requests -----------------------------------------------------------------------------------------------------------


async def test_parameters_go_as_json_and_the_answer_is_the_result(there):
    made = http_capability(f"{there.url}/v1/", "double", path="/double", input={"type": "object"})
    there.answers = [answered(200, {"n": 4})]
    with attempt():
        assert await run(made, n=2, deep={"a": [1, None]}) == {"n": 4}
    [asked] = there.asked
    assert (asked.method, asked.target, asked.json) == ("POST", "/v1/double", {"n": 2, "deep": {"a": [1, None]}})
    wanted = {
        "content-type": "application/json",
        "accept": "application/json",
        "user-agent": "merit",
        "idempotency-key": "t-1.3",
        "merit-task": "t-1",
        "merit-attempt": "3",
    }
    assert wanted.items() <= asked.headers.items()


async def test_outside_an_attempt_there_is_nothing_to_name(there):
    assert await run(http_capability(there.url, "c")) == {"ok": True}
    assert not [name for name in there.asked[0].headers if name.startswith(("merit", "idempotency"))]


async def test_what_a_capability_says_of_headers_goes_first(there):
    agent = HttpAgent(there.url, headers={"accept": "text/csv", "user-agent": "us", "X-Both": "agent"})
    await run(http_capability(agent, "c", headers={"x-both": "capability"}, result="text"))
    sent = there.asked[0].headers
    assert (sent["accept"], sent["user-agent"], sent["x-both"]) == ("text/csv", "us", "capability")


async def test_a_task_with_a_strange_name_breaks_no_header(there):
    with attempt(task="a\r\nHost: b é"):
        await run(http_capability(there.url, "c"))
    assert there.asked[0].headers["merit-task"] == "a%0D%0AHost:%20b%20%C3%A9"


async def test_path_and_query_are_filled(there):
    made = http_capability(
        there.url,
        "c",
        method="GET",
        path="/a%20b/{kind}s/{id}",
        query={"q": "{q}", "tag": "{tags}", "page": "p{page}", "fixed": "1 & 2", "none": "{none}"},
        input={
            "type": "object",
            "required": ["kind", "id", "q"],
            "properties": {
                "kind": {"type": "string"},
                "id": {"type": "integer"},
                "q": {"type": "string"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "page": {"type": "integer", "default": 1},
                "none": {"type": ["string", "null"]},
            },
        },
    )
    await run(made, kind="note", id=7, q="a+b&c=d#é", tags=["x", "y z"], none=None)
    await run(made, kind="note", id=7, q="", page=2)
    first, second = there.asked
    assert first.target == "/a%20b/notes/7?q=a%2Bb%26c%3Dd%23%C3%A9&tag=x&tag=y%20z&page=p1&fixed=1%20%26%202"
    assert second.target == "/a%20b/notes/7?q=&page=p2&fixed=1%20%26%202"
    assert first.body == b""
    assert "content-type" not in first.headers


NASTY = ["a/b", "a%2Fb", "%2e%2e", "a?b=c", "a#b", "//evil.example", "http://evil.example/", "@evil.example", "a;b", "\\\\x",
         "a b", "\r\nX: y", "...", ".a", "a..b", "é\U0001f600", ":80", "%", "\0"]  # fmt: skip


@pytest.mark.parametrize("value", NASTY)
async def test_a_value_stays_one_segment_whatever_is_in_it(there, value):
    made = http_capability(there.url, "c", method="GET", path="/items/{id}/x", query={"q": "{id}"}, input=words("id"))
    await run(made, id=value)
    path, _, query = there.asked[0].target.partition("?")
    _, items, segment, last = path.split("/")
    assert (items, unquote(segment), last) == ("items", value, "x")
    assert parse_qsl(query, keep_blank_values=True) == [("q", value)]
    assert there.asked[0].headers["host"] == there.url.removeprefix("http://")


@pytest.mark.parametrize("value", ["", ".", "..", "../x", "x/..", "a/../../b", "..\\x", "a/./b"])
async def test_a_value_that_leads_elsewhere_is_refused(there, value):
    made = http_capability(there.url, "c", method="GET", path="/items/{id}", input=words("id"))
    with pytest.raises(InvalidInput, match=r"^id: must not"):
        await run(made, id=value)
    assert not there.asked


async def test_two_values_do_not_make_dots_together(there):
    made = http_capability(there.url, "c", method="GET", path="/items/{a}{b}/.{a}", input=words("a", "b"))
    with pytest.raises(InvalidInput, match=r"^a, b: must not"):
        await run(made, a=".", b=".")
    with pytest.raises(InvalidInput, match=r"^a: must not"):
        await run(made, a=".", b="x")


anything = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("./\\%?#@:;2eEF"), max_size=200)


@given(anything, anything)
def test_no_value_reaches_beyond_its_place(a, b):
    spec = HttpCallSpec(name="c", method="GET", path="/x/{a}/y", query={"q": "{b}"}, input=words("a", "b"))
    plan = HttpRequestPlan.of(spec, DeclaredInput("c", spec.input, open_unless_said=False))
    arguments = {"a": a, "b": b}
    if not a or {".", ".."} & set(a.replace("\\", "/").split("/")):
        with pytest.raises(InvalidInput, match=r"^a: must not"):
            plan.target(arguments)
        return
    url = ELSEWHERE.target(plan.target(arguments))
    assert url.origin == ELSEWHERE.url.origin
    path, _, query = url.raw_path.decode().partition("?")
    empty, base, x, segment, y = path.split("/")
    assert (empty, base, x, unquote(segment), y) == ("", "base", "x", a, "y")
    assert parse_qsl(query, keep_blank_values=True, separator="&") == [("q", b)]
    assert not url.fragment


async def test_a_target_that_is_too_long_is_refused(there):
    made = http_capability(there.url, "c", method="GET", path="/{id}", input=words("id"))
    with pytest.raises(InvalidInput, match=r"path and query would have 9001 bytes, the limit is 8192"):
        await run(made, id="x" * 9_000)
    with pytest.raises(InvalidInput, match=r"id: only text, numbers and booleans"):
        await http_capability(there.url, "c", method="GET", path="/{id}", input=words("id"))(id=["x"])


async def test_bodies_from_templates(there):
    schema = {
        "type": "object",
        "required": ["text", "options"],
        "properties": {"text": {"type": "string"}, "options": {"type": "object"}, "more": {}, "n": {"default": 2}},
    }
    template = {
        "model": "m{{}}",
        "input": [{"role": "user", "content": "{text}"}, "say {text} {n} times", "{more}"],
        "o": "{options}",
        "m": "{more}",
        "n": 1.5,
    }
    made = http_capability(there.url, "c", input=schema, body_json=template, content_type="application/vnd.x+json")
    await run(made, text='"}], "x": "', options={"a": [True]})
    await run(made, text="", options={}, more=None, n=3)
    first, second = there.asked
    assert first.json == {
        "model": "m{}",
        "input": [{"role": "user", "content": '"}], "x": "'}, 'say "}], "x": " 2 times'],
        "o": {"a": [True]},
        "n": 1.5,
    }
    assert first.headers["content-type"] == "application/vnd.x+json"
    assert second.json["input"] == [{"role": "user", "content": ""}, "say  3 times", None]
    assert second.json["m"] is None


async def test_bodies_as_text_form_or_nothing(there):
    await run(http_capability(there.url, "c", method="PUT", body_text="<{text}> {{", input=TEXT), text="é {text}")
    await run(http_capability(there.url, "c", body="form"), a="x y&z", n=[1, 2], b=True, none=None)
    await run(http_capability(there.url, "c", body="none"))
    await run(http_capability(there.url, "c", method="DELETE", body="json"), a=1)
    text, form, nothing, deleted = there.asked
    assert (text.body.decode(), text.headers["content-type"]) == ("<é {text}> {", "text/plain; charset=utf-8")
    assert form.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qsl(form.body.decode()) == [("a", "x y&z"), ("n", "1"), ("n", "2"), ("b", "true")]
    assert (nothing.body, nothing.headers["content-length"]) == (b"", "0")
    assert (deleted.method, deleted.json) == ("DELETE", {"a": 1})
    with pytest.raises(InvalidInput, match=r"a: only text"):
        await run(http_capability(there.url, "c", body="form"), a={})


async def test_input_and_output_are_checked_by_their_schemas(there):
    made = http_capability(
        there.url,
        "c",
        input=words("text", additionalProperties=False),
        output={"type": "object", "properties": {"n": {"type": "integer"}}},
    )
    assert made.input_schema["properties"] == {"text": {"type": "string"}}
    wrong: list[tuple[dict, str]] = [
        ({}, '"text" is a required'),
        ({"text": 1}, "text: 1 is not of type"),
        ({"text": "", "x": 1}, "x"),
    ]
    for arguments, problem in wrong:
        with pytest.raises(InvalidInput, match=problem):
            await run(made, **arguments)
    assert not there.asked
    there.answers = [answered(200, {"n": "many"})]
    with pytest.raises(InvalidOutput, match=r"output schema: n: \"many\" is not of type"):
        await run(made, text="x")


# --- answers ------------------------------------------------------------------------------------------------------------


async def test_where_the_result_is(there):
    document = {"data": [{"a/b": {"~": [1, "found"]}}], "": 0}
    there.behave = lambda *_: asyncio.sleep(0, answered(200, document))
    assert await run(http_capability(there.url, "c", result="/data/0/a~1b/~0/1")) == "found"
    assert await run(http_capability(there.url, "c", result="/")) == 0
    for pointer in ("/data/1", "/data/x", "/data/-1", "/nothing", "/data/0/a~1b/~0/1/x"):
        with pytest.raises(HttpCallFailed, match=rf"answered without a value at {pointer}$"):
            await run(http_capability(there.url, "c", result=pointer))


async def test_results_as_text(there):
    made = http_capability(there.url, "c", result="text")
    assert made.output_schema["type"] == "string"
    there.answers = [answered(200, b"\xc3\xa9"), answered(200, b"\xe9", Content_Type="text/plain; charset=ISO-8859-1")]
    assert [await run(made), await run(made)] == ["é", "é"]
    there.answers = [answered(200, b"\xe9"), answered(200, b"a", Content_Type="text/plain; charset=punycode")]
    with pytest.raises(HttpCallFailed, match="no utf-8 text"):
        await run(made)
    with pytest.raises(Permanent, match="charset 'punycode'"):
        await run(made)


async def test_an_answer_without_content_is_null(there):
    made = http_capability(there.url, "c")
    there.answers = [b"HTTP/1.1 204 No Content\r\n\r\n", answered(200)]
    assert [await run(made), await run(made)] == [None, None]
    there.answers = [answered(200)]
    with pytest.raises(HttpCallFailed, match="not JSON"):
        await run(http_capability(there.url, "c", result="/a"))


@pytest.mark.parametrize("content", [b"{", b"NaN", b"[" * 100_000, b'"\xff"', b"<html>"])
async def test_what_is_not_json_is_a_failure(there, content):
    there.answers = [answered(200, content)]
    with pytest.raises(HttpCallFailed, match=r"POST http://127.0.0.1:\d+/ answered 200 with what is not JSON"):
        await run(http_capability(there.url, "c"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Permanent), (401, Permanent), (404, Permanent), (304, Permanent), (408, HttpCallFailed),
     (425, HttpCallFailed), (429, HttpCallFailed), (500, HttpCallFailed), (503, HttpCallFailed)],
)  # fmt: skip
async def test_statuses(there, status, kind):
    content = b"" if status == 304 else b"no\n\t such   thing"
    there.answers = [answered(status, content)]
    with pytest.raises(kind, match=rf"POST http://\S+/\{{id\}} answered {status} [A-Z]") as raised:
        await run(http_capability(there.url, "c", path="/{id}", input=words("id")), id="private")
    assert type(raised.value) is kind
    assert "private" not in str(raised.value)
    assert str(raised.value).endswith("; it says: no such thing") or status == 304


async def test_which_statuses_are_what_can_be_said(there):
    made = http_capability(there.url, "c", ok_statuses=[404, "5xx"], permanent_statuses=[200])
    there.answers = [answered(404, 1), answered(500, 2), answered(200), answered(400)]
    assert [await run(made), await run(made)] == [1, 2]
    with pytest.raises(Permanent, match="answered 200 OK"):
        await run(made)
    with pytest.raises(HttpCallFailed, match="answered 400 Bad Request"):
        await run(made)


async def test_a_failure_is_quoted_within_bounds(there):
    there.answers = [answered(500, b"x" * 5_000_000), answered(500, b"\xff\0\x1b[31m")]
    with pytest.raises(HttpCallFailed) as raised:
        await run(http_capability(there.url, "c"))
    assert len(str(raised.value)) < 1_200
    with pytest.raises(HttpCallFailed, match="it says: \ufffd"):
        await run(http_capability(there.url, "c"))


async def test_a_failure_that_never_ends_to_explain_itself(there):
    async def begins(_asked, writer):
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\nbusy")
        return await hangs(_asked, writer)

    there.answers = [begins]
    with pytest.raises(HttpCallFailed, match=r"answered 503 Service Unavailable; it says: busy$"):
        await run(http_capability(there.url, "c"))


async def test_answers_are_limited_at_the_very_byte(there):
    made = http_capability(there.url, "c", result="text", answer_bytes_max=100_000)
    there.answers = [answered(200, b"x" * 100_000), answered(200, b"x" * 100_001)]
    assert len(await run(made)) == 100_000
    with pytest.raises(Permanent, match=r"more than 100000 bytes \(answer_bytes_max\)"):
        await run(made)

    async def without_end(_asked, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            await writer.drain()

    there.answers = [without_end]
    with pytest.raises(Permanent, match="more than 100000 bytes"):
        await run(made)
    await asyncio.wait_for(there.gone.wait(), WAIT_S)


async def test_a_small_answer_that_unpacks_to_a_huge_one_is_cut_short(there):
    packed = gzip.compress(b"x" * 100_000_000)
    there.answers = [
        answered(200, packed, Content_Encoding="gzip"),
        answered(200, zlib.compress(b'"fine"'), Content_Encoding="deflate"),
        answered(200, b"no gzip", Content_Encoding="gzip"),
    ]
    made = http_capability(there.url, "c")
    with pytest.raises(Permanent, match="more than 1048576 bytes"):
        await run(made)
    assert await run(made) == "fine"
    with pytest.raises(HttpCallFailed, match="gave no whole answer: DecodingError"):
        await run(made)


# --- what goes wrong on the way -----------------------------------------------------------------------------------------


async def test_nobody_there():
    async with endpoint() as there:
        url = there.url
    with pytest.raises(HttpCallFailed, match=r"gave no whole answer: ConnectError"):
        await run(http_capability(url, "c"))


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000]
)  # fmt: skip
async def test_half_an_answer_is_a_failure(there, answer):
    async def breaks_off(_asked, writer):
        writer.write(answer)
        await writer.drain()
        writer.close()
        return b""

    there.answers = [breaks_off]
    with pytest.raises(HttpCallFailed, match=r"gave no whole answer: "):
        await run(http_capability(there.url, "c"))


async def test_a_request_takes_no_longer_than_it_may(there):
    async def trickles(_asked, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await asyncio.sleep(0.01)

    for behaviour in (hangs, trickles):
        there.answers = [behaviour]
        there.gone.clear()
        with pytest.raises(HttpCallFailed, match=r"/ took longer than 0.3 s$"):
            await run(http_capability(there.url, "c", timeout_s=0.3))
        await asyncio.wait_for(there.gone.wait(), WAIT_S)


async def test_a_cancel_closes_the_request(there):
    there.behave = hangs
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    runner = Runner([http_capability(there.url, "c")], 1, lambda: loop.call_soon_threadsafe(changed.set))
    runner.start([Job("a", "t", 1, "c", b"{}")])
    async with asyncio.timeout(WAIT_S):
        while not there.asked:
            await asyncio.sleep(0.005)
        runner.cancel("a")
        await there.gone.wait()
        await changed.wait()
    assert [outcome.status for outcome in runner.finished()] == ["canceled"]
    await runner.close(1)


async def test_safe_requests_are_said_again_within_the_attempt(there):
    there.answers = [answered(503), answered(500), answered(200, 7)]
    made = http_capability(there.url, "c", method="GET", retry_wait_s_max=0.01)
    with attempt():
        assert await run(made) == 7
    assert {asked.headers["idempotency-key"] for asked in there.asked} == {"t-1.3"}
    there.answers = [answered(503)] * 5
    with pytest.raises(HttpCallFailed, match=r"503 Service Unavailable \(the last of 3 requests\)$"):
        await run(made)
    there.answers = [answered(503), answered(404), answered(200)]
    with pytest.raises(Permanent, match="404"):
        await run(made)
    assert len(there.asked) == 3 + 3 + 2


async def test_others_are_not(there):
    there.answers = [answered(503)]
    with pytest.raises(HttpCallFailed, match=r"503 Service Unavailable$"):
        await run(http_capability(there.url, "c"))
    assert len(there.asked) == 1
    there.answers = [answered(503), answered(200, 1)]
    assert await run(http_capability(there.url, "c", safe=True, retries=1, retry_wait_s_max=0.01)) == 1


async def test_a_pause_that_the_answer_asks_for_is_kept(there):
    there.answers = [answered(429, Retry_After="1"), answered(200, 1)]
    began_s = time.monotonic()
    assert await run(http_capability(there.url, "c", method="GET", retry_wait_s_max=5)) == 1
    assert time.monotonic() - began_s >= 1


@pytest.mark.parametrize(
    "after",
    ["3600", "99999999", email.utils.formatdate(time.time() + 3600, usegmt=True)],
    ids=["seconds", "years", "date"],
)
async def test_a_pause_that_is_too_long_is_left_to_the_control_plane(there, after):
    there.answers = [answered(429, Retry_After=after)]
    with pytest.raises(HttpCallFailed, match=r"429 Too Many Requests$"):
        await run(http_capability(there.url, "c", method="GET"))
    assert len(there.asked) == 1


@pytest.mark.parametrize("after", ["soon", "-1", "9" * 5_000, "1.5", email.utils.formatdate(0), "Mon, 99 Foo 2020"])
async def test_a_pause_that_makes_no_sense_is_none(there, after):
    there.answers = [answered(429, Retry_After=after), answered(200, 1)]
    assert await run(http_capability(there.url, "c", method="GET", retry_wait_s_max=0.01)) == 1


async def test_nobody_waits_beyond_the_end_of_the_attempt(there):
    there.answers = [answered(429, Retry_After="9")]
    with attempt(deadline_ns=time.time_ns() + 5_000_000_000), pytest.raises(HttpCallFailed, match="429"):
        await run(http_capability(there.url, "c", method="GET"))
    assert len(there.asked) == 1


# --- redirects ----------------------------------------------------------------------------------------------------------


async def test_redirects_are_not_followed_unless_it_is_said(there):
    there.answers = [answered(302, Location="/other")]
    with pytest.raises(Permanent, match=r"answered 302 Found \(it redirects; redirects says"):
        await run(http_capability(there.url, "c", method="GET"))
    there.answers = [answered(302, Location="/other"), answered(200, 1)]
    assert await run(http_capability(there.url, "c", method="GET", redirects=1)) == 1
    assert there.asked[-1].target == "/other"
    there.answers = [answered(302, Location="/1"), answered(302, Location="/2"), answered(200, 1)]
    with pytest.raises(Permanent, match="302"):
        await run(http_capability(there.url, "c", method="GET", redirects=1))


async def test_a_redirect_never_leads_to_another_origin(there):
    async with endpoint() as other:
        host = there.url.removeprefix("http://")
        port = host.rpartition(":")[2]
        for place in (
            other.url,
            f"//{other.url.removeprefix('http://')}/x",
            f"https://{host}/",
            f"http://localhost:{port}/",
        ):
            there.answers = [answered(307, Location=place)]
            with pytest.raises(Permanent, match="redirects to another origin"):
                await run(http_capability(there.url, "c", headers={"X-Key": "k"}, redirects=5))
        assert not other.connections
    assert len(there.asked) == 4
    for place in ("http://[", "http:///x", "file:///x", "\x01"):
        there.answers = [answered(307, Location=place)]
        with pytest.raises((Permanent, HttpCallFailed), match="redirects"):
            await run(http_capability(there.url, "c", redirects=0))


async def test_what_becomes_of_the_method(there):
    there.answers = [answered(307, Location="/x"), answered(200), answered(303, Location="/y"), answered(200)]
    for _ in range(2):
        await run(http_capability(there.url, "c", redirects=1), n=1)
    first, same, _, got = there.asked
    assert (same.method, same.body) == ("POST", first.body)
    assert (got.method, got.body) == ("GET", b"")
    there.answers = [answered(302, Location="/x")]
    with pytest.raises(Permanent, match="redirects with 302, which loses its method"):
        await run(http_capability(there.url, "c", method="DELETE", redirects=1))


# --- an agent -----------------------------------------------------------------------------------------------------------


async def test_secrets_go_out_and_nowhere_else(there, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOKEN_OF_TEST", "s3cr3t-token")
    monkeypatch.setenv("KEY_OF_TEST", "k3y")
    agent = HttpAgent(there.url, headers={"Authorization": "Bearer ${env:TOKEN_OF_TEST}"})
    made = http_capability(
        agent,
        "c",
        headers={"X-Key": "<${env:KEY_OF_TEST}>", "X-Plain": "a{b}$"},
        output={"type": "integer"},
    )
    echo = {"you": "Bearer s3cr3t-token", "key": "k3y"}
    there.answers = [answered(500, echo), answered(403, b"x" * (16 * 1024 - 6) + b"s3cr3t-token"), answered(200, echo)]
    said = []
    for kind in (HttpCallFailed, Permanent, InvalidOutput):
        with pytest.raises(kind) as raised:
            await run(made)
        said.append(str(raised.value))
    assert '"you": "Bearer ***"' in said[0]
    assert there.asked[0].headers.items() >= {
        ("authorization", "Bearer s3cr3t-token"),
        ("x-key", "<k3y>"),
        ("x-plain", "a{b}$"),
    }
    text = "".join([*said, caplog.text, repr(agent), repr(made)])
    assert "s3cr3t" not in text
    assert "k3y" not in text
    assert there.url not in caplog.text


async def test_no_cookie_goes_from_one_task_to_the_next(there):
    there.behave = lambda *_: asyncio.sleep(0, answered(200, 1, Set_Cookie="session=1; Path=/"))
    made = http_capability(there.url, "c")
    for _ in range(2):
        await run(made)
    assert not [asked for asked in there.asked if "cookie" in asked.headers]


async def test_connections_are_kept_and_shared(there):
    agent = HttpAgent(there.url)
    for name in ("a", "b", "a"):
        await run(http_capability(agent, name))
    assert there.connections == 1


def test_connections_end_with_their_loop():
    agents = []

    async def ask_twice():
        async with endpoint() as there:
            agents.append(HttpAgent(there.url))
            made = http_capability(agents[-1], "c")
            await run(made)
            await run(made)
            [line] = agents[-1]._lines.values()
            return line.client

    clients = [asyncio.run(ask_twice()) for _ in range(2)]
    assert all(client.is_closed for client in clients)
    assert not any(agent._lines for agent in agents)
    del agents[:], clients
    gc.collect()  # a connection that is still open would complain, and fail the test


async def test_no_more_requests_at_a_time_than_are_allowed(there):
    going, most = 0, 0

    async def counts(_asked, _writer):
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0.01)
        going -= 1
        return answered(200, 1)

    there.behave = counts
    made = http_capability(HttpAgent(there.url, concurrency=3), "c", timeout_s=5)
    assert await asyncio.gather(*(run(made) for _ in range(20))) == [1] * 20
    assert most == 3
    assert there.connections <= 3


async def test_requests_are_begun_at_the_agreed_pace(there):
    made = http_capability(HttpAgent(there.url, requests_per_s=20), "c")
    began_s = time.monotonic()
    await asyncio.gather(*(run(made) for _ in range(6)))
    assert time.monotonic() - began_s >= 5 / 20 - 0.01


async def test_who_gives_up_waiting_takes_no_turn(there):
    """Otherwise turns that nobody takes would keep all others waiting, the longer the more give up."""
    agent = HttpAgent(there.url, requests_per_s=2)

    async def turn():
        async with agent.turn():
            pass

    await turn()
    waiting = [asyncio.create_task(turn()) for _ in range(100)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.wait_for(turn(), 10)


async def test_a_proxy_is_used_if_the_spec_says_so_and_only_then(there, monkeypatch):
    async with endpoint() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        await run(http_capability(there.url, "c"))
        assert not proxy.connections
        await run(http_capability(HttpAgent("http://agent.invalid/v1", proxy=proxy.url), "c", path="/x"))
        assert proxy.asked[0].target == "http://agent.invalid/v1/x"


def test_without_httpx2_it_is_said_what_to_install():
    program = (
        "import sys\nsys.modules['httpx2'] = None\nfrom merit import HttpAgent\n"
        "try:\n    HttpAgent('http://localhost')\nexcept TypeError as error:\n    print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True, timeout=WAIT_S
    )
    assert ran.stdout.endswith("not installed: pip install 'merit-fleet[http]'\n")


def test_it_is_loaded_only_when_it_is_used():
    program = "import sys, merit.cli.worker, merit.sdk.worker\nassert not {'httpx2', 'merit.sdk.http_agent'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True, timeout=WAIT_S)
