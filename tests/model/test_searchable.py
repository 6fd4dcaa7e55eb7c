"""Parameters by which tasks are found."""

import time

import msgspec

from merit.model.searchable import MARK, Marked, places, texts_at
from merit.model.workers import Offer
from merit.testing.read_model_contract import a_row

encode = msgspec.json.encode


def a_schema(**properties):
    return encode(
        {"type": "object", "properties": properties, "$defs": {"doc": {"properties": {"title": {MARK: True}}}}}
    )


def test_marks_are_found_wherever_they_stand():
    schema = a_schema(
        name={"type": "string", MARK: True},
        plain={"type": "string"},
        inner={"properties": {"deep": {MARK: True}}},
        many={"items": {MARK: True}},
        doc={"$ref": "#/$defs/doc"},
        docs={"items": {"$ref": "#/$defs/doc"}},
        off={MARK: False},
        elsewhere={"$ref": "https://somewhere.example/schema"},
    )
    assert set(places(schema)) == {
        ("name",),
        ("inner", "deep"),
        ("many", ""),
        ("doc", "title"),
        ("docs", "", "title"),
    }


def test_texts_are_those_at_the_marks():
    marked = places(a_schema(name={MARK: True}, many={"items": {MARK: True}}, whole={MARK: True}))
    parameters = encode(
        {"name": "Ada", "many": ["x", 7, None], "whole": {"a": ["b", {"c": 1.5}], "d": True}, "other": "secret"}
    )
    assert sorted(texts_at(marked, parameters)) == ["1.5", "7", "Ada", "b", "x"]
    assert texts_at(marked, encode({"name": "Ada", "many": "no list"})) == ["Ada"]
    assert texts_at(marked, b"") == []
    assert texts_at(marked, b"[1]") == []
    assert len(texts_at(marked, encode({"whole": ["t"] * 10_000}))) == 500


def test_marks_of_what_may_be_missing_and_of_all_values_are_found():
    schema = {
        "properties": {
            "maybe": {"anyOf": [{"type": "string", MARK: True}, {"type": "null"}]},
            "table": {"type": "object", "additionalProperties": {"type": "string", MARK: True}},
            "other": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        }
    }
    marked = places(encode(schema))
    assert set(marked) == {("maybe",), ("table", "")}
    parameters = {"maybe": "Oslo", "table": {"a": "Bern", "b": "Graz"}, "other": "secret"}
    assert sorted(texts_at(marked, encode(parameters))) == ["Bern", "Graz", "Oslo"]


def test_what_is_no_schema_has_no_marks():
    mark = MARK.encode()
    for schema in (b"", b"{}", mark, b"[" * 100_000 + mark, encode(MARK), encode({MARK: True}), b"\xff" + mark):
        assert places(schema) == ()


def test_a_hostile_schema_costs_little():
    many = {f"p{number}": {"$ref": "#/$defs/all"} for number in range(1_000)}
    schema = encode({"properties": many, "$defs": {"all": {"properties": many}}, "title": MARK})
    began_s = time.process_time()
    assert places(schema) == ()
    assert time.process_time() - began_s < 1


def test_a_schema_that_changes_counts_from_then_on():
    offers: dict[str, Offer] = {}
    marked = Marked(offers)
    row = a_row(1, parameters=encode({"name": "Ada", "city": "Oslo"}))
    assert marked.texts(row.task) == []
    offers["echo"] = Offer("echo", input_schema=a_schema(name={MARK: True}))
    assert marked.texts(row.task) == ["Ada"]
    offers["echo"] = Offer("echo", input_schema=a_schema(city={MARK: True}))
    assert marked.texts(row.task) == ["Oslo"]
