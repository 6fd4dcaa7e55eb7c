"""Every bound of the system that is not one caller's own setting, each in this one place.

A bound that the fold of the journal depends on (``LeadershipStarted`` has them all) is written into the journal with each
leadership, so that a replay under other settings gives the state that was.
"""

from __future__ import annotations

from msgspec import Struct

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000

PAYLOAD_INLINE_BYTES_MAX = 64 * 1024
"""Parameters and results above this go to the blob store and travel by digest."""
PAYLOAD_BYTES_MAX = 64 * 1024 * 1024
"""No parameters and no result may be larger than this."""
JSON_DEPTH_MAX = 64
TRAIL_BYTES_MAX = 64 * 1024
"""Log lines and evidence of one attempt, encoded."""

NAME_LENGTH_MAX = 200
DESCRIPTION_LENGTH_MAX = 2_000
FAILURE_MESSAGE_LENGTH_MAX = 4_000
FAILURE_DETAIL_LENGTH_MAX = 16_000

SUBMIT_TASKS_MAX = 1_000
"""Tasks in one atomic submit."""
SUBMIT_BYTES_MAX = 8 * 1024 * 1024
"""Parameters of one atomic submit, together."""
DEPENDENCIES_MAX = 1_000
CAPABILITIES_PER_WORKER_MAX = 256
CAPABILITIES_MAX = 20_000
"""Names of capabilities that a cell remembers the schemas of."""
SCHEMA_BYTES_MAX = 256 * 1024
HELLO_BYTES_MAX = 2 * 1024 * 1024
"""Schemas and descriptions of all capabilities of one worker together; the cell holds them as long as it has the worker."""
CONCURRENCY_MAX = 10_000
HELD_MAX = 12_000
"""Attempts that one worker has at a time, whatever it offers to take: when it is lost, all are, in one record."""
TAGS_MAX = 64
ATTEMPTS_MAX = 100
RETURNS_MAX = 100
"""How often a task may be handed back unstarted until that counts as a failure."""
UNARY_WORKERS_MAX = 1_000
"""Workers that the control plane dials at a time …"""
UNARY_WORKERS_PER_ADDRESS_MAX = 16
"""… and at one address, which is one server: whoever takes a new id with each start leaves the others behind."""
RUN_TIMEOUT_NS_MAX = 365 * 24 * 3600 * SECOND_NS

TIMEOUT_NS_MAX = 10 * RUN_TIMEOUT_NS_MAX
"""Of a task as a whole, of a delay, and how far ahead a deadline may be."""

RUN_TIMEOUT_NS_DEFAULT = 60 * SECOND_NS
TIMEOUT_NS_DEFAULT = 3600 * SECOND_NS
ATTEMPTS_DEFAULT = 4

RESOURCES_MAX = 16
"""Kinds of resources that a worker has, or a task needs."""
AMOUNT_THOUSANDTHS_MAX = 10**18
COST_MICROS_MAX = 10**15
"""Of one task: a thousand million of whatever the operator reckons in."""
WORKER_TENANTS_MAX = 256
"""Whose tasks a worker takes, if not everybody's."""
PREFERS_MAX = 16
PROBES_MAX = 20
CASES_MAX = 10_000
"""Results that are looked at closely at a time."""
ASKED_MAX = 9
"""Workers that are asked about one result."""
RECORDS_KEPT = 64
"""Capabilities that a worker does not offer any more, of which it is known how it did."""
AUDIT_RULES_MAX = 50
AUDIT_EXPRESSION_LENGTH_MAX = 2_000
"""Far below what the interpreter of expressions has stack for."""
AUDIT_PATTERNS_MAX = 16
AUDITORS_MAX = 8
AUDIT_POLICY_BYTES_MAX = 512 * 1024
"""Of one capability, with its gold tasks; it stands in one event."""
AUDIT_NORM_NS_DEFAULT = 6 * SECOND_NS
AUDIT_COPIES_MAX = 15
AUDIT_REASON_LENGTH_MAX = 500
AUDIT_RETRIES_MAX = 10
AUDIT_NEWCOMER_TASKS_MAX = 1_000
AUDITED_BYTES_MAX = 4 * 1024 * 1024
"""Parameters and results above this are not read for an audit."""
COMPARISON_IGNORED_MAX = 64
"""Pointers of one comparison, each as long as a name."""
COMPARISON_STEPS_MAX = 400_000
"""Values that are looked at to compare two results, some of them several times: about half a second."""
REMEMBERED_MAX = 8
"""Versions of a capability that were promoted before, and as many that were aborted, that are gone by beside the rollout
that there is."""
WORDS_MAX = 16
"""Commands that wait for one worker to be told."""

