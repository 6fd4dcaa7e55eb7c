"""Whose word on a capability binds submitters."""

from merit.model.workers import Offer
from merit.testing.builders import a_machine, attach, detach


def test_a_worker_that_has_left_binds_nobody_while_others_are_there():
    machine = a_machine()
    right, wrong = Offer("greet", input_schema=b'{"type":"object"}'), Offer("greet", input_schema=b"false")
    attach(machine, "good", offers=(right,))
    attach(machine, "bad", offers=(wrong,))
    assert machine.state.offers["greet"] == wrong
    detach(machine, "bad", bye=True)
    assert machine.state.offers["greet"] == right
    detach(machine, "good", bye=True)
    assert machine.state.offers["greet"] == right, "the last word is remembered when nobody is there to ask"
