"""Signing with a wrong key."""

from __future__ import annotations

from merit.auditing.detecting import Accusations, Fact, SignatureWrong, Suspicion


class WrongKey(Accusations):
    """No evidence has to be weighed here: whoever has its stream opened with its own key and signs with another one delivers
    what somebody else has made, or has lost its key."""

    name = "wrong_key"

    def observe(self, fact: Fact) -> None:
        if isinstance(fact, SignatureWrong):
            self.accuse(
                Suspicion(
                    detector=self.name,
                    worker=fact.worker,
                    at_ns=fact.at_ns,
                    reason="its report was not signed with its key",
                    tasks=(fact.task,),
                    grave=True,
                )
            )
