from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.inspection.credentials import PATTERNS, look_for_secrets_in_text, redact
from examples.inspection.suspicious import CONSTRUCTS_MAX, RULES, suspect, suspect_text

SUSPICIOUS = {
    "eval(x)": "dynamic-code",
    "import builtins as b\nb.exec(x)": "dynamic-code",
    "from os import system as run\nrun(x)": "shell-command",
    "import subprocess as sp\nsp.run(x, shell=True)": "shell-command",
    "def f():\n    return loads(x)\nfrom pickle import loads": "unsafe-load",
    "import yaml\nyaml.load(x)": "unsafe-load",
    "import yaml\nyaml.load(x, Loader=yaml.Loader)": "unsafe-load",
    "import requests\nrequests.get(x, verify=False)": "unverified-tls",
    "assert (x, 'message')": "assert-on-tuple",
    "password = 'hunter42'": "hard-coded-credential",
    "def f(*, api_key='9f8d7s6a'): pass": "hard-coded-credential",
    "settings['db_password'] = 'hunter42'": "hard-coded-credential",
    "connect(password='hunter42')": "hard-coded-credential",
    "cursor.execute(f'select {x}')": "sql-from-strings",
    "cursor.execute('select %s' % x)": "sql-from-strings",
    "cursor.execute('select {}'.format(x))": "sql-from-strings",
    "try: f()\nexcept: g()": "bare-except",
    "try: f()\nexcept: pass": "swallowed-exception",
    "try: f()\nexcept Exception: ...": "swallowed-exception",
    "def f(a, b=[]): pass": "mutable-default",
    "f = lambda a={}: a": "mutable-default",
    "def f(*, a=set()): pass": "mutable-default",
    "import tempfile\ntempfile.mktemp()": "temporary-name",
    "import os\nos.chmod(p, 0o777)": "world-writable",
    "def f():\n    try: g()\n    finally: return 1": "return-in-finally",
    "for x in y:\n    try: g()\n    finally:\n        if x: break": "return-in-finally",
    "raise NotImplemented('x')": "raise-not-implemented",
    "x is 5": "identity-of-literal",
    "{1: 2, 1: 3}": "repeated-key",
    "import hashlib\nhashlib.md5(x)": "weak-hash",
    "x == None": "none-comparison",
    "None != x": "none-comparison",
    "assert x": "assert-outside-tests",
    "from os import *": "wildcard-import",
}
HARMLESS = [
    "model.eval()",
    "import subprocess\nsubprocess.run(x)",
    "from .pickle import loads\nloads(x)",
    "import yaml\nyaml.load(x, Loader=yaml.SafeLoader)",
    "import yaml\nyaml.safe_load(x)",
    "password = ''",
    "password = 'changeme'",
    "password = getpass()",
    "password_field = 'password'",
    "cursor.execute('select 1 where a = ?', (x,))",
    "try: f()\nexcept:\n    g()\n    raise",
    "try: f()\nexcept KeyError: pass",
    "def f(a=None, b=()): pass",
    "import os\nos.chmod(p, 0o755)",
    "try: g()\nfinally:\n    for x in y: break",
    "try: g()\nfinally:\n    def h(): return 1",
    "raise NotImplementedError",
    "x is None",
    "x is True",
    "{1: 2, '1': 3, True: 4, 1.0: 5}",
    "import hashlib\nhashlib.md5(x, usedforsecurity=False)",
]


@pytest.mark.parametrize(("text", "rule"), SUSPICIOUS.items())
def test_each_rule_finds_what_it_is_for(text, rule):
    assert suspect_text(text)["counts"] == {rule: 1}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_alike_is_left_alone(text):
    assert suspect_text(text)["counts"] == {}


def test_every_rule_is_shown_to_work():
    assert set(SUSPICIOUS.values()) == set(RULES)


def test_places_are_in_order_and_bounded_but_all_are_counted():
    found = suspect_text("eval(x)\n" * 300 + "x == None\n")
    assert [one["line"] for one in found["constructs"]] == list(range(1, CONSTRUCTS_MAX + 1))
    assert found["counts"] == {"dynamic-code": 300, "none-comparison": 1}
    assert found["constructs"][0]["severity"] == "high"
    assert found["constructs"][0]["explanation"]


