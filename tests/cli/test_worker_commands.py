"""`merit worker list`, `pause` and the like, `merit capability`, `merit rollout` and `merit explain` against a real control
plane and real workers; and that `merit worker MODULE` is what it was."""

import json
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import click
import pytest

from merit.cli import explain
from merit.cli.main import main
from merit.cli.rollout import Share
from merit.cli.worker import OPERATIONS, work, worker
from merit.testing.builders import an_id
from tests.merit_command import Fleet, fleet, merit, until


@pytest.fixture(scope="module")
def staffed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet of a steady worker, and of those that tests bring."""
    with fleet(tmp_path_factory.mktemp("staffed")) as made:
        made.up()
        made.worker("w1", "--tag", "eu")
        yield made


def states(made: Fleet) -> dict[str, str]:
    """The state of every worker that was ever here."""
    every = [
        word for state in ("idle", "busy", "paused", "gone", "deactivated", "draining") for word in ("--state", state)
    ]
    return {view["id"]: view["state"] for view in made.merit("worker", "list", *every, "--json").json["workers"]}


# The group and the command that it was before


def test_a_first_word_that_is_no_command_is_a_module():
    context = click.Context(worker)
    assert worker.list_commands(context) == list(OPERATIONS)
    assert worker.make_context("worker", ["hello", "--name", "w"]).command is work
    assert worker.make_context("worker", ["--name", "list", "hello"]).params["name"] == "list"
    assert worker.make_context("worker", []).command is work
    assert worker.make_context("worker", ["./list.py"]).params["module"] == "./list.py"
    assert worker.make_context("worker", ["list"]).command is worker


def test_its_help_is_about_working_and_names_the_commands(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["worker", "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert said.startswith("Usage: merit worker [OPTIONS] [MODULE]")
    assert all(f"  {name} " in said for name in OPERATIONS)
    assert "--concurrency" in said


def test_without_anything_it_says_what_is_missing(tmp_path):
    ran = merit("worker", cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert "MODULE" in ran.err
    ran = merit("worker", "lst", cwd=tmp_path)
    assert (ran.code, ran.err.split(";")[0]) == (2, "merit: there is no module lst")


# Workers


def test_workers_are_listed_and_shown(staffed: Fleet):
    views = staffed.merit("worker", "list", "--json").json["workers"]
    (view,) = [one for one in views if one["id"] == "w1"]
    assert (view["state"], view["contract"], view["tags"]) == ("IDLE", "SESSION", ["eu"])
    assert {"hello", "add"} <= {offer["name"] for offer in view["capabilities"]}
    heading, row = staffed.merit("worker", "list", "--capability", "hello", "--versions", "<2").out.splitlines()
    assert row.index("IDLE") == heading.index("STATE")
    assert row.startswith("w1 ")
    for words in (["--versions", ">=2", "--capability", "hello"], ["--tag", "us"], ["--state", "paused"]):
        ran = staffed.merit("worker", "list", *words)
        assert (ran.code, ran.out) == (0, "")
        assert "merit worker MODULE" in ran.err
    assert staffed.merit("submit", "add", "a:=1", "b:=2", "--wait").out == "3\n"
    shown = staffed.merit("worker", "show", "w1").out
    assert "state       IDLE" in shown
    assert "1 completed, 0 failed" in shown
    view = staffed.merit("worker", "show", "w1", "--json").json
    (offer,) = [one for one in view["capabilities"] if one["name"] == "add"]
    assert offer["measured"] == 1
    assert offer["took_s"] > 0


def test_a_worker_that_nobody_knows(staffed: Fleet):
    for words in (["show"], ["pause"], ["resume"], ["drain"], ["remove", "--yes"]):
        ran = staffed.merit("worker", words[0], "nobody", *words[1:], "--json")
        assert ran.code == 1
        assert ran.json["error"]["kind"] == "not_found"
    ran = staffed.merit("worker", "list", "--versions", ">=1", "--json")
    assert (ran.code, ran.json["error"]["field"]) == (1, "filter.versions")


def test_a_worker_is_paused_and_resumed(staffed: Fleet):
    assert staffed.merit("worker", "pause", "w1", "--reason", "a rest").out == "w1 paused\n"
    task = staffed.merit("submit", "hello", "input=x").out.strip()
    assert "w1 is paused" in staffed.merit("explain", task).out
    assert "a rest" in staffed.merit("worker", "list", "--state", "paused").out
    ran = staffed.merit("worker", "pause", "w1")
    assert (ran.code, "already" in ran.err) == (1, True)
    assert staffed.merit("worker", "resume", "w1", "--json").json == {"worker": "w1", "paused": False}
    assert staffed.merit("task", "follow", task).out.endswith("hello x\n")


def test_a_worker_drains_and_one_is_removed_until_it_is_resumed(staffed: Fleet):
    leaving, removed = staffed.worker("leaving"), staffed.worker("removed")
    assert staffed.merit("worker", "drain", "leaving").out == "leaving drains\n"
    assert leaving.ended() == 0
    ran = staffed.merit("worker", "remove", "removed")
    assert (ran.code, ran.out) == (2, "")
    assert "say it again with --yes" in ran.err
    ran = staffed.merit("worker", "remove", "removed", "--reason", "it is sold", "--yes")
    assert ran.out == "removed removed\n"
    assert removed.ended() != 0
    assert "it is sold" in removed.err
    assert {name: states(staffed)[name] for name in ("leaving", "removed")} == {
        "leaving": "GONE",
        "removed": "DEACTIVATED",
    }
    staffed.merit("worker", "resume", "removed")
    again = staffed.worker("removed")
    until(lambda: states(staffed)["removed"] == "IDLE", "it is back")
    assert again.stop() == 0
    until(lambda: states(staffed)["removed"] == "GONE", "it has left")


def test_those_that_are_gone_are_found_by_what_they_were(staffed: Fleet):
    for name in ("once-1", "once-2"):
        assert staffed.worker(name, "--tag", "eu", "--tenant", "acme").stop() == 0
    until(lambda: {states(staffed)[name] for name in ("once-1", "once-2")} == {"GONE"}, "they have left")
    for words in (["--capability", "hello"], ["--tag", "eu", "--tenant", "acme"], ["--left-since", "1h"]):
        document = staffed.merit("worker", "list", "--gone", "--name", "once", *words, "--json").json
        assert [view["id"] for view in document["workers"]] == ["once-1", "once-2"], words
        assert (document["next_cursor"], document["lacking"]) == ("", "")
    (view,) = staffed.merit("worker", "list", "--gone", "--name", "once-1", "--json").json["workers"]
    assert (view["state"], view["tags"], view["tenants"], view["lost"]) == ("GONE", ["eu"], ["acme"], False)
    assert view["left"] > view["first"]
    assert {"hello", "add"} <= {offer["name"] for offer in view["capabilities"]}
    for words in (["--tenant", "red"], ["--capability", "sing"], ["--left-until", "1h"]):
        ran = staffed.merit("worker", "list", "--gone", "--name", "once", *words)
        assert (ran.code, ran.out, words[0] in ran.err) == (0, "", True)
    ran = staffed.merit("worker", "list", "--gone", "--name", "once", "--limit", "1")
    assert ran.out.splitlines()[0].split()[-2:] == ["LEFT", "REASON"]
    assert ran.out.splitlines()[1].startswith("once-1  GONE")
    more = shlex.split(ran.err.removeprefix("more: merit "))
    assert staffed.merit(*more).out.splitlines()[1].startswith("once-2  GONE")
    assert "left        " in staffed.merit("worker", "show", "once-1").out


def test_a_worker_is_told_a_command(staffed: Fleet):
    ran = staffed.merit("worker", "tell", "w1", "reset")
    assert ran.out == "w1 is told RESET\n"
    until(lambda: not staffed.merit("worker", "show", "w1", "--json").json["words"], "it has heard it")
    assert staffed.merit("worker", "tell", "w1", "dance").code == 2


def test_changes_are_told_as_they_come(staffed: Fleet):
    watching = ["worker", "watch", "--capability", "hello", "--for", "5s"]
    with ThreadPoolExecutor() as pool:
        told = pool.submit(staffed.merit, *watching, "--json")
        lines = pool.submit(staffed.merit, *watching)
        new = staffed.worker("new")
        staffed.merit("worker", "pause", "new")
        assert new.stop() == 0
        document = told.result().json
    assert document["watched_s"] == 5
    seen = [change["state"] for change in document["changes"] if change["id"] == "new"]
    assert seen[0] in ("JOINING", "IDLE", "PAUSED")
    assert "PAUSED" in seen
    assert seen[-1] is None
    assert any(change["id"] == "w1" for change in document["changes"])
    said = [line.split()[1:3] for line in lines.result().out.splitlines()]
    assert ["-", "new"] in said


# Capabilities


def test_a_capability_is_shown_and_its_strategy_set(staffed: Fleet):
    views = staffed.merit("capability", "list", "--json").json["capabilities"]
    assert {"add", "hello"} <= {view["name"] for view in views}
    assert any(line.startswith("hello ") for line in staffed.merit("capability", "list").out.splitlines())
    assert "least-loaded (the default)" in staffed.merit("capability", "show", "hello").out
    ran = staffed.merit("capability", "allocate", "hello", "weighted", "--weight", "load=1.5")
    assert ran.out == "hello: weighted\n"
    view = staffed.merit("capability", "show", "hello", "--json").json
    assert view["allocation"] == {"strategy": "weighted", "weights": {"load": 1.5}, "set_for": "CAPABILITY"}
    assert (view["workers"], view["versions"]) == (1, {"1.0.0": 1})
    assert staffed.merit("capability", "allocate", "--all", "two-choices").out == "all others: two-choices\n"
    assert "two-choices (set for all)" in staffed.merit("capability", "show", "add").out
    assert staffed.merit("capability", "allocate", "hello", "--none").out == "hello: as for all others\n"
    assert staffed.merit("capability", "allocate", "--all", "--none").out == "all others: the default\n"
    ran = staffed.merit("capability", "allocate", "hello", "dice")
    assert (ran.code, "two-choices" in ran.err) == (1, True)
    assert staffed.merit("capability", "show", "nothing").code == 1


def test_who_comes_is_probed(staffed: Fleet):
    file = staffed.folder / "probes.json"
    file.write_text(json.dumps([{"parameters": {"a": 2, "b": 3}, "expected": 6}]))
    assert staffed.merit("capability", "probe", "add", str(file)).out == "add: 1 probe\n"
    assert "gives 6, within 30s" in staffed.merit("capability", "show", "add").out
    wrong = staffed.worker("wrong")
    until(lambda: states(staffed)["wrong"] == "PAUSED", "it has failed its probe")
    assert staffed.merit("worker", "show", "wrong", "--json").json["reason"]
    assert wrong.stop() == 0
    file.write_text(json.dumps([{"parameters": {"a": 2, "b": 3}, "expected": 5}]))
    staffed.merit("capability", "probe", "add", str(file))
    right = staffed.worker("right")
    until(lambda: states(staffed)["right"] == "IDLE", "it has passed its probe")
    assert right.stop() == 0
    assert staffed.merit("capability", "probe", "add", "--none").out == "add: everybody is admitted\n"
    for content in ("{", "{}", "[]", '[{"parameters": 1}]', '[{"parameters": {}, "expect": 1}]'):
        file.write_text(content)
        ran = staffed.merit("capability", "probe", "add", str(file))
        assert (ran.code, str(file) in ran.err) == (2, True)
    assert staffed.merit("capability", "probe", "add", "missing.json").code == 2


# Rollouts


def test_a_rollout_from_its_start_to_its_end(staffed: Fleet):
    (staffed.folder / "newer.py").write_text(
        'from merit import capability\n\n@capability(version="2.0.0")\ndef hello(input: str) -> str:\n    return "hi"\n'
    )
    newer = staffed.worker("newer", module="newer")
    assert "merit rollout start" in staffed.merit("rollout", "status").err
    assert "RUNNING" in staffed.merit("rollout", "start", "hello", "2.0.0", "--share", "100%").out
    assert staffed.merit("submit", "hello", "input=x", "--wait").out == "hi\n"
    view = staffed.merit("rollout", "status", "hello", "--json").json
    assert (view["version"], view["share"], view["canary"]["completed"]) == ("2.0.0", 1, 1)
    assert (view["canary"]["workers"], view["stable"]["workers"]) == (1, 1)
    assert staffed.merit("rollout", "share", "hello", "0%", "--json").json["share"] == 0
    assert staffed.merit("submit", "hello", "input=x", "--wait").out == "hello x\n"
    assert "version 2.0.0" in staffed.merit("rollout", "status", "hello").out
    assert staffed.merit("rollout", "status").out.splitlines()[1].startswith("hello ")
    assert "1.0.0 (1), 2.0.0 (1)" in staffed.merit("capability", "show", "hello").out
    assert staffed.merit("rollout", "promote", "hello", "--json").json["state"] == "PROMOTED"
    assert staffed.merit("submit", "hello", "input=x", "--wait").out == "hi\n"
    assert staffed.merit("rollout", "abort", "hello", "--json").json["state"] == "ABORTED"
    assert staffed.merit("submit", "hello", "input=x", "--wait").out == "hello x\n"
    assert staffed.merit("rollout", "abort", "hello").code == 1
    shared = staffed.merit("rollout", "share", "hello", "5%", "--json")
    assert (shared.code, shared.json["error"]["kind"]) == (1, "failed_precondition")
    assert "merit rollout start hello 2.0.0 --share" in shared.err
    assert staffed.merit("rollout", "status", "hello", "--json").json["state"] == "ABORTED"
    assert staffed.merit("rollout", "share", "nothing", "5%").code == 1
    assert newer.stop() == 0


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.1", 0.1), ("100%", 1), ("0", 0), ("12.5%", 0.125)])
def test_a_share(text: str, share: float):
    assert Share().convert(text, None, None) == pytest.approx(share)


# Why


def test_a_task_that_was_given_to_somebody_is_explained_and_the_replay_agrees(staffed: Fleet):
    other = staffed.worker("other")
    task = staffed.merit("submit", "add", "a:=1", "b:=2", "--wait", "--json").json["id"]
    ran = staffed.merit("explain", task, "--json")
    assert (ran.code, ran.json["agrees"], ran.json["attempt"]) == (0, True, 1)
    first, second = [ruling for ruling in ran.json["workers"] if ruling["fits"]][:2]
    assert (first["worker"], first["rank"]) == (ran.json["chosen"], 1)
    assert first["figures"].keys() == second["figures"].keys()
    said = staffed.merit("explain", task).out
    assert "decides the same" in said
    assert first["worker"] in said
    ran = staffed.merit("explain", task, "--attempt", "9")
    assert (ran.code, "it has 1" in ran.err) == (1, True)
    assert len(staffed.merit("explain", task, "--workers", "1", "--json").json["workers"]) == 1
    assert other.stop() == 0


def test_one_that_nobody_may_do_is_explained(staffed: Fleet):
    task = staffed.merit("submit", "add", "a:=1", "b:=2", "--versions", ">=9").out.strip()
    ran = staffed.merit("explain", task)
    assert ran.code == 0
    assert "has version 1.0.0, not >=9" in ran.out
    assert "RULED OUT" in ran.out
    view = staffed.merit("explain", task, "--json").json
    assert (view["chosen"], view["demand"]) == (None, "version >=9")
    staffed.merit("task", "cancel", task)
    ran = staffed.merit("explain", task)
    assert (ran.code, "never given to anybody" in ran.err) == (1, True)


def test_a_replay_that_decides_differently_is_said_aloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    view = {"task": an_id(1), "attempt": 1, "capability": "c", "demand": "", "strategy": "s", "at": None, "why": ""}
    view |= {"chosen": "w1", "agrees": False, "workers": [], "left_out": 0}
    monkeypatch.setattr(explain, "ask", lambda *_: view)
    with pytest.raises(SystemExit) as ended:
        main(["explain", an_id(1)])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert "DECIDES DIFFERENTLY" in said.out
    assert "THE REPLAY DECIDES DIFFERENTLY" in said.err


def test_explanations_outlive_a_restart(staffed: Fleet):
    task = staffed.merit("submit", "add", "a:=4", "b:=5", "--wait", "--json").json["id"]
    before = staffed.merit("explain", task, "--json").json
    plane = next(running for running in staffed.running if "up-" in running.out_path.name)
    assert plane.stop() == 0
    staffed.up()
    until(lambda: states(staffed).get("w1") == "IDLE", "the worker is back")
    assert staffed.merit("explain", task, "--json").json == before
