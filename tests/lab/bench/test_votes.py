"""The benchmark of votes: figures of made-up crowds and of a directory's."""

import asyncio

import pytest

from merit.lab.bench.plan import Plan
from merit.lab.bench.traces import BadTrace
from merit.lab.bench.votes import SHAPES, read_sets, run

NAMES = ("majority_{}_pct", "dawid_skene_{}_pct", "truth_{}_pct", "truth_{}_behind_points")
SPEEDS = ["dawid_skene_labels_per_s", "truth_labels_per_s"]


def test_made_up_crowds_are_the_same_each_time():
    one, other = (asyncio.run(run(Plan(seeds=1))) for _ in range(2))
    assert [figure.name for figure in one] == [name.format(shape) for shape in SHAPES for name in NAMES] + SPEEDS
    assert one[:-2] == other[:-2]


def test_a_directory_of_sets(tmp_path):
    folder = tmp_path / "birds"
    folder.mkdir()
    (folder / "label.csv").write_text("item,worker,label\n1,u,a\n1,v,a\n1,w,b\n2,u,b\n2,v,b\n")
    (folder / "truth.csv").write_text("item,truth\n1,a\n2,a\n")
    figures = {figure.name: figure for figure in asyncio.run(run(Plan(data=tmp_path)))}
    assert list(figures) == [name.format("birds") for name in NAMES] + SPEEDS
    assert figures["majority_birds_pct"].value == 50
    assert figures["truth_birds_behind_points"].ok


def test_what_is_no_set_is_refused(tmp_path):
    with pytest.raises(BadTrace, match="has no set of labels"):
        read_sets(tmp_path)
    folder = tmp_path / "birds"
    folder.mkdir()
    (folder / "label.csv").write_text("item,worker,label\n1,u,a\n")
    with pytest.raises(BadTrace, match=r"truth\.csv cannot be read"):
        read_sets(tmp_path)
    (folder / "truth.csv").write_text("item,truth\n1\n")
    with pytest.raises(BadTrace, match="must have 2 columns"):
        read_sets(tmp_path)
    (folder / "truth.csv").write_text("item,truth\n")
    with pytest.raises(BadTrace, match="something below it"):
        read_sets(tmp_path)
