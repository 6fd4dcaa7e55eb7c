import dataclasses
import datetime as dt
import enum
import json
import math
import sys
import threading
import typing
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from merit.model.searchable import places, texts_at
from merit.sdk.context import Context
from merit.sdk.schema import CapabilityError, InvalidInput, InvalidOutput, Parameter, build_signature, signature_of
from merit.sdk.searchable import Searchable


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Span(TypedDict):
    first: int
    last: NotRequired[int]


class Block(TypedDict):
    spans: list[Span]


class Model(BaseModel):
    size: Annotated[int, Field(ge=3, le=9)] = 4
    ratio: float = 0.5


@dataclasses.dataclass
class Day:
    date: dt.date
    note: str = ""


def everything(
    number: int,
    colour: Colour,
    block: Block,
    model: Model,
    day: Day,
    context: Context,
    choice: Literal["a", "b"] = "a",
    maybe: str | None = None,
    either: int | str = 3,
    names: list[str] = [],  # noqa: B006 — what a user may write
) -> list[Block]:
    return [block]


WHOLE = {
    "number": 1,
    "colour": "red",
    "block": {"spans": [{"first": 1}]},
    "model": {"size": 3},
    "day": {"date": "2026-01-02"},
}


def decode(signature, value):
    return signature.decode(json.dumps(value).encode())


