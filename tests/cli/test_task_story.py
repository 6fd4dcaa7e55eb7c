"""What people are shown of tasks: one with its attempts, and many in a table."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merit.cli.task_story import bar, story
from merit.cli.task_table import rows
from tests.merit_command import Running, fleet, merit, until

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SPEAKER = """
import time
from pathlib import Path

from merit import Context, capability


@capability
def speak(context: Context) -> str:
    context.log("warning", "line one", count=3, where="a b")
    Path("proof.txt").write_text("proof")
    context.evidence("proof.txt")
    context.progress(0.5, message="half of it")
    while not Path("go").exists():
        time.sleep(0.01)
    return "x" * 200_000
"""


def attempt(**more: Any) -> dict[str, Any]:
    return {
        "number": 1,
        "worker": "w1",
        "state": "COMPLETED",
        "assigned": "2026-11-20T11:00:00.000Z",
        "started": "2026-11-20T11:00:00.500Z",
        "ended": "2026-11-20T11:00:01.500Z",
        "wall_s": 1.0,
        "cpu_s": 0.5,
        "memory_bytes": 0,
        "progress": None,
        "progress_message": "",
        "trail": None,
        "error": None,
        **more,
    }


def view(**more: Any) -> dict[str, Any]:
    return {
        "id": "01a1f89f-2e57-73c8-9583-18c7251fb890",
        "capability": "speak",
        "state": "COMPLETED",
        "priority": "MEDIUM",
        "tenant": "",
        "terms": {},
        "deadline": None,
        "successor": "",
        "principal": "",
        "description": "",
        "parameters": {},
        "run_timeout_s": 300.0,
        "attempts_max": 3,
        "after": [],
        "submitted": "2026-11-20T11:00:00.000Z",
        "ended": "2026-11-20T11:00:01.500Z",
        "attempts": [attempt()],
        "result": None,
        "error": None,
        "why": "it is COMPLETED",
        **more,
    }


def told(**more: Any) -> str:
    return "\n".join(story(view(**more), "127.0.0.1:50051"))


def test_log_and_evidence_are_shown_within_bounds():
    start_ns = int(datetime(2026, 11, 20, 11, 0, 0, tzinfo=UTC).timestamp()) * 10**9 + 500_000_000
    log = [
        {"time_ns": start_ns + n * 10**7, "level": "info", "message": f"line {n}", "fields": {"n": n, "s": "a b"}}
        for n in range(60)
    ]
    evidence = [{"path": f"/data/{n}", "size_bytes": 1_234, "sha256": f"{n:064x}"} for n in range(30)]
    said = told(attempts=[attempt(trail={"log": log, "log_dropped": 7, "evidence": evidence})])
    assert '  +0.590     info     line 59  n=59  s="a b"' in said
    assert "line 9 " not in said
    assert "7 lines were beyond its bounds" in said
    assert "its last 50 lines; --json has 10 before them" in said
    assert "  1,234 bytes  sha256 000000000000…  /data/19" in said
    assert "/data/20" not in said
    assert "and 10 more" in said


def test_a_clock_that_is_behind_gives_no_time_before_the_start():
    said = told(attempts=[attempt(trail={"log": [{"time_ns": 5, "level": "info", "message": "early"}]})])
    assert "+0.000     info     early" in said


@pytest.mark.parametrize("trail", [[], 1, "x", {"log": 1}, {"log": [{}]}, {"evidence": [{"path": 1}]}])
def test_a_trail_of_another_make_is_no_crash(trail: object):
    assert "not what was expected" in told(attempts=[attempt(trail=trail)])


def test_progress_is_shown_while_it_runs():
    running = attempt(state="RUNNING", ended=None, progress=0.4, progress_message="reading")
    said = told(state="RUNNING", ended=None, why="attempt 1 runs on w1", attempts=[running])
    assert "progress    [████████░░░░░░░░░░░░] 40 %  reading" in said
    assert "why         attempt 1 runs on w1" in said
    assert "progress" not in told(attempts=[attempt(progress=0.4, progress_message="reading")])


def test_what_was_asked_for_is_said():
    terms = {
        "not_before": "2026-11-20T10:00:00.000Z",
        "retry": {"lost": 3, "backoff_s": 0.5},
        "safe_to_repeat": False,
        "idempotency_key": "once",
        "labels": {"team": "blue"},
        "origin": "an earlier one",
        "despite_dead": True,
        "demand": {
            "versions": ">=1.2,<2",
            "worker": "w7",
            "tags": ["gpu", "zone-a"],
            "without_tags": ["spot"],
            "resources": {"cpu": 0.5, "memory": 2**31},
            "strategy": "round-robin",
            "prefers": ["zone-b"],
        },
    }
    said = told(terms=terms, deadline="2026-11-20T12:00:00.000Z", successor="a later one")
    assert "limits      5m a run, 3 attempts" in said
    assert "deadline    2026-11-20T12:00:00.000Z" in said
    assert "retry       3 after lost, first pause 500ms" in said
    assert "repeating   never, unless it is known not to have started" in said
    assert "only once   once" in said
    demand = ["versions    >=1.2,<2", "on worker   w7", "with tags   gpu zone-a", "no tags     spot"]
    demand += ["needs       cpu=0.5 memory=2Gi", "strategy    round-robin", "rather on   zone-b"]
    assert "\n".join(demand) in said
    assert "origin      an earlier one" in said
    assert "labels      team=blue" in said
    assert "tried again as a later one" in said


def test_a_sign_of_life_is_no_progress():
    running = attempt(state="RUNNING", ended=None, progress_message="reading")
    assert "progress    reading" in told(state="RUNNING", ended=None, attempts=[running])


def test_why_says_more_than_the_state():
    assert "why " not in told()
    assert "why         no such luck" in told(state="DEAD", why="no such luck")


def test_only_a_digest_is_taken_for_a_large_content():
    assert "to get it, in Python" in told(result={"blob": "0a" * 32})
    assert 'result      {"blob":"mine"}' in told(result={"blob": "mine"})


@given(st.floats(allow_nan=False))
def test_a_bar_has_one_width(fraction: float):
    assert bar(fraction).index("]") == 21


names = st.text(st.characters(categories=["Ll"], max_codepoint=127), min_size=1, max_size=60)


@given(
    st.lists(st.tuples(names, names, st.sampled_from(["2026-11-20", "2026-11-19"])), min_size=1, max_size=5),
    st.integers(20, 200),
)
def test_rows_never_wrap(tasks: list[tuple[str, str, str]], width: int):
    views = [
        view(capability=name, attempts=[attempt(worker=worker)], submitted=f"{day}T11:00:00.000Z")
        for name, worker, day in tasks
    ]
    lines = rows(views, width, NOW)
    assert len(lines) == len(tasks) + 1
    assert max(map(len, lines)) <= width


def test_eighty_columns_hold_what_matters():
    lines = rows([view(), view(submitted="2026-11-19T11:00:00.000Z", attempts=[])], 80, NOW)
    assert lines[0].split() == ["ID", "CAPABILITY", "STATE", "WORKER", "SUBMITTED"]
    assert lines[1].split()[1:] == ["speak", "COMPLETED", "w1", "11:00:00"]
    assert lines[2].split()[-2:] == ["-", "2026-11-19"]
    heading, row = rows([view()], None, NOW)
    assert heading.endswith("ENDED")
    assert row.endswith("2026-11-20T11:00:00.000Z  2026-11-20T11:00:01.500Z")


def test_a_task_that_speaks_is_heard(tmp_path: Path):
    (tmp_path / "speaker.py").write_text(SPEAKER)
    with fleet(tmp_path) as made:
        made.up()
        worker = Running(["-m", "merit", "worker", "speaker", "--server", made.server, "--name", "w"], tmp_path, "w")
        made.running.append(worker)
        worker.says("attached", "err")
        task = made.merit("submit", "speak").out.strip()
        until(
            lambda: "[██████████░░░░░░░░░░] 50 %  half of it" in made.merit("task", "show", task).out,
            "its progress is shown",
        )
        (tmp_path / "go").touch()
        until(lambda: made.merit("task", "show", task, "--json").json["state"] == "COMPLETED", "it is completed")
        said = made.merit("task", "show", task).out
        assert 'warning  line one  count=3  where="a b"' in said
        assert "  5 bytes  sha256 " in said
        assert str(tmp_path / "proof.txt") in said
        assert "it is COMPLETED" not in said
        program = next(line.strip() for line in said.splitlines() if line.strip().startswith("with Client("))
        got = Running(["-c", f"from merit import Client\n{program}"], tmp_path, "got")
        assert got.ended() == 0, got.err
        assert got.out == "x" * 200_000 + "\n"
        assert merit("task", "show", task, "--server", made.server, cwd=tmp_path).out == said
