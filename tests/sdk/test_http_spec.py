"""What is said of an agent behind an HTTP endpoint is checked at once, and every mistake has a name."""

import inspect
import json

import pytest

from merit.model.workers import Amount
from merit.sdk.http_agent import HttpAgent, http_capability, load_http_agent
from merit.sdk.http_spec import HttpAgentSettings, HttpCallSpec
from merit.sdk.schema import CapabilityError

URL = "http://127.0.0.1:1/v1"
INPUT = {"type": "object", "required": ["p"], "properties": {"p": {"type": "string"}, "q": {"type": "string"}}}

TOML = """
[agent]
headers.X-Key = "${env:KEY_OF_TEST}"
requests_per_s = 10

[[capability]]
name = "find"
version = "2.1.0"
description = "Finds."
tags = ["text"]
concurrency = 4
safe_to_repeat = true
method = "GET"
path = "/things/{id}"
query.limit = "{limit}"
[capability.input]
type = "object"
required = ["id"]
properties.id.type = "integer"
properties.limit = { type = "integer", default = 5 }

[[capability]]
name = "store"
body_json = { thing = "{thing}", at = ["{thing}"] }
input = { type = "object", required = ["thing"], properties.thing = {} }
"""


@pytest.fixture
def spec(tmp_path):
    def write(text, name="agent.toml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEY_OF_TEST", "k")


def test_capabilities_are_read_from_a_file(spec):
    find, store = load_http_agent(spec(TOML), URL)
    assert (find.name, find.version, find.description, find.tags) == ("find", "2.1.0", "Finds.", ("text",))
    assert (find.mode, find.concurrency, find.safe_to_repeat) == ("async", 4, True)
    assert find.input_schema == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["id"],
        "properties": {"id": {"type": "integer"}, "limit": {"type": "integer", "default": 5}},
        "additionalProperties": False,
    }
    assert find.signature.decode(b'{"id": 1}') == {"id": 1, "limit": 5}
    assert store.description == "Asks POST http://127.0.0.1:1/v1/"


def test_what_a_capability_needs_of_its_worker_is_offered(spec):
    text = """
        [[capability]]
        name = "translate"
        resources = { licence = 1, network = "1.5M" }
        cost = 0.25
        preference = 1
        stateful = true
        requires = ["the glossary"]
    """
    (made,) = load_http_agent(spec(text), URL)
    assert made.offer.resources == (Amount("licence", 1_000), Amount("network", 1_500_000_000))
    assert (made.offer.cost_micros, made.offer.preference_permille) == (250_000, 1_000)
    assert (made.offer.stateful, made.offer.requires) == (True, ("the glossary",))
    same = http_capability(
        URL, "translate", resources={"network": 1_500_000, "licence": "1"}, cost=0.25, requires=("x",)
    )
    assert (same.offer.resources, same.offer.cost_micros) == (made.offer.resources, made.offer.cost_micros)
    assert same.offer.requires == ("x",)


def test_json_says_the_same(spec):
    content = {
        "agent": {"headers": {"X-Key": "${env:KEY_OF_TEST}"}},
        "capability": [{"name": "find", "path": "/{p}", "body": "none", "input": {**INPUT, "properties": {"p": {}}}}],
    }
    [find] = load_http_agent(spec(json.dumps(content), "agent.json"), URL)
    assert find.name == "find"