def test_the_input_schema_is_an_object_of_the_parameters_without_the_context():
    signature = signature_of(everything, "everything")
    schema = signature.input_schema
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["number", "colour", "block", "model", "day"]
    assert list(schema["properties"]) == [
        "number", "colour", "block", "model", "day", "choice", "maybe", "either", "names",
    ]  # fmt: skip
    assert schema["properties"]["number"] == {"type": "integer"}
    assert schema["properties"]["choice"] == {"enum": ["a", "b"], "type": "string", "default": "a"}
    assert schema["properties"]["maybe"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert schema["properties"]["names"] == {"type": "array", "items": {"type": "string"}, "default": []}
    assert schema["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert schema["$defs"]["Span"]["required"] == ["first"]
    assert schema["$defs"]["Model"]["properties"]["size"] == {
        "type": "integer",
        "default": 4,
        "minimum": 3,
        "maximum": 9,
    }
    assert signature.output_schema["items"] == {"$ref": "#/$defs/Block"}
    assert signature.context_parameter == "context"


def test_decoding_makes_the_declared_objects():
    assert decode(signature_of(everything, "everything"), WHOLE) == {
        "number": 1,
        "colour": Colour.RED,
        "block": {"spans": [{"first": 1}]},
        "model": Model(size=3),
        "day": Day(dt.date(2026, 1, 2)),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": "1"}, r"number: Input should be a valid integer \(got '1'\)"),
        ({"number": True}, "number: .*integer"),
        ({"colour": "green"}, "colour: Input should be 'red' or 'blue'"),
        ({"block": {"spans": [{"first": 1}, {"first": 1.5}]}}, r"block\.spans\.1\.first: .*integer"),
        ({"model": {"size": 2}}, r"model\.size: .*greater than or equal to 3"),
        ({"day": {"date": "2026-13-01"}}, r"day\.date: .*month"),
        ({"choice": "c"}, "choice: Input should be 'a' or 'b'"),
        ({"beyond": 1}, "beyond: Extra inputs"),
        ({"context": {}}, "context: Extra inputs"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(InvalidInput, match=message):
        decode(signature_of(everything, "everything"), WHOLE | change)


def plain(text: str, count: int = 2, ratio: float = 0.5, flag: bool = False, maybe: int | None = None) -> str:
    return text


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"text": 1}', "text: Input should be a valid string"),
        (b'{"count": 1}', "text: Field required"),
        (b'{"text": "a", "count": "1"}', "count: .*integer"),
        (b'{"text": "a", "count": 1.5}', "count: .*integer"),
        (b'{"text": "a", "count": true}', "count: .*integer"),
        (b'{"text": "a", "flag": 1}', "flag: .*boolean"),
        (b'{"text": "a", "ratio": "x"}', "ratio: .*number"),
        (b'{"text": "a", "ratio": 1e999}', "ratio: .*finite"),
        (b'{"text": "a", "ratio": NaN}', "not JSON"),
        (b'{"text": "a", "more": 1}', "more: Extra inputs"),
        (b'{"text": "\\ud800"}', "JSON"),
        (b'{"text": "\xff"}', "JSON"),
        (b'{"text": "a"', "not JSON"),
        (b"", "not JSON"),
        (b"[]", "parameters: Input should be an object"),
        (b"null", "parameters: Input should be an object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"text": "a", "count": ' + b"9" * 5_000 + b"}", "JSON"),
    ],
)
def test_bad_input_is_refused_the_same_way_by_the_fast_decoder(raw, message):
    with pytest.raises(InvalidInput, match=message):
        signature_of(plain, "plain").decode(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
HINTS: list[Any] = [
    int,
    float,
    str,
    bool,
    int | None,
    str | None,
    list[int],
    list[str],
    dict[str, float],
    list[list[bool]],
]


@given(hint=st.sampled_from(HINTS), value=json_values)
def test_the_fast_decoder_agrees_with_pydantic_on_every_value(hint, value):
    fast = build_signature("fast", [Parameter("x", hint)], None)
    slow = build_signature("slow", [Parameter("x", Annotated[hint, Field(description="not plain")])], None)

    def outcome(signature):
        try:
            return json.dumps(decode(signature, {"x": value}))
        except InvalidInput as error:
            return str(error)

    assert outcome(fast) == outcome(slow)


@given(
    st.integers(-(2**80), 2**80)
    | st.text()
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
)
def test_scalars_survive_the_way_out_and_in(value):
    hint = type(value) if value is not None else None
    signature = build_signature("same", [Parameter("x", hint)], hint)
    back = signature.decode(b'{"x":' + signature.encode(value) + b"}")["x"]
    assert back == value
    assert type(back) is type(value)


@given(json_values)
def test_any_json_value_can_be_a_result(value):
    encoded = None
    try:
        encoded = build_signature("any", [], Any).encode(value)
    except InvalidOutput:
        assert "Infinity" in json.dumps(value)
    if encoded is not None:
        assert json.loads(encoded) == value


untyped_nan: Any = math.nan
untyped_text: Any = "no date"


class Cycle:
    pass


looped: list[Any] = []
looped.append(looped)


def nested(levels):
    """A list in a list in a list …"""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("returns", "value", "message"),
    [
        (int, "1", "result: Input should be a valid integer"),
        (int, True, "integer"),
        (int, None, "integer"),
        (None, 1, "None"),
        (float, math.nan, "NaN|finite"),
        (float, math.inf, "infinity|finite"),
        (Any, {"deep": [math.nan]}, "NaN or an infinity"),
        (Any, math.inf, "NaN or an infinity"),
        (Any, {"deep": [Model.model_construct(size=3, ratio=math.nan)]}, "NaN or an infinity"),
        (dict, {"deep": [Day(untyped_nan)]}, "NaN or an infinity"),
        (list, [math.nan], "NaN or an infinity"),
        (dict[str, float], {"a": -math.inf}, "infinity|finite"),
        (Model, Model.model_construct(size=3, ratio=math.nan), "NaN or an infinity"),
        (Model, Model.model_construct(size="x"), "cannot be written"),
        (list[Day], [Day(untyped_text)], "cannot be written"),
        (str, "\ud800", "surrogate|string"),
        (Any, {"a": ["\udfff"]}, "surrogate"),
        (Any, Cycle(), "cannot be written"),
        (Any, looped, "cannot be written"),
        (list[Block], [{"spans": [{"first": "1"}]}], r"0\.spans\.0\.first: .*integer"),
        (list[int], (1, 2), "valid list"),
        # The door takes none deeper; the worker's stream would break each time that it is sent.
        (Any, nested(65), "deeper than 64 levels"),
    ],
)
def test_results_that_do_not_fit_or_are_not_json_are_refused(returns, value, message):
    with pytest.raises(InvalidOutput, match=message):
        build_signature("bad", [], returns).encode(value)


@pytest.mark.parametrize("returns", [int, Any])
def test_numbers_that_the_door_cannot_read_are_refused(returns):
    with pytest.raises(InvalidOutput, match="number that is too long"):
        build_signature("long", [], returns).encode(10**5_000)


def test_what_only_looks_deep_passes():
    assert build_signature("a", [], Any).encode(nested(64)) == b"[" * 64 + b"]" * 64
    text = '\\"' + "[" * 200
    assert json.loads(build_signature("b", [], Any).encode([text] * 9 + [[]] * 70)) == [text] * 9 + [[]] * 70
    assert build_signature("c", [], str).encode("1" * 5_000) == b'"' + b"1" * 5_000 + b'"'


def test_results_are_written_in_the_form_of_their_type():
    assert build_signature("a", [], Model).encode(Model(size=5)) == b'{"size":5,"ratio":0.5}'
    assert build_signature("b", [], Day).encode(Day(dt.date(2026, 1, 2))) == b'{"date":"2026-01-02","note":""}'
    assert build_signature("c", [], Colour).encode(Colour.BLUE) == b'"blue"'
    assert build_signature("d", [], str).encode("NaN and Infinity") == b'"NaN and Infinity"'
    assert build_signature("e", [], Any).encode({"text": "NaN"}) == b'{"text":"NaN"}'


def test_constraints_hold_and_are_told():
    signature = build_signature("c", [Parameter("code", Annotated[str, Field(pattern="^[a-z]+$", max_length=3)])], None)
    assert signature.input_schema["properties"]["code"] == {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3}
    with pytest.raises(InvalidInput, match=r"code: .*pattern"):
        decode(signature, {"code": "A"})


def untyped(x): ...
def starred(*x: int): ...
def keyworded(**x: int): ...
def positional(x: int, /): ...
def unserialisable(x: int, y: threading.Event): ...
def bad_default(x: int = None): ...  # type: ignore[assignment] # noqa: RUF013 — what is tested
def bad_return(x: int) -> threading.Event: ...  # type: ignore[empty-body] # never called
def two_contexts(a: Context, b: Context): ...
def unknown_name(x: "Nowhere"): ...  # type: ignore[name-defined] # noqa: F821 — what is tested


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (untyped, "f: parameter 'x' has no type hint"),
        (starred, r"f: parameter '\*x"),
        (keyworded, r"f: parameter '\*\*x"),
        (positional, "f: parameter 'x"),
        (unserialisable, "f: parameter 'y' cannot be read as JSON"),
        (bad_default, "f: parameter 'x': its default None does not fit"),
        (bad_return, "f: the return type cannot be read as JSON"),
        (two_contexts, "f: parameter 'b': one Context"),
        (unknown_name, r"f: its type hints cannot be evaluated .*Nowhere"),
    ],
)
def test_a_function_that_cannot_be_a_capability_is_refused_when_declared(function, message):
    with pytest.raises(CapabilityError, match=message):
        signature_of(function, "f")


