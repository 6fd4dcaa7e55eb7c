"""What words on the command line mean, and how rows line up."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.cli.output import CliError, printable, table
from merit.cli.parameters import parameters_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=5,
)
names = st.text(st.characters(codec="utf-8", exclude_characters="=:"), min_size=1)


@given(names, st.text())
def test_a_plain_value_is_a_string_whatever_it_looks_like(name: str, text: str):
    assert parameters_of(None, [f"{name}={text}"]) == {name: text}


@given(names, json_values)
def test_a_json_value_is_itself(name: str, value: object):
    assert parameters_of(None, [f"{name}:={json.dumps(value)}"]) == {name: value}


@given(st.dictionaries(names, json_values), names, st.text())
def test_values_win_over_params(params: dict[str, object], name: str, text: str):
    assert parameters_of(json.dumps(params), [f"{name}={text}"]) == {**params, name: text}


@pytest.mark.parametrize("word", ["", "=", "=x", ":=1", "x", "x:=", "x:={", "x:=nope"])
def test_anything_else_is_refused(word: str):
    with pytest.raises(CliError, match=r".") as refused:
        parameters_of(None, [word])
    assert refused.value.code == 2


@given(st.text())
def test_nothing_that_is_shown_steers_a_terminal(text: str):
    assert printable(text).replace("\t", "").isprintable()


@given(st.lists(st.tuples(st.text(st.characters(codec="ascii")), st.integers()), min_size=1))
def test_rows_line_up(rows: list[tuple[str, int]]):
    lines = table(("name", "count"), rows)
    assert len(lines) == len(rows) + 1
    assert len({len(line) for line in lines}) == 1
