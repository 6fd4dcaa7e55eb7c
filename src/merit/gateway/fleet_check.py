"""What operators set for the fleet, field by field."""

from __future__ import annotations

import asyncio
from typing import Final

from merit.allocation.versions import problem_of_version
from merit.gateway.door import Door
from merit.gateway.fields import BadField, check_name, check_range, check_text
from merit.model.fleet import Admission, Allocation, Probe, Weight
from merit.model.json_check import BadJson, check_json
from merit.model.limits import (
    NAME_LENGTH_MAX,
    PAYLOAD_INLINE_BYTES_MAX,
    PROBES_MAX,
    RUN_TIMEOUT_NS_MAX,
)
from merit.model.tasks import TaskSpec
from merit.model.workers import PERMILLE
from merit.wire.v1 import fleet_pb2

_WEIGHTS_MAX: Final = 32
_WEIGHT_PERMILLE_MAX: Final = 1_000_000
_ADMISSION_BYTES_MAX: Final = 256 * 1024
"""Of all probes of a capability together; they stand in one event."""
_PROBE_TIMEOUT_NS: Final = Probe(b"").run_timeout_ns


def read_allocation(message: fleet_pb2.Allocation) -> Allocation:
    """Whether there is such a strategy, and such figures, the machine knows. Raises ``BadField`` for what cannot be."""
    check_text("allocation.capability", message.capability, 0, NAME_LENGTH_MAX)
    check_text("allocation.strategy", message.strategy, 0, NAME_LENGTH_MAX)
    check_range("allocation.weights", len(message.weights), 0, _WEIGHTS_MAX)
    names = set()
    for weight in message.weights:
        check_name("allocation.weights.name", weight.name)
        check_range("allocation.weights.permille", weight.permille, 0, _WEIGHT_PERMILLE_MAX)
        if weight.name in names:
            raise BadField("allocation.weights.name", f"{weight.name} stands there twice")
        names.add(weight.name)
    if message.weights and not message.strategy:
        raise BadField("allocation.strategy", "is empty, and weights are those of a strategy: name it")
    weights = tuple(Weight(weight.name, weight.permille) for weight in message.weights)
    return Allocation(message.capability, message.strategy, weights)


async def read_admission(request: fleet_pb2.SetAdmissionRequest, door: Door) -> Admission:
    """The probes, each checked like a task. Raises ``BadField`` for the first field that cannot be."""
    check_name("capability", request.capability)
    check_range("probes", len(request.probes), 0, PROBES_MAX)
    check_range("probes", request.ByteSize(), 0, _ADMISSION_BYTES_MAX)
    probes = []
    for place, message in enumerate(request.probes):
        field = f"probes[{place}]"
        timeout_ns = message.run_timeout_ns or _PROBE_TIMEOUT_NS
        check_range(f"{field}.run_timeout_ns", timeout_ns, 1, RUN_TIMEOUT_NS_MAX)
        check_range(f"{field}.parameters", len(message.parameters), 0, PAYLOAD_INLINE_BYTES_MAX)
        probe = Probe(message.parameters or b"{}", message.expected, timeout_ns)
        spec = TaskSpec("", request.capability, probe.parameters, run_timeout_ns=timeout_ns)
        try:
            # In a thread: a schema may have to be compiled.
            await asyncio.to_thread(door.template, spec)
            if probe.expected:
                check_json(probe.expected)
        except BadField as refused:
            raise BadField(refused.field.replace("schedule.template", field, 1), refused.reason) from None
        except BadJson as error:
            raise BadField(f"{field}.expected", str(error)) from None
        probes.append(probe)
    return Admission(request.capability, tuple(probes))


def check_rollout(request: fleet_pb2.StartRolloutRequest) -> None:
    """Raises ``BadField`` for the first field that cannot be."""
    check_name("capability", request.capability)
    problem = problem_of_version(request.version)
    if problem is not None:
        raise BadField("version", problem)
    check_range("share_permille", request.share_permille, 0, PERMILLE)
