"""The machine: one pure, deterministic state machine per cell.

``machine.Machine.handle`` is the only door in; ``apply.apply`` is the only place where state changes.
"""