def test_the_functions_take_what_the_file_takes():
    taken = [
        (HttpAgentSettings.model_fields, inspect.signature(HttpAgent).parameters),
        (HttpCallSpec.model_fields, inspect.signature(http_capability).parameters),
    ]
    for declared, parameters in taken:
        given = {
            name: parameter.default for name, parameter in parameters.items() if name not in ("url", "agent", "name")
        }
        fields = {name: field.default for name, field in declared.items() if name != "name"}
        assert given.keys() == fields.keys()
        for name, default in given.items():
            other = fields[name]
            assert (list(default) if isinstance(default, tuple) else default) == (None if other == {} else other), name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "capability: Field required"),
        ("capability = []", "capability: List should have at least 1 item"),
        ("[[capability]", "not TOML"),
        ("x = 1\n[[capability]]\nname = 'a'", "x: there is no such setting; there are agent, capability"),
        (
            "agent.x = 1\n[[capability]]\nname = 'a'",
            "agent.x: there is no such setting; there are headers, connect_timeout",
        ),
        (
            "[[capability]]\nname = 'a'\nurl = 'x'",
            r"capability\[0\] \(a\).url: there is no such setting; there are name",
        ),
        ("[[capability]]\nname = 'a'\ntimeout_s = 0", r"capability\[0\] \(a\).timeout_s: .* greater than 0 \(got 0\)"),
        ("[[capability]]\nname = 'a'\ntimeout_s = '1'", r"timeout_s: Input should be a valid number \(got '1'\)"),
        ("[[capability]]\nname = 'a'\ntimeout_s = nan", "timeout_s: "),
        ("[[capability]]\nname = 'a'\nmethod = 'TRACE'", r"method: Input should be 'GET'.* \(got 'TRACE'\)"),
        ("[[capability]]\nname = 'a'\nretries = 11", "retries: .*less than or equal to 10"),
        ("[[capability]]\nname = 'a'\nresult = 'data'", r"\(a\).result: write \"json\", \"text\", or a JSON pointer"),
        ("[[capability]]\nname = 'a'\nresult = '/a~2'", "a JSON pointer"),
        ("[[capability]]\nname = 'a'\nok_statuses = [99]", "ok_statuses: 99 is no status"),
        ("[[capability]]\nname = 'a'\nok_statuses = [true]", "ok_statuses: True is no status"),
        ("[[capability]]\nname = 'a'\npermanent_statuses = ['6xx']", "permanent_statuses: '6xx' is no status"),
        ("[[capability]]\nname = 'a'\nok_statuses = []", "ok_statuses: name at least one"),
        ("[[capability]]\nname = 'a'\nquery.limit = 1", r"query.limit: Input should be a valid string \(got 1\)"),
        ("[[capability]]\nname = 'a'\ninput.x = 2020-01-01", "input.x: "),
        ("[[capability]]\nname = 'a'\nheaders = { 'a b' = 'x' }", "headers: 'a b' is no name of a header"),
        ("[[capability]]\nname = 'a'\nheaders.Host = 'x'", "headers: Host is set by Merit; take it out"),
        ("[[capability]]\nname = 'a'\nheaders.content-type = 'x'", "a body's type is content_type"),
        ("[[capability]]\nname = 'a'\nheaders.A = \"x\\r\\nB: y\"", "headers: A: its value must be"),
        ("[[capability]]\nname = 'a'\nheaders.A = 'é'", "headers: A: its value must be"),
        ("[[capability]]\nname = 'a'\nheaders.A = '${TOKEN}'", r"A: write \$\{env:NAME\}"),
        (
            "[[capability]]\nname = 'a'\nheaders.A = '${env:NOT_SET_HERE}'",
            "a: headers.A: the environment variable NOT_SET_HERE",
        ),
        ("agent.headers.A = '${env:NOT_SET_HERE}'\n[[capability]]\nname = 'a'", "agent: headers.A: .* set it before"),
        ("[[capability]]\nname = 'a'\npath = '/${env:KEY_OF_TEST}'", "a placeholder is {name}"),
        ("[[capability]]\nname = 'a'\ncontent_type = \"a\\nb\"", "content_type: write a media type"),
        ("[[capability]]\nname = 'a b'", "a capability's name is"),
        ("[[capability]]\nname = 'a'\nversion = '1'", "a: version '1' is not semantic"),
        ("[[capability]]\nname = 'a'\n" * 2, "two capabilities are called a"),
        ("[[capability]]\nname = 'a'\nresources = 1", r"\(a\).resources: Input should be a valid dictionary \(got 1\)"),
        ("[[capability]]\nname = 'a'\nresources.cpu = -1", "a: resources: cpu: -1 is no number from 0"),
        ("[[capability]]\nname = 'a'\nresources.cpu = true", "a: resources: cpu: True is no number"),
        ("[[capability]]\nname = 'a'\nresources.memory = '5 GB'", "a: resources: memory: '5 GB' is no amount, such as"),
        ("[[capability]]\nname = 'a'\ncost = '1'", r"\(a\).cost: Input should be a valid number \(got '1'\)"),
        ("[[capability]]\nname = 'a'\ncost = -1", "a: cost must be a number from 0"),
        ("[[capability]]\nname = 'a'\npreference = nan", "a: preference must be a number from 0 to 1"),
        ("[[capability]]\nname = 'a'\nstateful = 1", r"\(a\).stateful: Input should be a valid boolean \(got 1\)"),
        ("[[capability]]\nname = 'a'\nrequires = 'gpt'", r"\(a\).requires: Input should be a valid list"),
        ("[[capability]]\nname = 'a'\nrequires = ['']", "a: requires are at most"),
        ("agent.proxy = 'socks://x'\n[[capability]]\nname = 'a'", "agent: proxy: socks://x must begin with http://"),
        ("agent.ca_file = 'missing.pem'\n[[capability]]\nname = 'a'", "agent: ca_file: missing.pem cannot be read"),
        ("agent.concurrency = 0\n[[capability]]\nname = 'a'", "agent.concurrency: "),
        ("agent.requests_per_s = -1\n[[capability]]\nname = 'a'", "agent.requests_per_s: "),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(spec, text, message):
    with pytest.raises(CapabilityError, match=message) as raised:
        load_http_agent(spec(text), URL)
    assert "agent.toml: " in str(raised.value)


