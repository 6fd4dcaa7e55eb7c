"""Wrong usage is found before anything is asked of a control plane."""

import json

import pytest

from merit.cli.main import main


@pytest.mark.parametrize(
    "words",
    [
        ["nope"],
        ["submit"],
        ["submit", "hello", "input"],
        ["submit", "hello", "input:={"],
        ["submit", "hello", "--params", "[]"],
        ["submit", "hello", "--params", "@missing.json"],
        ["submit", "hello", "input=x", "--attempts", "0"],
        ["submit", "hello", "input=x", "--run-timeout", "nan"],
        ["submit", "hello", "input=x", "--run-timeout", "1e400"],
        ["task", "show", "yesterday"],
        ["submit", "hello", "input=x", "--timeout", "soon"],
        ["submit", "hello", "input=x", "--timeout", "1000d", "--tenant", "é"],
        ["submit", "hello", "input=x", "--deadline", "tomorrow"],
        ["submit", "hello", "input=x", "--retry", "bored=1"],
        ["submit", "hello", "input=x", "--retry", "lost=many"],
        ["submit", "hello", "input=x", "--retry", "lost=1", "--retry", "lost=2"],
        ["submit", "hello", "input=x", "--label", "blue"],
        ["submit", "hello", "input=x", "--resource", "memory=lots"],
        ["submit", "hello", "input=x", "--resource", "cpu=1", "--resource", "cpu=2"],
        ["map", "hello", "-", "--resource", "cpu=-1"],
        ["worker", "capabilities", "--capacity", "memory"],
        ["task", "list", "--state", "bored"],
        ["task", "list", "--since", "someday"],
        ["task", "cancel"],
        ["task", "cancel", "yesterday"],
        ["task", "cancel", "yesterday", "--capability", "hello"],
        ["task", "follow", "yesterday"],
        ["queue", "limit", "--concurrency", "1"],
        ["queue", "limit", "--capability", "hello"],
        ["queue", "limit", "--capability", "hello", "--tenant", "acme", "--none"],
        ["queue", "limit", "--capability", "hello", "--none", "--rate", "1/s"],
        ["queue", "limit", "--capability", "hello", "--concurrency", "1", "--burst", "3"],
        ["queue", "limit", "--capability", "hello", "--rate", "often"],
        ["queue", "limit", "--capability", "hello", "--rate", "1/h"],
        ["queue", "share", "acme", "--weight", "0"],
        ["worker", "list", "--state", "lazy"],
        ["worker", "show"],
        ["worker", "tell", "w1", "dance"],
        ["worker", "watch", "--for", "ever"],
        ["capability", "allocate"],
        ["capability", "allocate", "hello"],
        ["capability", "allocate", "--all", "hello", "direct"],
        ["capability", "allocate", "", "direct"],
        ["capability", "allocate", "", "--none"],
        ["capability", "allocate", "hello", "weighted", "--weight", "load=much"],
        ["capability", "probe", "hello"],
        ["capability", "probe", "hello", "probes.json", "--none"],
        ["rollout", "start", "hello", "2.0.0"],
        ["rollout", "start", "hello", "2.0.0", "--share", "110%"],
        ["rollout", "share", "hello", "some"],
        ["explain"],
        ["explain", "yesterday"],
        ["dead", "retry"],
        ["dead", "retry", "--all", "--capability", "boom"],
        ["dead", "purge", "yesterday"],
        ["schedule", "add", "x", "0 3 * * *", "hello", "input=x", "--delay", "1s"],
        ["map", "hello", "missing.jsonl"],
        ["status", "--server", "nowhere"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_a_document(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.err.startswith("merit: ")
    assert len(said.err.splitlines()) == 1
    assert json.loads(said.out)["error"]["message"]
