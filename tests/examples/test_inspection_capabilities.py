import json
from itertools import pairwise

import pytest

from examples.inspection import capabilities
from examples.inspection.findings import CAPABILITIES, CHECKSUM, CPU_BOUND, FINGERPRINTS, Inspection
from examples.inspection.report import InspectionRun, build_report
from examples.inspection.source import PathRefused
from examples.inspection.tree import list_tree
from merit.sdk.capability import capabilities_of

OFFERED = {one.name: one for one in capabilities_of(capabilities)}


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "a b;$(x).py").write_text('"""Says."""\nassert eval("1")\n')
    (tmp_path / "-old.py").write_text("print 'x'\n")
    (tmp_path / "bytes.py").write_bytes(b"\xff")
    return list_tree(tmp_path)


async def outcome(name, root, path):
    """One task as a worker does it: parameters and result are JSON on their way."""
    declared = OFFERED[name]
    sent = json.dumps(capabilities.parameters_of(name, root, path)).encode()
    result = declared(**declared.signature.decode(sent))
    if declared.mode == "async":
        result = await result
    return Inspection(path, name, json.loads(declared.signature.encode(result)))


def test_the_offer_is_what_the_report_expects():
    assert sorted(OFFERED) == sorted(CAPABILITIES)
    assert {name for name, one in OFFERED.items() if one.mode == "process"} == set(CPU_BOUND)
    needs = {name for name, one in OFFERED.items() if one.resources == {"cpu": 1}}
    assert needs == set(CPU_BOUND)
    assert OFFERED[FINGERPRINTS].mode == OFFERED[CHECKSUM].mode == "async"
    assert all(one.description for one in OFFERED.values())


async def test_results_pass_their_schemas_and_make_a_report(tree):
    outcomes = [await outcome(name, tree.root, file.path) for file in tree.files for name in CAPABILITIES]
    findings = build_report(tree, outcomes, InspectionRun("now", 1.0))["findings"]
    assert [(one["path"], one["parsed"]) for one in findings["modules"]] == [
        ("-old.py", False),
        ("a b;$(x).py", True),
        ("bytes.py", False),
    ]
    # POSIX gives the algorithm: the checksum of one byte 0xff can be known beforehand.
    assert [one["checksum"] for one in findings["modules"]][2] == _posix_checksum(b"\xff")
    assert [one["size_bytes"] for one in findings["modules"]] == [file.size_bytes for file in tree.files]
    assert {rule["rule"] for rule in findings["suspicious"]} == {"dynamic-code", "assert-outside-tests"}
    assert all(one["path"] < two["path"] for one, two in pairwise(findings["modules"]))


@pytest.mark.parametrize("name", [name for name in CAPABILITIES if name != CHECKSUM])
async def test_no_capability_leaves_the_root(tree, name, tmp_path):
    (tmp_path / "inner").mkdir()
    for path in ("../bytes.py", "../gone.py", str(tmp_path / "bytes.py")):
        with pytest.raises(PathRefused, match="path:"):
            result = OFFERED[name](path, str(tmp_path / "inner"))
            if OFFERED[name].mode == "async":
                await result


def _posix_checksum(content):
    """The CRC of POSIX cksum: the polynomial 0x04C11DB7 over the bytes and then over their number."""
    register = 0
    number = len(content)
    while number:
        content += bytes([number & 0xFF])
        number >>= 8
    for byte in content:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1) ^ (0x104C11DB7 if register & 0x80000000 else 0)
    return register ^ 0xFFFFFFFF
