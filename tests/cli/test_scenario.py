import json

import pytest

from merit.cli.main import main
from merit.cli.plot import Axis, around, plot


def said(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["scenario", "reference", *words])
    out, err = capsys.readouterr()
    assert err == ""
    return ended.value.code, out


def test_people_see_a_table_two_plots_and_whether_it_is_as_expected(capsys):
    code, out = said(capsys)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["WORKER", "STATE", "SCORE", "FACTOR"]
    assert [line.split()[0] for line in lines[1:5]] == ["general", "fast", "slow", "reliable"]
    assert lines[6] == "200 worlds, means: 28 tasks processed, 0 waiting"
    assert "score: general, fast, slow, reliable" in lines
    assert "factor: general, fast, slow, reliable" in lines
    judged = [line for line in lines if line.startswith(("✓", "✗"))]
    assert len(judged) == 11
    assert all(line.startswith("✓") for line in judged)


def test_of_one_world_nothing_is_judged(capsys):
    code, out = said(capsys, "--seeds", "1", "--first", "3")
    assert code == 0
    assert "world 3: 28 tasks processed, 0 waiting" in out
    assert "✓" not in out


def test_programs_get_it_all(capsys):
    code, out = said(capsys, "--seeds", "100", "--json")
    document = json.loads(out)
    assert code == 0
    assert (document["seeds"], document["processed"], document["waiting"]) == (100, 2_800, 0)
    assert [worker["worker"] for worker in document["workers"]] == ["general", "fast", "slow", "reliable"]
    assert document["workers"][0]["history"][0] == [0.0, 100.0, 1.0]
    assert all(one["holds"] for one in document["expected"])
    assert json.loads(said(capsys, "--seeds", "100", "--scoring", "relative", "--json")[1])["expected"] == []


def test_a_plot_is_drawn_with_letters():
    rising = [(0.0, 0.0), (5.0, 5.0), (10.0, 10.0)]
    lines = plot({"a": rising, "b": [(0.0, 5.0)]}, Axis(0, 10, "s"), Axis(0, 10), width=11, height=3)
    assert lines == [
        "10 ┤          a",
        " 5 ┤bbbbb•••••b",
        " 0 ┤aaaaa",
        "   └───────────",
        "    0      10 s",
    ]


def test_what_is_out_of_bounds_is_drawn_at_the_edge_and_what_is_not_known_not_at_all():
    lines = plot({"a": [(5.0, 99.0)], "b": []}, Axis(0, 9), Axis(0, 1), width=10, height=3)
    assert lines[0] == "  1 ┤     aaaaa"
    assert lines[1:3] == ["0.5 ┤", "  0 ┤"]


def test_an_axis_has_room_for_all_figures():
    assert around({"a": [(0.0, 87.0), (1.0, 93.0)]}, 5.0) == Axis(85, 95)
    assert around({"a": [(0.0, 1.0)]}, 0.1) == Axis(1, 1.1)
    assert around({"a": []}, 5.0) == Axis(0, 5)
