"""Traces as they are read, and scaled to a load."""

import gzip
from pathlib import Path

import pytest

from merit.lab.bench.traces import DECODE_S, PREFILL_S, BadTrace, Trace, read_traces, synthetic


def test_each_trace_is_read_as_it_is(tmp_path: Path):
    (tmp_path / "azure_llm2023_code.csv").write_text("arrival_s,input_tokens,output_tokens\n0.0,1000,10\n0.5,2000,1\n")
    (tmp_path / "mooncake_conversation_a.csv").write_text(
        "arrival_s,input_tokens,output_tokens,kv_blocks\n3.0,10,1,7\n1.0,20,2,7\n"
    )
    with gzip.open(tmp_path / "alibaba_genai_requests_b.csv.gz", "wt") as file:
        file.write("arrival_s,exec_time_seconds\n0,32.0\n5,0.0\n9,4.0\n")
    (tmp_path / "philly_job_runtime_s.csv").write_text("runtime\n7.0\n1.0\n")
    (tmp_path / "something_else.csv").write_text("x\n1\n")
    azure, mooncake, alibaba, philly = read_traces(tmp_path, 100)
    assert azure.arrivals_s == (0.0, 0.5)
    assert azure.work_s == pytest.approx((1000 * PREFILL_S + 10 * DECODE_S, 2000 * PREFILL_S + DECODE_S))
    assert mooncake.arrivals_s == (1.0, 3.0), "in the order in which they come"
    assert mooncake.work_s == pytest.approx((20 * PREFILL_S + 2 * DECODE_S, 10 * PREFILL_S + DECODE_S))
    assert alibaba.work_s == (32.0, 4.0), "what was given up before it began is left out"
    assert alibaba.arrivals_s == (0.0, 9.0)
    assert philly.work_s == (7.0, 1.0)
    assert philly.arrivals_s == ()
    assert [len(trace.work_s) for trace in read_traces(tmp_path, 1)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("philly_job_runtime.csv", b"runtime\nsoon\n", "a row is not as the trace has it"),
        ("philly_job_runtime.csv", b"runtime\nnan\n", "line 2: a time is no number"),
        ("philly_job_runtime.csv", b"runtime\n0\n", "there is no task in it"),
        ("philly_job_runtime.csv", b"", "there is no task in it"),
        ("philly_job_runtime.csv", b"runtime\n\xff\n", "decode"),
        ("azure_llm2023_code.csv", b"arrival_s,input_tokens\n1,2\n", "output_tokens"),
        ("azure_llm2023_code.csv", b"arrival_s,input_tokens,output_tokens\n1,2\n", "a row is not as the trace has it"),
        ("alibaba_genai_requests.csv.gz", b"arrival_s\n", "alibaba_genai_requests.csv.gz: "),
        ("other.csv", b"", "no file there is named like one of azure_llm2023_code, "),
    ],
)
def test_what_is_no_trace_is_named(tmp_path: Path, name: str, content: bytes, says: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadTrace, match=says):
        read_traces(tmp_path, 100)


def test_a_directory_that_is_none_is_named(tmp_path: Path):
    with pytest.raises(BadTrace, match="none: No such file"):
        read_traces(tmp_path / "none", 100)


def test_a_load_is_the_share_of_the_time_that_workers_are_busy():
    trace = Trace("x", (1.0, 2.0, 3.0), (10.0, 20.0, 40.0))
    arrivals_ns, work_ns = trace.scaled(0.5, 4.0)
    assert work_ns == [1_000_000_000, 2_000_000_000, 3_000_000_000]
    assert arrivals_ns == [0, 1_000_000_000, 3_000_000_000], "six seconds of work, half of what four do in three"


def test_without_arrivals_tasks_come_at_random_and_always_alike():
    trace = synthetic(2_000)
    arrivals_ns, work_ns = trace.scaled(0.7, 20.0)
    assert (arrivals_ns, work_ns) == synthetic(2_000).scaled(0.7, 20.0)
    assert arrivals_ns == sorted(arrivals_ns)
    assert arrivals_ns[-1] * 0.7 * 20.0 == pytest.approx(sum(work_ns), rel=0.1)


def test_the_first_of_a_trace():
    assert Trace("x", (1.0, 2.0), (0.0, 1.0)).first(1) == Trace("x", (1.0,), (0.0,))
