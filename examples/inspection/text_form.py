"""What the foreign agent says of how files are written, put together: totals, and the files that are unlike the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

REMARKABLE_MAX = 200


class TextForms(TypedDict):
    """How many files are written in which way, and the `remarkable` ones by path, each with the reasons in words.

    Of line endings a file is counted for the one that it uses, or as `mixed`; `none` has no line at all. `remarkable_total`
    counts those as well that are not listed.
    """

    files: int
    encodings: dict[str, int]
    line_endings: dict[str, int]
    byte_order_marks: int
    without_final_newline: int
    with_trailing_blanks: int
    trailing_blanks: int
    with_tabs: int
    remarkable: list[dict[str, Any]]
    remarkable_total: int


def text_forms(forms: Iterable[tuple[str, Mapping[str, Any]]]) -> TextForms:
    """The findings from the form of each file, by path in any order."""
    found = TextForms(
        files=0,
        encodings=dict.fromkeys(("ascii", "utf-8", "other"), 0),
        line_endings=dict.fromkeys(("lf", "crlf", "cr", "mixed", "none"), 0),
        byte_order_marks=0,
        without_final_newline=0,
        with_trailing_blanks=0,
        trailing_blanks=0,
        with_tabs=0,
        remarkable=[],
        remarkable_total=0,
    )
    for path, form in sorted(forms, key=lambda one: one[0]):
        if "problem" in form:
            reasons = [form["problem"]]
        else:
            _count(found, form)
            reasons = _reasons(form)
        if reasons:
            found["remarkable_total"] += 1
            if len(found["remarkable"]) < REMARKABLE_MAX:
                found["remarkable"].append({"path": path, "reasons": reasons})
    return found


def _count(found: TextForms, form: Mapping[str, Any]) -> None:
    found["files"] += 1
    found["encodings"][form["encoding"]] += 1
    found["line_endings"][_line_ending(form)] += 1
    found["byte_order_marks"] += form["byte_order_mark"]
    found["without_final_newline"] += not form["ends_in_newline"]
    found["with_trailing_blanks"] += form["trailing_blanks"] > 0
    found["trailing_blanks"] += form["trailing_blanks"]
    found["with_tabs"] += form["tab_indented"] > 0


def _line_ending(form: Mapping[str, Any]) -> str:
    used = [kind for kind in ("lf", "crlf", "cr") if form[kind]]
    return "mixed" if len(used) > 1 else used[0] if used else "none"


def _reasons(form: Mapping[str, Any]) -> list[str]:
    """What is worth a look; blanks at ends of lines are too common for that."""
    reasons = []
    if form["encoding"] == "other":
        reasons.append("neither ASCII nor UTF-8")
    if form["byte_order_mark"]:
        reasons.append("byte order mark")
    match _line_ending(form):
        case "crlf":
            reasons.append("CR LF at ends of lines")
        case "cr":
            reasons.append("CR at ends of lines")
        case "mixed":
            counts = [f"{form[kind]:,} {name}" for kind, name in (("lf", "LF"), ("crlf", "CR LF"), ("cr", "CR"))]
            reasons.append(f"mixed ends of lines: {', '.join(one for one in counts if not one.startswith('0 '))}")
    if not form["ends_in_newline"]:
        reasons.append("last line without an end")
    if form["tab_indented"]:
        reasons.append(f"tabs in the indentation of {form['tab_indented']:,} lines")
    return reasons
