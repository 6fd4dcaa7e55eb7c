"""Files with settings: what everybody reads alike is read, everything else refused with its place."""

import pytest
from msgspec import Struct

from merit.cli.output import CliError
from merit.cli.settings_file import read_settings


class Settings(Struct, forbid_unknown_fields=True):
    a: object = None
    b: object = None


@pytest.fixture
def read(tmp_path):
    def reads(text, name="settings.yaml", kind=Settings):
        file = tmp_path / name
        file.write_text(text)
        return read_settings(file, kind, "merit some command")

    return reads


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("0x1F", "0x1F"),
        ("true", True),
        ("null", None),
        ("-5", -5),
        ("1.5e3", 1500.0),
        ("'5'", "5"),
        ("[1, {x: y}]", [1, {"x": "y"}]),
    ],
)
def test_words_mean_what_they_look_like(read, text, value):
    assert read(f"a: {text}").a == value


def test_json_is_read_as_such_and_as_yaml(read):
    text = '{"a": [1, 2.5, "x", null, true], "b": {"c": {}}}'
    assert read(text) == read(text, "settings.json") == Settings([1, 2.5, "x", None, True], {"c": {}})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "settings.yaml:2:1: a stands twice"),
        ("a: &x 1\nb: *x", "settings.yaml:1:4: anchors and aliases cannot be used"),
        ("a: {1: 2}", "settings.yaml:1:5: a name has to be a text"),
        ("a: !!python/object:os.system x", "settings.yaml:1:4: could not determine a constructor"),
        ("a: [1", "settings.yaml:1:6: expected"),
        ("a: [" * 3_000, "settings.yaml"),
        ("c: 1", "Object contains unknown field `c`; see merit some command --help"),
        ("", "Expected `object`"),
        ("a: " + "x" * 1_100_000, "is larger than"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(read, text, said):
    with pytest.raises(CliError) as raised:
        read(text)
    assert said in str(raised.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CliError, match="No such file"):
        read_settings(tmp_path / "none.yaml", Settings, "merit some command")
