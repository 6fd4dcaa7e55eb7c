"""What the judges of a simulated world find."""

from __future__ import annotations


class Violation(Exception):
    """The product broke a promise: ``check`` names it, ``about`` is the id of the task or worker, if it is about one."""

    def __init__(self, check: str, about: str, message: str) -> None:
        super().__init__(message)
        self.check = check
        self.about = about