LABELS_MAX = 32
INPUTS_MAX = 64
"""So many results of 64 KiB are a frame that anybody takes."""
SCHEDULES_MAX = 10_000
SCHEDULE_TIMES_MAX = 100
"""Missed times of a schedule that are made up for."""
RULES_MAX = 10_000
"""Limits, and settings of tenants, that one cell keeps."""
WEIGHT_MAX = 1_000
AVOIDED_MAX = 8
"""Tasks that are passed over for a worker which has failed them, until that worker gets one all the same."""
LOG_LINES_MAX = 100
"""In one note of progress."""

FRAME_ITEMS_MAX = 4_096
FRAME_BYTES_MAX = 2 * 1024 * 1024
"""A sender closes a frame at this size; what is over waits for the next one."""
FRAME_ITEMS_RECEIVED_MAX = 65_536
"""A receiver refuses a frame of more items than this, of all kinds together; far above what any sender puts into one."""
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""A receiver refuses a larger message unread."""
UNACKED_FRAMES_MAX = 2
"""Frames with content that a sender keeps on the way (DESIGN 4: self-clocked streams)."""


class Limits(Struct, frozen=True, kw_only=True):
    """What one cell holds at most, and the times it goes by. All are settings; times are nanoseconds."""

    live_tasks_max: int = 4_000_000
    live_bytes_max: int = 4 * 1024**3
    tenant_live_max: int = 4_000_000
    """Of one tenant, unless it has a bound of its own (``TenantTerms.live_max``)."""
    capability_pending_max: int = 4_000_000
    """Of one capability: how long its queue may be."""
    finals_max: int = 100_000
    """Final tasks kept in the cell for late questions; older ones are read from the journal."""
    finals_bytes_max: int = 256 * 1024**2
    dead_letters_max: int = 100_000
    """Dead tasks kept until somebody retries or purges them; beyond that the oldest are read from the journal."""
    dead_letters_bytes_max: int = 256 * 1024**2
    keys_max: int = 1_000_000
    """Idempotency keys kept in memory; older ones are looked up in the journal."""
    keys_ns: int = 24 * 3600 * SECOND_NS
    """How long an idempotency key is kept in memory."""
    tenants_max: int = 10_000
    """With tasks that are not final, or with settings of their own."""
    ageing_ns: int = 300 * SECOND_NS
    """A task that waited two of these longer is worth one priority more (``merit.core.ranking``)."""
    workers_max: int = 20_000
    profiles_max: int = 100_000
    """Workers of which something is kept while they are not here; beyond that the oldest are forgotten."""
    lines_max: int = 20_000
    """Different demands (``Demand``, and what follows from settings) of tasks that are pending at a time …"""
    broad_lines_max: int = 256
    """… and of one capability that name no worker: each worker that fits them is told apart for each."""
    homes_max: int = 1_000_000
    """Keys of stateful capabilities that have a worker; beyond that the oldest may get another one."""
    grace_ns: int = 10 * SECOND_NS
    """How long after a change of leader a worker may take to come back, time-outs standing still."""
    reconnect_ns: int = 3 * SECOND_NS
    """How long a worker whose stream broke keeps its attempts."""
    awake_ns: int = 2 * SECOND_NS
    """How long nothing times out after the process itself was stopped for longer than a second."""
    stale_ns: int = 30 * SECOND_NS
    """Silence after which a connected worker is lost."""
    beat_ns: int = 10 * SECOND_NS
    patience_ns: int = 30 * SECOND_NS
    """How long a task that needs much of a worker sees smaller ones go before it, until a worker is kept free for it."""
    backoff_ns: int = 200 * MILLISECOND_NS
    """First wait before a task is tried again; doubles with each attempt, with jitter."""
    backoff_ns_max: int = 60 * SECOND_NS
    batch_items_max: int = 8_192
    """Tasks, reports and other items that one journal record takes at most."""
    batch_follow_ups_max: int = 1_024
    """Tasks that are released or die with those that they need, in one batch: nobody else waits for a long cascade."""
    batch_events_max: int = 8_192
    batch_bytes_max: int = 32 * 1024**2
    """A batch that has come to this many events or bytes takes nothing more in. What it has taken in last, and the
    end of the batch, may add several times as much; a record has room for that."""