def test_all_mistakes_are_told_at_once(spec):
    text = "[[capability]]\nname = 'a'\ntimeout_s = 0\nretries = -1\n[[capability]]\nname = 'b'\nredirects = 9\nx = 1"
    with pytest.raises(CapabilityError) as raised:
        load_http_agent(spec(text), URL)
    said = str(raised.value).partition("agent.toml: ")[2].split("; capability")
    assert [line.partition(": ")[0].removeprefix("capability") for line in said] == [
        "[0] (a).timeout_s",
        "[0] (a).retries",
        "[1] (b).redirects",
        "[1] (b).x",
    ]


@pytest.mark.parametrize("name", ["agent.yaml", "agent"])
def test_a_file_of_another_kind(spec, name):
    with pytest.raises(CapabilityError, match=r"must end in \.toml or \.json"):
        load_http_agent(spec("", name), URL)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"capability": NaN}', "[" * 100_000, '"x"'])
def test_json_that_is_none(spec, text):
    with pytest.raises(CapabilityError, match=r"agent\.json: "):
        load_http_agent(spec(text, "agent.json"), URL)


def test_deep_and_large_files(spec):
    deep = '{"capability": [{"name": "a", "body_json": ' + "[" * 900 + "]" * 900 + "}]}"
    with pytest.raises(CapabilityError, match=r"agent\.json: nested deeper than 64 levels"):
        load_http_agent(spec(deep, "agent.json"), URL)
    with pytest.raises(CapabilityError, match="larger than 1048576 bytes"):
        load_http_agent(spec("#" * 1_048_577), URL)
    with pytest.raises(FileNotFoundError):
        load_http_agent("missing.toml", URL)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:80", "must begin with http"),
        ("ftp://host", "must begin with http"),
        ("http://", "name a host"),
        ("http://host:port", "is no URL"),
        ("http://host/?a=b", "end before"),
        ("http://host/#x", "end before"),
        ("http://user:pass@host", "no name and password in a URL"),
    ],
)
def test_urls_that_say_too_little_or_too_much(url, message):
    with pytest.raises(CapabilityError, match=message) as raised:
        HttpAgent(url)
    assert "pass@" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "x"}, "c: path 'x' must begin with '/'"),
        ({"path": "/x?a=b"}, "belongs in query"),
        ({"path": "/x/../y"}, r"write it without '\.' and '\.\.'"),
        ({"path": "/%2e%2E/y"}, r"write it without '\.' and '\.\.'"),
        ({"path": "/100%"}, "written %25"),
        ({"path": "/{x}"}, "placeholder {x} has no parameter"),
        ({"path": "/{p.x}", "input": INPUT}, "a placeholder is {name}"),
        ({"path": "/{p", "input": INPUT}, "c: '{p'"),
        ({"path": "/{q}", "input": INPUT}, "parameter 'q' may be missing where {q} stands"),
        ({"query": {"a": "x{q}"}, "input": INPUT}, "parameter 'q' may be missing"),
        ({"body_text": "{q}", "input": INPUT}, "parameter 'q' may be missing"),
        ({"body_json": ["{p}", "a {q}"], "input": INPUT}, "parameter 'q' may be missing"),
        ({"body_json": "{q}", "input": INPUT}, "parameter 'q' may be missing"),
        ({"body_json": ["{p}"], "input": INPUT}, "parameter 'q' is used in neither path, query nor body"),
        ({"body_json": {"a": "{x}"}}, "placeholder {x} has no parameter"),
        ({"method": "GET", "input": INPUT}, "parameter 'p' is used in neither"),
        ({"method": "GET", "body": "json"}, "c: body: GET takes no body"),
        ({"body": "json", "body_text": "x"}, "c: body and body_text: a request has one body"),
        ({"body": "none", "content_type": "text/plain"}, "content_type: there is no body"),
        ({"body_text": "{{}}", "content_type": "application/JSON"}, "use body_json"),
        ({"retries": 1}, "retries: only what is safe is said again"),
        ({"method": "GET", "safe_to_repeat": False}, "safe contradicts safe_to_repeat"),
        ({"input": {"type": "string"}}, 'input: parameters are an object; write type = "object"'),
        (
            {"input": {"type": "object", "properties": {"p": {"type": "text"}}}},
            "c: input: not a JSON Schema: properties.p.type",
        ),
        ({"input": {"type": "object", "properties": {"p": {"$ref": "http://localhost/x"}}}}, "complete in itself"),
        (
            {"input": {"type": "object", "properties": {"p": {"type": "integer", "default": "1"}}}},
            "the default of 'p' does",
        ),
        ({"input": {"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}}, r"\$schema must be"),
        ({"input": {"type": "object", "properties": {"p": {"pattern": "(?=a)"}}}}, "c: input: "),
        ({"output": {"type": "text"}}, "c: output: not a JSON Schema"),
        ({"output": {"description": "x" * 300_000}}, "c: output: the schema has 3.* bytes, the limit is 262144"),
        ({"timeout_s": float("inf")}, "c: timeout_s: "),
        ({"name": "a b"}, "a capability's name is"),
    ],
)
def test_declarations_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(CapabilityError, match=message):
        http_capability(URL, **{"name": "c", **settings})


def test_what_is_not_declared_is_refused_or_goes_along():
    closed = http_capability(URL, "c", input=INPUT).input_schema
    assert closed["additionalProperties"] is False
    others: list[dict] = [{"additionalProperties": True}, {"allOf": [{}]}, {"unevaluatedProperties": False}]
    for kept in others:
        schema = http_capability(URL, "c", input={**INPUT, **kept}).input_schema
        assert {key: schema[key] for key in kept} == kept
        assert schema.get("additionalProperties", True) is True
    assert "additionalProperties" not in http_capability(URL, "c").input_schema
    assert http_capability(URL, "c", method="GET").input_schema["additionalProperties"] is False


@pytest.mark.parametrize("value", ["a\nb", " a", "a ", "é", "a\0"])
def test_a_secret_that_no_header_can_hold_is_not_quoted(monkeypatch, value):
    if "\0" not in value:
        monkeypatch.setenv("KEY_OF_TEST", f"secret{value}" if value != " a" else " secret")
        with pytest.raises(CapabilityError, match=r"headers.A: the environment variable KEY_OF_TEST must be") as raised:
            HttpAgent(URL, headers={"A": "${env:KEY_OF_TEST}"})
        assert "secret" not in str(raised.value)


def test_defaults_are_each_tasks_own():
    schema = {"type": "object", "properties": {"p": {"default": {"a": []}}}}
    decode = http_capability(URL, "c", input=schema).signature.decode
    decode(b"{}")["p"]["a"].append(1)
    assert decode(b"{}") == {"p": {"a": []}}
