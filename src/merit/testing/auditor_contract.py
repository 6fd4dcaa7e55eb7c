"""What every auditor must do."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from merit.auditing.auditor import AuditContext, MakeAuditor
from merit.model.auditing import Finding

STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1.5,
    2**70,
    "",
    "x" * 60_000,
    [],
    {},
    [[]],
    {"": None},
    [{"a": [1, "1"]}] * 500,
)
"""Results that nobody expects; a worker may send any of them."""
_CHECK_S = 1.0


class AuditorContract:
    """Subclass it, and override `make`, `right` and `wrong`."""

    @pytest.fixture
    def make(self) -> MakeAuditor:
        """Makes an auditor; what is registered as entry point."""
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def right(self) -> tuple[dict[str, Any], Any]:
        """Parameters, and a result for them that passes."""
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def wrong(self) -> tuple[dict[str, Any], Any]:
        """Parameters, and a result for them that does not."""
        raise NotImplementedError("override this fixture")

    def test_what_is_right_passes(self, make: MakeAuditor, right: tuple[dict[str, Any], Any]) -> None:
        finding = _check(make, *right)
        assert finding.ok
        assert not finding.broken

    def test_what_is_wrong_does_not_and_the_reason_is_said(
        self, make: MakeAuditor, wrong: tuple[dict[str, Any], Any]
    ) -> None:
        finding = _check(make, *wrong)
        assert not finding.ok
        assert not finding.broken, "it was looked at, and is wrong"
        assert finding.reason

    def test_whatever_a_worker_sends_is_judged(self, make: MakeAuditor, right: tuple[dict[str, Any], Any]) -> None:
        """An exception would be taken for a defect of the auditor, so that a worker could escape by it."""
        parameters, _ = right
        for result in STRANGE:
            assert not _check(make, parameters, result).broken

    def test_it_is_quick(self, make: MakeAuditor, right: tuple[dict[str, Any], Any]) -> None:
        """It has a second of the clock, on a machine that does other things too."""
        for result in (right[1], *STRANGE):
            began_s = time.process_time()
            _check(make, right[0], result)
            assert time.process_time() - began_s < _CHECK_S / 4

    def test_the_same_is_judged_alike_whatever_came_before(
        self, make: MakeAuditor, right: tuple[dict[str, Any], Any], wrong: tuple[dict[str, Any], Any]
    ) -> None:
        first = [_check(make, *right), _check(make, *wrong)]
        auditor = make()
        again = [auditor.check(*_own(parameters, result), _CONTEXT) for parameters, result in (right, wrong) * 3]
        assert again == first * 3


_CONTEXT = AuditContext(task="task", capability="capability", priority=2, worker="worker", wall_s=0.5)


def _own(parameters: dict[str, Any], result: Any) -> tuple[Any, Any]:
    """As they come to an auditor: decoded for it alone."""
    decoded = msgspec.json.decode(msgspec.json.encode([parameters, result]))
    return decoded[0], decoded[1]


def _check(make: MakeAuditor, parameters: dict[str, Any], result: Any) -> Finding:
    finding = make().check(*_own(parameters, result), _CONTEXT)
    # It goes from one process to another.
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(finding), type=Finding) == finding
    return finding
