"""`merit supervision`, `merit worker pardon|pin|unpin|retire`, `merit explain DECISION`, and what `list`, `show` and `status`
tell of how workers stand: against a real control plane, with a worker that does well and one that does not."""

from collections.abc import Iterator
from typing import Any

import click
import pytest

from merit import Client
from merit.cli.conduct import special, standing_story
from merit.cli.supervision import set_supervision
from merit.sdk.supervision import SupervisionArguments
from tests.merit_command import Fleet, fleet, until

WELL = "from merit import capability\n\n\n@capability\ndef mill(n: int) -> int:\n    return n * 2\n"
BADLY = WELL.replace("return n * 2", 'raise RuntimeError("too tired")')
QUICK = ("--every", "100ms", "--cool-down", "1ms", "--circuit-open", "10m")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Of two workers one has failed until its breaker opened, and was punished."""
    with fleet(tmp_path_factory.mktemp("judged")) as made:
        (made.folder / "well.py").write_text(WELL)
        (made.folder / "badly.py").write_text(BADLY)
        made.up()
        made.worker("good", module="well")
        made.worker("bad", module="badly")
        assert made.merit("supervision", "set", *QUICK, "--json").json["every_s"] == 0.1
        with Client(made.server) as client:
            list(client.map("mill", [{"n": number} for number in range(100)]))
        until(lambda: worker(made, "bad")["decisions"] and worker(made, "good")["decisions"], "both were judged")
        yield made


def worker(made: Fleet, name: str) -> dict[str, Any]:
    with Client(made.server) as client:
        return client.operations.fleet.worker(name)


def test_the_list_says_how_workers_stand(judged: Fleet):
    heading, bad, good = judged.merit("worker", "list").out.splitlines()
    assert all(name in heading for name in ("SCORE", "FACTOR", "REPUTATION", "SPECIAL"))
    assert "breaker open until 20" in bad
    assert "breaker" not in good
    views = {view["id"]: view for view in judged.merit("worker", "list", "--json").json["workers"]}
    assert views["bad"]["score"] < views["good"]["score"]
    assert views["bad"]["factor"] < 1 < views["good"]["factor"]


def test_a_worker_is_shown_with_its_history_its_decisions_and_what_it_may(judged: Fleet):
    shown = judged.merit("worker", "show", "bad").out
    assert "breaker     OPEN until 20" in shown
    assert "what it may it gets no tasks until 20" in shown
    assert "it may not do tasks that ask for the tag merit.trusted" in shown
    assert "PUNISH" in shown
    assert "is not above 50.0 [score " in shown


def test_a_decision_is_explained_now_and_as_of_then(judged: Fleet):
    decision = worker(judged, "bad")["decisions"][0]
    number = str(decision["decision"])
    told = judged.merit("explain", number).out
    assert f"decision    {number}\nworker      bad\n" in told
    assert f"because     {decision['reason']}\n" in told
    assert "reputation  0." in told
    assert judged.merit("explain", number, "--json").json["figures"] == decision["figures"]
    assert judged.merit("at", f"#{number}", "explain", number, "--json").json["reason"] == decision["reason"]
    then = judged.merit("at", f"#{int(number) - 1}", "worker", "show", "bad", "--json").json
    assert (then["decisions"], then["factor"]) == ([], 1.0)
    ran = judged.merit("explain", "1")
    assert (ran.code, "no decision about a worker" in ran.err) == (1, True)
    assert judged.merit("explain", "no-task").code == 2


def test_a_task_for_which_only_such_a_worker_is_left_says_so_and_status_counts_it(judged: Fleet):
    assert "breakers open        1\n" in judged.merit("status").out
    assert "workers paused" not in judged.merit("status").out
    assert judged.merit("status", "--json").json["workers_punished"] == 1
    judged.merit("worker", "pause", "good", "--reason", "lunch")
    task = judged.merit("submit", "mill", "n:=1").out.strip()
    assert "those that may do it are held back: bad failed too often" in judged.merit("task", "show", task).out
    told = judged.merit("explain", task).out
    assert "is paused: lunch" in told
    assert "failed too often: its breaker is open until 20" in told
    judged.merit("worker", "resume", "good")
    assert judged.merit("task", "follow", task).out.endswith("2\n")


def test_a_person_pins_and_unpins(judged: Fleet):
    assert judged.merit("worker", "pin", "good", "--factor", "1.5", "--reason", "proven").out == "good pinned at 1.5\n"
    view = worker(judged, "good")
    assert (view["pinned"], view["decisions"][-1]["reason"]) == (True, "proven")
    assert "factor pinned" in judged.merit("worker", "list").out
    assert judged.merit("worker", "unpin", "good", "--json").json == {"worker": "good", "pinned": False}
    ran = judged.merit("worker", "unpin", "good")
    assert (ran.code, "is not pinned" in ran.err) == (1, True)
    assert judged.merit("worker", "pin", "good", "--factor", "5").code == 2
    assert judged.merit("worker", "pin", "good", "--json").json["factor"] == 1.5


def test_a_person_pardons_as_a_whole_or_one_decision(judged: Fleet):
    decision = next(one for one in worker(judged, "bad")["decisions"] if one["verdict"] == "PUNISH")
    number = str(decision["decision"])
    document = judged.merit("worker", "pardon", "bad", "--decision", number, "--json").json
    assert (document["undone"], document["factor"]) == (decision["decision"], pytest.approx(1.0))
    assert f"{number}" in judged.merit("worker", "show", "bad").out
    assert "PUNISH (undone)" in judged.merit("worker", "show", "bad").out
    ran = judged.merit("worker", "pardon", "bad", "--decision", number)
    assert (ran.code, "none of the last decisions about bad that hold" in ran.err) == (1, True)
    assert judged.merit("worker", "pardon", "bad", "--reason", "sorry").out == "bad pardoned; its factor is 1\n"
    assert worker(judged, "bad")["circuit"]["state"] == "CLOSED"
    shown = judged.merit("worker", "show", "bad").out
    assert "score since 20" in shown
    assert "factor since 20" in shown
    assert "└──" in shown


def test_retire_is_remove(judged: Fleet):
    old = judged.worker("old", module="well")
    assert judged.merit("worker", "retire", "old", "--yes").out == "old removed\n"
    assert old.ended() != 0
    assert worker(judged, "old")["state"] == "DEACTIVATED"


def test_what_is_set_is_shown_and_can_be_as_usual_again(judged: Fleet):
    words = ("--punish-at", "60", "--pause", "30s", "--punish", "20%", "--weight", "errors=150", "--engine", "adaptive")
    view = judged.merit("supervision", "set", *words, "--json").json
    assert (view["punish_at"], view["pause_s"], view["punish"], view["engine"]) == (60.0, 30.0, 0.2, "adaptive")
    assert (view["weights"]["errors"], view["every_s"]) == (150.0, 0.1)
    assert judged.merit("supervision", "objective", "mill", "--share", "99%", "--within", "5s").out == (
        "99.0% of mill are to be done well within 5s\n"
    )
    shown = judged.merit("supervision", "show").out
    assert "engine              adaptive  one of adaptive, threshold\n" in shown
    assert "pause               30s " in shown
    assert "mill          99.0%  5s      1h\n" in shown
    assert judged.merit("supervision", "objective", "mill", "--none").out == "mill has no objective\n"
    assert judged.merit("supervision", "show", "--json").json["objectives"] == []
    for wrong, code in (
        (["--punish-at", "90"], 1),
        (["--weight", "beauty=1"], 1),
        (["--weight", "errors=much"], 2),
        (["--engine", "guess"], 1),
        ([], 2),
    ):
        assert judged.merit("supervision", "set", *wrong).code == code, wrong
    for wrong in (["mill"], ["mill", "--share", "1%", "--none"]):
        assert judged.merit("supervision", "objective", *wrong).code == 2
    assert judged.merit("supervision", "set", "--defaults", "--json").json["every_s"] == 3.0


def test_every_setting_has_an_option():
    names = {param.name for param in set_supervision.params if isinstance(param, click.Option)}
    assert set(SupervisionArguments.__annotations__) <= names


def test_of_one_that_is_long_gone_nothing_is_said():
    view = dict.fromkeys(("factor", "score", "circuit", "stage"))
    assert special(view) == ""
    assert list(standing_story(view)) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ""),
        ({"stage": "PAUSED"}, "paused by supervision"),
        ({"stage": "PROBATION", "pinned": True}, "on probation, factor pinned"),
        ({"circuit": {"state": "HALF_OPEN", "until": None}}, "breaker half open"),
        ({"privileges": ["merit.trusted"]}, "merit.trusted"),
    ],
)
def test_what_is_special_is_said_in_a_few_words(fields, said):
    usual = {"factor": 1.0, "stage": "ACTIVE", "pinned": False, "privileges": []}
    assert special({**usual, "circuit": {"state": "CLOSED", "until": None}, **fields}) == said