def test_the_functions_own_default_applies_when_a_field_is_left_out():
    signature = signature_of(plain, "plain")
    assert plain(**signature.decode(b'{"text":"a"}')) == "a"
    assert signature.input_schema["properties"]["count"] == {"type": "integer", "default": 2}
    assert "names" not in decode(signature_of(everything, "everything"), WHOLE)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes typing.TypedDict from Python 3.12 on")
def test_typeddict_of_typing_works_before_python_3_12():
    assert typing.is_typeddict(Span)
    decoded = decode(
        build_signature("t", [Parameter("spans", dict[str, list[Span]] | None)], None), {"spans": {"a": [{"first": 1}]}}
    )
    assert decoded == {"spans": {"a": [{"first": 1}]}}


def test_parameters_that_are_searchable_are_marked_wherever_they_stand():
    def publish(
        title: Annotated[str, Searchable],
        day: Annotated[Day, Searchable],
        authors: list[Annotated[str, Searchable]],
        secret: str,
        note: Annotated[str | None, Searchable] = None,
    ) -> None: ...

    signature = signature_of(publish, "publish")
    marked = places(json.dumps(signature.input_schema).encode())
    assert set(marked) == {("title",), ("day",), ("authors", ""), ("note",)}
    given = {"title": "T", "day": {"date": "2026-01-02", "note": "N"}, "authors": ["A", "B"], "secret": "S"}
    assert decode(signature, given)["authors"] == ["A", "B"]
    assert sorted(texts_at(marked, json.dumps(given).encode())) == ["2026-01-02", "A", "B", "N", "T"]


def test_a_mark_costs_nothing_when_parameters_are_read():
    def plain(title: str) -> None: ...
    def marked(title: Annotated[str, Searchable]) -> None: ...

    assert signature_of(marked, "m").decode.__name__ == signature_of(plain, "p").decode.__name__
    assert decode(signature_of(marked, "m"), {"title": "x"}) == {"title": "x"}
    with pytest.raises(InvalidInput, match="title"):
        decode(signature_of(marked, "m"), {"title": 1})
