from textwrap import dedent

import pytest

from examples.inspection.documentation import cover_text
from examples.inspection.metrics import COMPLEXITY_BANDS, FUNCTIONS_MAX, measure, measure_text

MODULE = '''\
"""A module."""

import os.path, sys
from . import sibling
from ..above import thing

# a comment
TABLE = """
# no comment

"""  # nor a line of its own


class Thing:
    def method(self, items):
        return [one for one in items if one and one > 1 or None]  # 1 + for + if + and + or

    @staticmethod
    def branches(x):
        if x == 1:
            pass
        elif x == 2:
            pass
        elif x == 3:
            while x:
                with open(x):
                    x -= 1
        else:
            def inner():
                return 1 if x else 2
        try:
            match x:
                case 1:
                    pass
                case _:
                    pass
        except ValueError:
            pass


async def last(): return 0
'''


def test_figures_of_a_module():
    metrics = measure_text(MODULE)
    assert metrics["parsed"]
    assert metrics["lines"] == 41
    assert metrics["comment_lines"] == 1
    assert metrics["blank_lines"] == 7
    assert metrics["code_lines"] == 33
    assert metrics["classes"] == 1
    assert metrics["functions"] == 4
    assert metrics["imports"] == [".", "..above", "os.path", "sys"]
    assert {one["name"]: (one["complexity"], one["nesting"]) for one in metrics["most_complex"]} == {
        "Thing.branches": (7, 3),  # three ifs, while, one case, except
        "Thing.method": (5, 0),
        "Thing.branches.inner": (2, 0),
        "last": (1, 0),
    }
    assert metrics["most_complex"][0]["line"] == 19
    assert metrics["most_complex"][0]["line_last"] == 38
    assert metrics["nesting_max"] == 3
    assert metrics["complexity_total"] == 15
    assert sum(metrics["complexity_bands"]) == 4
    assert metrics["complexity_bands"][:7] == [1, 1, 0, 0, 1, 1, 0]
    assert 0 < metrics["maintainability"] < 100


@pytest.mark.parametrize("complexity", [*COMPLEXITY_BANDS, 30, 50, 500])
def test_a_function_is_counted_in_its_band(complexity):
    metrics = measure_text("def f(x):\n" + "    if x: pass\n" * (complexity - 1) + "    pass\n")
    assert metrics["complexity_max"] == complexity
    band = max(index for index, least in enumerate(COMPLEXITY_BANDS) if least <= complexity)
    assert metrics["complexity_bands"][band] == 1


def test_results_are_bounded():
    metrics = measure_text("\n".join(f"import m{n}\ndef f{n}(): pass" for n in range(500)))
    assert len(metrics["most_complex"]) == FUNCTIONS_MAX
    assert len(metrics["imports"]) == 200
    assert metrics["functions"] == 500


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", "x = 1"])
def test_small_modules_have_figures(text):
    metrics = measure_text(text)
    assert metrics["parsed"]
    assert metrics["lines"] == metrics["code_lines"] + metrics["comment_lines"] + metrics["blank_lines"]
    assert metrics["complexity_max"] == 0


def test_a_module_that_cannot_be_read_has_a_reason(tmp_path):
    (tmp_path / "old.py").write_text("print 'x'\n")
    (tmp_path / "bytes.py").write_bytes(b"\xff")
    metrics = measure("old.py", str(tmp_path))
    assert not metrics["parsed"]
    assert metrics["reason"].startswith("line 1: Missing parentheses")
    assert "encoding" in measure("bytes.py", str(tmp_path))["reason"]
    with pytest.raises(FileNotFoundError):
        measure("gone.py", str(tmp_path))


PUBLIC = '''\
"""Documented."""

from typing import overload


class Shown:
    """Says what it is."""

    def said(self, a: int, b) -> int:
        """Does it."""

    def unsaid(self): ...

    @property
    def value(self):
        """A value."""

    @value.setter
    def value(self, new): ...

    def __len__(self): ...

    def _own(self): ...


class _Hidden:
    def inside(self): ...


if True:
    @overload
    def twice(a: int) -> int: ...
    @overload
    def twice(a: str) -> str: ...
    def twice(a, *args: int, key: str, **rest):
        def local(): ...
else:
    try:
        pass
    except ImportError:
        async def rarely():
            "   "
'''


def test_what_is_public_is_counted():
    coverage = cover_text(PUBLIC)
    assert [(one["name"], one["kind"]) for one in coverage["undocumented"]] == [
        ("Shown.unsaid", "function"),
        ("twice", "function"),
        ("rarely", "function"),
    ]
    assert (coverage["modules"], coverage["modules_documented"]) == (1, 1)
    assert (coverage["classes"], coverage["classes_documented"]) == (1, 1)
    assert (coverage["functions"], coverage["functions_documented"]) == (5, 2)
    assert (coverage["parameters"], coverage["parameters_annotated"]) == (6, 3)
    assert (coverage["returns"], coverage["returns_annotated"]) == (5, 1)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("__all__ = ['_a']", {"_a"}),
        ("__all__ = ('b',)\n__all__ += ['_a']", {"_a", "b"}),
        ("__all__: list[str] = []", set()),
        ("__all__ = [*names]", {"b"}),
        ("__all__ = ['_a']\n__all__.extend(more)", {"b"}),
        ("", {"b"}),
    ],
)
def test_the_list_of_a_module_decides_what_is_public(listed, expected):
    coverage = cover_text(dedent("{}\ndef _a(): ...\ndef b(): ...\n").format(listed))
    assert {one["name"] for one in coverage["undocumented"]} == expected


def test_an_empty_module_needs_no_documentation():
    assert cover_text("# nothing\n")["modules"] == 0
    assert cover_text("x = 1\n")["modules"] == 1


def test_coverage_of_what_cannot_be_parsed():
    coverage = cover_text("def f(:")
    assert not coverage["parsed"]
    assert coverage["reason"]
    assert coverage["functions"] == 0