def test_tests_may_assert(tmp_path):
    (tmp_path / "tests").mkdir()
    for name in ("tests/a.py", "a.py"):
        (tmp_path / name).write_text("assert x\neval(x)\n")
    assert suspect("tests/a.py", str(tmp_path))["counts"] == {"dynamic-code": 1}
    assert suspect("a.py", str(tmp_path))["counts"] == {"assert-outside-tests": 1, "dynamic-code": 1}


def test_what_cannot_be_parsed_has_a_reason():
    assert suspect_text("exec 'code'") | {"reason": ""} == {
        "parsed": False,
        "reason": "",
        "constructs": [],
        "counts": {},
    }


# Put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq0yLk1mQ9Zr4v8xN2cT5wJ3hG6fD1sA0pO\n",
    "AWS access key": "key = 'AKIA" + "QYLPMN5HHHFPZAM2'",
    "AWS secret key": "aws_secret = '" + "wJalrXUtnFEMIK7MDENGbPxRfiCYzR4m8Qp2Ls9v" + "'",
    "GitHub token": "t = 'ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8'",
    "GitLab token": "glpat-" + "xY7zQ2wE9rT4uI1oP5aS",
    "Slack token": "xoxb-" + "918273645501-564738291047-kQ7vWm2ZtR9x",
    "Slack webhook": "https://hooks.slack.com/services/" + "T01QWZRTY/B02GHKJLM/kQ7vWm2ZtR9xLp4Nc8Yb",
    "Google API key": "AIza" + "SyD3x9Qw7Er5Ty1Ui2Op4As6Df8Gh0Jk3Lz",
    "Stripe key": "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "PyPI token": "pypi-" + "AgEIcHlwaS5vcmcCJDEyMzQ1Njc4LTkwYWItY2RlZi0xMjM0LTU2Nzg5MGFiY2RlZg",
    "npm token": "npm_" + "q9W8e7R6t5Y4u3I2o1P0a9S8d7F6g5H4j3K2",
    "model provider key": "sk-" + "proj-Zx9Cv8Bn7Ma6Sd5Fg4Hj3Kl2Qw1Er0Ty",
    "JSON web token": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    "password in a URL": "'postgres://bob:" + "hunter2horse@db/x'",
    "credential in an assignment": "api_key: str = '" + "q9W8e7R6t5Y4u3I2'",
}


@pytest.mark.parametrize(("kind", "text"), SECRETS.items())
def test_each_kind_of_secret_is_found_and_not_repeated(kind, text):
    found = look_for_secrets_in_text("# first line\n" + text)
    assert [(one["kind"], one["line"]) for one in found["secrets"]] == [(kind, 2)]
    assert found["total"] == 1
    shown = found["secrets"][0]["redacted"].partition("…")[0]
    assert len(shown) <= 8
    assert shown in text


def test_every_kind_is_shown_to_work():
    assert set(SECRETS) == {pattern.kind for pattern in PATTERNS}


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "password = 'password123'",
        "password = getenv('PASSWORD')",
        "token = 'aaaaaaaaaaaaaaaa'",
        "secret_name = 'projects/one/secrets/two'",
        "api_key = '${API_KEY_FROM_ENV_1}'",
        "'https://user:password@host/'",
        "'http://{user}:{password}@host/'",
        "key = 'ctrl+shift+alt+k'",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "sk-" + "a" * 40,
    ],
)
def test_placeholders_are_no_secrets(text):
    assert look_for_secrets_in_text(text)["secrets"] == []


def test_secrets_are_bounded():
    random = Random(1)
    keys = ["AKIA" + "".join(random.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)) for _ in range(3000)]
    found = look_for_secrets_in_text("\n".join(keys))
    assert len(found["secrets"]) == 100
    assert 100 <= found["total"] <= 1000


@given(st.text(min_size=8, max_size=200), st.integers(0, 8))
def test_a_redacted_secret_cannot_be_used(secret, shown):
    assert redact(secret, shown) == f"{secret[:shown]}… ({len(secret)} characters)"


@given(st.text(alphabet=st.sampled_from("pasword=:'\"/@ A1\nsk-_"), max_size=300))
def test_any_text_can_be_searched(text):
    found = look_for_secrets_in_text(text)
    assert found["total"] >= len(found["secrets"])
