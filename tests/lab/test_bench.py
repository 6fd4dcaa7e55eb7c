"""Each benchmark at a tiny size: that it ends, and says what it should. What comes out is not looked at, but for what
must never be."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from merit.lab.bench.delayed import Lateness
from merit.lab.bench.figures import Figure, percentile
from merit.lab.bench.fleet import Fleet, FleetFailed, cpu_s, fine_cpu_s
from merit.lab.bench.hot_tenant import Starts
from merit.model.frames import Settled
from merit.model.tasks import TaskState

SIZES = {
    "throughput": ["--tasks", "50", "--tasks", "100"],
    "openloop": ["--rates", "200", "--offer", "0.5", "--stall", "0.3", "--stall-rate", "100"],
    "latency": ["--rounds", "10"],
    "recovery": ["--naps", "10", "--nap", "0.01", "--restart-events", "2000"],
    "scale": [
        "--waiting",
        "2000",
        "--waiting-few",
        "100",
        "--scale-tasks",
        "200",
        "--busy-workers",
        "2",
        "--idle-workers",
        "5",
        "--workers",
        "1",
    ],
    "queue": [
        "--waiting",
        "2000",
        "--waiting-few",
        "100",
        "--hot-nap",
        "0.02",
        "--hot-repeats",
        "1",
        "--limit-pairs",
        "2",
        "--limit-tasks",
        "100",
        "--delayed",
        "200",
        "--delay-spread",
        "0.5",
        "--flow-rate",
        "200",
        "--workers",
        "1",
    ],
    "fleet": [
        "--trace-tasks",
        "60",
        "--virtual-workers",
        "3",
        "--strategy-pairs",
        "1",
        "--strategy-tasks",
        "40",
        "--scale-pairs",
        "1",
        "--scale-pair-tasks",
        "20",
        "--busy-workers",
        "2",
        "--idle-workers",
        "20",
        "--waiting-few",
        "100",
        "--unary-workers",
        "3",
        "--unary-tasks",
        "24",
        "--unary-nap",
        "0.01",
        "--workers",
        "1",
    ],
    "merit": ["--seeds", "1"],
}
NAMES = {
    "throughput": {"tasks_per_s_50", "tasks_per_s_100", "tasks_per_s", "cpu_s_per_1k", "lost", "duplicated", "rss_mb"},
    "openloop": {"held_200", "open_p99_ms", "stall_recovery_s"},
    "latency": {"p50_ms", "p99_ms"},
    "recovery": {"over_ideal", "lost", "duplicated", "restart_1m_events_s", "fold_events_per_s"},
    "scale": {"waiting_cost_ratio", "workers_cost_ratio", "bytes_per_waiting_task", "bytes_per_idle_worker"},
    "queue": {"hot_tenant_ratio", "limits_cost_pct", "limits_cost_pct_all", "timer_p99_ms", "timer_early"},
    "fleet": {"strategy_cost_pct", "strategy_scale_ratio", "default_vs_central", "unary_share", "unary_lost"},
    "merit": {"caught_constant_pct", "onoff_bad_accepted", "busiest_honest", "honest_out_pct"},
}


@pytest.mark.parametrize("name", SIZES)
def test_a_benchmark_says_its_figures(name: str, tmp_path: Path):
    ran = subprocess.run(
        [sys.executable, "-m", "merit", "bench", name, *SIZES[name], "--state", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    figures = {figure["name"]: figure for figure in said["figures"]}
    assert figures.keys() >= NAMES[name]
    assert all(figure.keys() == {"name", "value", "unit", "bar", "ok"} for figure in figures.values())
    for never in {"lost", "duplicated", "unary_lost"} & figures.keys():
        assert figures[never] == {"name": never, "value": 0, "unit": "tasks", "bar": 0, "ok": True}
    if name == "queue":
        assert figures["timer_early"]["value"] == 0
        assert figures["timer_p99_ms"]["value"] >= figures["timer_p50_ms"]["value"] > 0
        assert figures["idle_start_ms"]["value"] > 9 * 20, "nine tasks go before the last"
    if name == "fleet":
        assert figures["default_vs_central"]["unit"] == "×, synthetic trace"
        assert 0 < figures["unary_share"]["value"] <= 1
    assert said["machine"].keys() >= {"fsync_p50_ms", "fsync_p99_ms", "grpc_echo_p50_ms", "grpc_echoes_per_s", "cpus"}
    assert list(tmp_path.iterdir()) == [], "everything is removed"


async def test_a_fleet_whose_control_plane_dies_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with pytest.raises(FleetFailed, match="cell-0 has ended"):
        async with Fleet(tmp_path) as fleet:
            client = await fleet.connect()
            try:
                fleet.cell.kill()
                await asyncio.Event().wait()
            finally:
                await client.aclose()
    assert list(tmp_path.iterdir()) == []


def test_a_figure_is_ok_on_the_right_side_of_its_bar():
    assert Figure("x", 2, "s", ceiling=2).ok
    assert not Figure("x", 2.1, "s", ceiling=2).ok
    assert Figure("x", 2, "s", floor=2).ok
    assert not Figure("x", 1.9, "s", floor=2).ok
    assert Figure("x", 2, "s").ok is None


def test_what_never_came_is_no_number_and_misses_its_bar():
    figure = Figure("x", percentile([1.0, float("inf")], 0.99), "s", ceiling=10)
    assert figure.view() == {"name": "x", "value": None, "unit": "s", "bar": 10.0, "ok": False}


def test_the_ratio_is_that_of_the_medians():
    assert Starts([1.0, 9.0, 2.0], [3.0, 0.1, 99.0]).ratio == 1.5


def test_lateness_counts_from_the_time_of_each_task():
    lateness = Lateness(4, 1_000_000, 8_000_000)
    specs = [lateness.spec(f"task-{number}", number) for number in range(4)]
    assert [spec.terms.not_before_ns for spec in specs if spec.terms] == [1_000_000, 3_000_000, 5_000_000, 7_000_000]
    for spec, began_ns in zip(specs, (2_000_000, 3_000_000, 9_000_000, 6_500_000), strict=True):
        lateness.heard(Settled(spec.id, TaskState.COMPLETED, b"%d" % began_ns))
    assert lateness.late_ns == [1_000_000, 0, 4_000_000, -500_000]
    assert lateness.late_ms(1.0) == 4


def test_fine_cpu_time_is_the_same_as_the_usual_one():
    process = psutil.Process(os.getpid())
    before_s = cpu_s([process])
    fine_s = fine_cpu_s(process)
    assert before_s - 0.02 <= fine_s <= cpu_s([process]) + 0.02, "the usual one counts in hundredths"
