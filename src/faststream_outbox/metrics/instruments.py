"""Every instrument, once: its names, its unit, its labels and its meaning."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds of a statement, a hand-over or a handler, in seconds."""

SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Bounds of the time from publishing to the end, in seconds: an outage of an hour is still told from one of a day."""

ROWS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Bounds of rows in one statement."""


class Kind(StrEnum):
    """How values of an instrument add up."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Instrument:
    """Something that is measured. Each value has the label ``outbox`` too, which names the broker's outbox."""

    name: str
    """In Prometheus; a counter gets ``_total`` there."""
    kind: Kind
    text: str
    labels: Sequence[str] = ()
    bounds: Sequence[float] = ()
    """Of a histogram."""

    @property
    def unit(self) -> str:
        """Its unit in UCUM, as OpenTelemetry writes it."""
        unit = self.name.rpartition("_")[2]
        return {"seconds": "s", "bytes": "By", "rows": "{row}"}.get(unit, "1")

    @property
    def dotted(self) -> str:
        """Its name in OpenTelemetry, which keeps units apart from names."""
        name = self.name.removesuffix("_seconds").removesuffix("_bytes")
        return name.replace("outbox_", "outbox.", 1)


def _counter(name: str, text: str, *labels: str) -> Instrument:
    return Instrument(name=f"outbox_{name}", kind=Kind.COUNTER, text=text, labels=labels)


def _histogram(name: str, text: str, *labels: str, bounds: Sequence[float] = QUICK) -> Instrument:
    return Instrument(name=f"outbox_{name}", kind=Kind.HISTOGRAM, text=text, labels=labels, bounds=bounds)


def _gauge(name: str, text: str, *labels: str) -> Instrument:
    return Instrument(name=f"outbox_{name}", kind=Kind.GAUGE, text=text, labels=labels)


PUBLISHED = _counter("published", "Rows that publish has written, copies for forwarders not counted.", "queue")
DUPLICATES = _counter("publish_duplicates", "Messages that publish left out: a live row has their key.", "queue")
PUBLISH_SECONDS = _histogram("publish_seconds", "One call of publish, with its statement.", "queue")

CLAIM_SECONDS = _histogram("claim_seconds", "One claim of a subscriber.", "subscriber")
CLAIM_ROWS = _histogram("claim_rows", "Rows of one claim that found some.", "subscriber", bounds=ROWS)
HANDLE_SECONDS = _histogram("handle_seconds", "One run of a handler.", "queue", "outcome")
REDELIVERED = _counter("redelivered", "Rows that a handler got again after a run that left no outcome.", "queue")
SETTLE_SECONDS = _histogram("settle_seconds", "One write of handlers' outcomes.")
SETTLE_ROWS = _histogram("settle_rows", "Outcomes of one write.", bounds=ROWS)

OUTCOMES = _counter(
    "outcomes", "Outcomes that were written: delivered, retry, released, deferred, dead.", "queue", "outcome"
)
DEAD_LETTERS = _counter("dead_letters", "Rows that failed for good, by reason.", "queue", "reason")
ACK_SECONDS = _histogram(
    "commit_to_ack_seconds",
    "From a row's publishing to its end, timers left out.",
    "queue",
    bounds=SLOW,
)
LEASES_LOST = _counter("leases_lost", "Leases that others took while a handler had the row.", "queue")
TAKE_OVERS = _counter("take_overs", "Times that leases without a living holder were given back.", "queue")

HAND_OVER_SECONDS = _histogram("hand_over_seconds", "One hand-over, from BEGIN to COMMIT.", "forwarder")
TAKE_SECONDS = _histogram("take_seconds", "Locking and reading the rows of a hand-over.", "forwarder")
SEND_SECONDS = _histogram("send_seconds", "From the rows of a hand-over to the destination's answer.", "forwarder")
HAND_OVER_ROWS = _histogram("hand_over_rows", "Rows of one hand-over.", "forwarder", bounds=ROWS)
VERDICTS = _counter(
    "forwarder_messages",
    "What became of messages at the destination: accepted, deduplicated, refused, poison, dropped, unsent.",
    "forwarder",
    "verdict",
)

INBOX_MESSAGES = _counter("inbox_messages", "Messages that came to an inbox: accepted, repeated.", "consumer", "result")

ROWS_WAITING = _gauge(
    "rows",
    "Rows by state; ready and due ones are the backlog. At least: a look counts 1,000 a shard.",
    "queue",
    "state",
)
OLDEST_SECONDS = _gauge("oldest_seconds", "For how long the oldest takeable row could have been taken.", "queue")
LEASES_RUN_OUT = _gauge("leases_run_out", "Leases that ran out and that nobody has given back.", "queue")
TABLE_ROWS = _gauge("table_live_rows", "The planner's estimate of a table's rows.", "table")
TABLE_DEAD_ROWS = _gauge("table_dead_rows", "Deleted rows that are not cleaned up, as statistics have it.", "table")
TABLE_BYTES = _gauge("table_bytes", "Size of a table without its indexes.", "table")
INDEX_BYTES = _gauge("index_bytes", "Size of a table's indexes.", "table")
SNAPSHOT_SECONDS = _gauge("oldest_transaction_seconds", "Age of the oldest one that keeps deleted rows from cleaning.")
LOOK_AGE_SECONDS = _gauge("look_age_seconds", "How old the figures that are read from the database are.")

DATABASE_UP = _gauge("database_up", "1 while the loops can use the database.")
PRESENT = _gauge("present", "1 while the LISTEN connection is up, which wakes this process and shows that it lives.")
STALLED = _gauge("stalled_loops", "Loops that have ended by themselves, or hang.")
LEASES = _gauge("leases", "Leases that this process holds.")
SET_ASIDE = _gauge("set_aside", "Handled messages whose outcome the database refuses.")
POOL = _gauge("pool_connections", "Connections of the engine's pool, by state: in_use, idle.", "state")
POOL_LIMIT = _gauge("pool_limit", "Connections that the engine's pool gives out at most.")
FORWARDER_STATE = _gauge(
    "forwarder_state", "1 for the state that the forwarder is in, 0 for the others.", "forwarder", "state"
)
PARTS_DOWN = _gauge("forwarder_parts_down", "Parts of a destination that take no message now.", "forwarder")
FORWARDER_SET_ASIDE = _gauge("forwarder_set_aside", "Sent messages whose outcome the database refuses.", "forwarder")
MAYBE_REPEATED = _gauge(
    "forwarder_maybe_repeated", "Exactly once: messages of which a repeat cannot be excluded.", "forwarder"
)
MAYBE_LOST = _gauge(
    "forwarder_maybe_lost", "Exactly once: times that Redis lacked what it had acknowledged.", "forwarder"
)

ALL: Sequence[Instrument] = [each for each in [*globals().values()] if isinstance(each, Instrument)]
