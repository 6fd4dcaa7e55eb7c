"""What people see of tasks whose results others were asked about: `merit task show|list`, `merit journal export|check`."""

from collections.abc import Iterator
from typing import Any

import pytest

from merit import Audit, Client, GoldExample
from tests.merit_command import Fleet, fleet

ADD = "from merit import capability\n\n\n@capability\ndef add(a: int, b: int) -> int:\n    return a + b"
JUDGE = """
from merit import capability


@capability
def review(task: str, capability: str, parameters: dict, result: int) -> dict:
    return {"ok": result == parameters["a"] - parameters["b"], "reason": "it is a difference"}


@capability
def subtract(a: int, b: int) -> int:
    return a - b if b else a + 1
"""
COUNT = 20
GOLD = tuple(GoldExample(parameters={"a": number, "b": 2}, expected=number + 2) for number in range(9))


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Of three workers one lies; another capability is judged."""
    with fleet(tmp_path_factory.mktemp("audited")) as made:
        (made.folder / "right.py").write_text(ADD)
        (made.folder / "wrong.py").write_text(f"{ADD} + 1\n")
        (made.folder / "judged.py").write_text(JUDGE)
        made.up()
        for name, module in (
            ("ann", "right"),
            ("bob", "right"),
            ("liar", "wrong"),
            ("eve", "judged"),
            ("may", "judged"),
        ):
            made.worker(name, module=module)
        with Client(made.server) as client:
            policy = Audit(copies=3, floor=1.0, newcomer_tasks=1_000, gold=GOLD, gold_share=1.0)
            client.operations.fleet.set_audit("add", policy)
            # Others wait for what the liar has to say, also while its breaker is open.
            client.operations.fleet.set_supervision(circuit_open_s=0.2)
            client.operations.fleet.set_audit("subtract", Audit(judge="review", floor=1.0))
            calls = [{"a": number, "b": 1} for number in range(COUNT)]
            while not caught(made):  # it is not always the liar who gets one first
                assert [result.value for result in client.map("add", calls)] == list(range(1, COUNT + 1))
        yield made


def caught(made: Fleet) -> list[str]:
    """Tasks at which the liar was found out."""
    views: list[dict[str, Any]] = made.merit("task", "list", "--worker", "liar", "--json").json["tasks"]
    return [view["id"] for view in views if view["attempts"][0]["state"] == "REJECTED"]


def test_lists_have_what_was_asked_for_and_the_rest_only_if_that_is_wanted(audited: Fleet):
    shown = audited.merit("task", "list", "--capability", "add", "--all", "--json").json["tasks"]
    assert len(shown) % COUNT == 0
    assert all(view["tenant"] == "default" and "review" not in view["terms"] for view in shown)
    everything = audited.merit("task", "list", "--capability", "add", "--reviews", "--all", "--json").json["tasks"]
    kinds = {view["terms"]["review"]["kind"] for view in everything if "review" in view["terms"]}
    assert kinds == {"COPY", "GOLD"}
    assert "--reviews" in audited.merit("task", "list", "--reviews", "--limit", "1").err


def test_a_task_says_who_was_asked_about_it_and_what_was_decided(audited: Fleet):
    task = caught(audited)[0]
    shown = audited.merit("task", "show", task).out
    result = audited.merit("task", "show", task, "--json").json["result"]
    assert "audit       another worker's answer is its result" in shown
    assert "ann, bob said otherwise" in shown or "bob, ann said otherwise" in shown
    rows = shown.partition("Others were asked about its result:\n")[2].splitlines()[1:]
    assert sorted(row.split()[-3:] for row in rows) == [[name, "COMPLETED", str(result)] for name in ("ann", "bob")]
    copy = audited.merit("task", "show", rows[0].split()[2]).out
    assert f"looks at    the result of task {task}, by doing the same once more" in copy


def test_a_verdict_is_shown_also_of_a_dead_letter(audited: Fleet):
    good = audited.merit("submit", "subtract", "a:=3", "b:=1", "--wait", "--json").json["id"]
    shown = audited.merit("task", "show", good).out
    assert "audit       its result is accepted" in shown
    assert '"ok":true' in shown
    bad = audited.merit("submit", "subtract", "a:=3", "b:=0", "--attempts", "1", "--wait", "--json")
    assert bad.code == 1
    shown = audited.merit("dead", "show", bad.json["id"]).out
    assert "audit       its result is not accepted" in shown
    assert "(audit) " in shown
    assert "who was asked to judge it: it is a difference" in shown
    assert '"ok":false' in shown
    assert audited.merit("journal", "export", "--task", bad.json["id"], "-o", "bad.json").code == 0
    story = audited.merit("journal", "check", "bad.json", "--json").json["story"]
    assert any("REJECTED: " in line for line in story)
    assert "is wrong, by judge: it is a difference" in story[-2]
    assert "DEAD" in story[-1]


def test_the_trail_of_an_audited_task_says_what_others_said_and_verifies(audited: Fleet):
    task = caught(audited)[0]
    assert audited.merit("journal", "export", "--task", task, "-o", "trail.json").code == 0
    checked = audited.merit("journal", "check", "trail.json", "--json")
    assert checked.code == 0
    assert any("COMPLETED with the answer of another worker" in line for line in checked.json["story"])
    assert any("liar is wrong, by copies: " in line for line in checked.json["story"])
    names = [event["event"] for event in audited.merit("journal", "show", "--task", task, "--json").json["events"]]
    assert names.index("AuditStarted") < names.index("AuditAnswered") < names.index("ResultJudged")
    assert names.count("AuditAnswered") == 2
    assert names.count("ResultJudged") == 3
    (gold,) = audited.merit("task", "list", "--reviews", "--tenant", "merit.gold", "--limit", "1", "--json").json[
        "tasks"
    ]
    assert audited.merit("journal", "export", "--task", gold["id"], "-o", "gold.json").code == 0
    assert "to look at its worker" in audited.merit("journal", "check", "gold.json").out
    for one in audited.merit("task", "list", "--reviews", "--label", f"merit.review-of={task}", "--json").json["tasks"]:
        assert audited.merit("journal", "export", "--task", one["id"], "-o", "copy.json").code == 0
        story = audited.merit("journal", "check", "copy.json", "--json").json["story"]
        assert f"as a copy of task {task}" in story[0]
