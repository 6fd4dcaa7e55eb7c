"""A cell's life, written into a journal by the machine itself: for tests of what is made of journals."""

from merit.core.codec import encode_event
from merit.core.projecting import Projection
from merit.core.state import State
from merit.model.limits import Limits
from merit.model.record import record_hash, seal
from merit.testing.builders import (
    START_NS,
    a_machine,
    a_spec,
    attach,
    bind,
    cancel,
    completed,
    detach,
    failed,
    say,
    submit,
)


class Life:
    """One leader, a worker that comes and goes, tasks that complete, die and are canceled."""

    def __init__(self, journal, *, finals_max=5, now_ns=START_NS):
        self.journal = journal
        self.now_ns = now_ns
        tail = journal.lead("leader-1", now_ns)
        self.machine = a_machine(limits=Limits(finals_max=finals_max), now_ns=now_ns, epoch=tail.epoch)
        self.tail = (tail.next, tail.last_hash)
        self.tasks = 0
        self.keep(self.machine.events)
        self.attached = False

    def keep(self, events):
        if not events:
            return
        first, previous = self.tail
        payloads = list(self.machine.take_payloads().values())
        state = self.machine.state
        record = seal(
            self.journal.cell,
            first,
            state.epoch,
            state.holder,
            self.now_ns,
            previous,
            [encode_event(event) for event in events],
            payloads,
        )
        self.journal.append(record)
        self.tail = (record.last + 1, record_hash(record))

    def tell(self, word, *arguments, **named):
        self.keep(word(self.machine, *arguments, now_ns=self.now_ns, **named).events)

    def go_on(self, tasks, step_ns=1_000_000):
        """So many tasks more, each a record or three; every now and then the worker leaves and comes back."""
        for _ in range(tasks):
            self.now_ns += step_ns
            self.tasks += 1
            number = self.tasks
            if not self.attached:
                self.tell(attach, "w1", granted=1_000_000_000)
                self.attached = True
            self.tell(
                submit, a_spec(number, attempts_max=1, description=f"task {number}", parameters=b'{"n":%d}' % number)
            )
            if number % 5 == 0:
                self.tell(cancel, number)
                continue
            self.bind()
            report = failed if number % 7 == 0 else completed
            self.tell(say, "w1", reports=[report(number)])
            if number % 50 == 0:
                self.tell(detach, "w1", bye=True)
                self.attached = False

    def bind(self):
        events = []
        handle = self.machine.handle

        def kept(command, now_ns):
            decision = handle(command, now_ns)
            events.extend(decision.events)
            return decision

        vars(self.machine)["handle"] = kept
        try:
            bind(self.machine, now_ns=self.now_ns)
        finally:
            del vars(self.machine)["handle"]
        self.keep(events)


def projected(records):
    """The rows that a projection of all records at once has: tasks by order, workers by name."""
    projection = Projection(State())
    for record in records:
        projection.fold(record)
    tasks, workers = projection.take()
    return {row.order: row for row in tasks}, {row.worker: row for row in workers}
