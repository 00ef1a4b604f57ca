"""Turns what the loops tell into values of instruments."""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import wraps
from typing import ParamSpec

from faststream_outbox._engine.meter import HandedOver
from faststream_outbox._values.outcome import (
    Accepted,
    Dead,
    Deduplicated,
    Deferred,
    Delivered,
    Dropped,
    Outcome,
    Poison,
    Reason,
    Refused,
    Released,
    Retry,
    Settlement,
    Unsent,
    Unwritten,
    Verdict,
)
from faststream_outbox._values.row import OutboxRow, identity
from faststream_outbox.metrics import instruments as of
from faststream_outbox.metrics.sink import Sink

P = ParamSpec("P")

OTHER = "other"
"""Stands for queues beyond the bound, and for reasons of the application's own."""

_OUTCOMES: dict[type[Outcome], str] = {
    Delivered: "delivered",
    Retry: "retry",
    Dead: "dead",
    Released: "released",
    Deferred: "deferred",
}
_VERDICTS: dict[type[Verdict], str] = {
    Accepted: "accepted",
    Deduplicated: "deduplicated",
    Refused: "refused",
    Poison: "poison",
    Unsent: "unsent",
    Dropped: "dropped",
}
_REASONS = frozenset(value for name, value in vars(Reason).items() if name.isupper())


def harmless(method: Callable[P, None]) -> Callable[P, None]:
    """Return a method that logs what it raises: nothing of what is measured is worth a row."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            logging.getLogger("faststream_outbox").exception("metrics could not be recorded")

    return guarded


class Names:
    """Names of queues as labels: a bounded number of them, whatever rows have in their columns.

    Args:
        most: How many there may be; all others are ``other``.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, queue: str) -> str:
        """Return the label of a queue."""
        if queue in self._known:
            return queue
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(queue)
        return queue


class Recorder:
    """A meter for one outbox.

    Args:
        outbox: Its name, the first label of all.
        sink: Takes the values.
        queue_of: Returns the label of a queue.
    """

    def __init__(self, outbox: str, sink: Sink, queue_of: Callable[[str], str]) -> None:
        self._outbox = outbox
        self._sink = sink
        self._queue_of = queue_of
        self._ahead = 0.0
        """Seconds that the database's clock is ahead of this process's, as the last rows that were taken have it."""

    @harmless
    def published(self, queue: str, *, rows: int, duplicates: int, seconds: float) -> None:
        """Note what one call of publish has written."""
        labels = (self._outbox, self._queue_of(queue))
        self._sink.add(of.PUBLISHED, labels, rows)
        if duplicates:
            self._sink.add(of.DUPLICATES, labels, duplicates)
        self._sink.observe(of.PUBLISH_SECONDS, labels, (seconds,))

    @harmless
    def claimed(self, consumer: str, rows: Sequence[OutboxRow], seconds: float) -> None:
        """Note one claim."""
        labels = (self._outbox, consumer)
        self._sink.observe(of.CLAIM_SECONDS, labels, (seconds,))
        if not rows:
            return
        self._sink.observe(of.CLAIM_ROWS, labels, (len(rows),))
        self._set_clock(rows[0])
        again = Counter(row.queue for row in rows if row.deliveries_count > row.attempts_count + 1)
        for queue, count in again.items():
            self._sink.add(of.REDELIVERED, (self._outbox, self._queue_of(queue)), count)

    @harmless
    def handled(self, row: OutboxRow, outcome: Outcome, seconds: float) -> None:
        """Note one run of a handler."""
        labels = (self._outbox, self._queue_of(row.queue), _OUTCOMES[type(outcome)])
        self._sink.observe(of.HANDLE_SECONDS, labels, (seconds,))

    @harmless
    def settled(self, settlements: Sequence[Settlement], unwritten: Sequence[Unwritten], seconds: float) -> None:
        """Note one write of handlers' outcomes."""
        self._sink.observe(of.SETTLE_SECONDS, (self._outbox,), (seconds,))
        self._sink.observe(of.SETTLE_ROWS, (self._outbox,), (len(settlements),))
        refused = {identity(each.settlement.row) for each in unwritten}
        self._ended(each for each in settlements if not refused or identity(each.row) not in refused)

    @harmless
    def handed_over(self, hand_over: HandedOver) -> None:
        """Note one hand-over."""
        labels = (self._outbox, hand_over.forwarder)
        self._sink.observe(of.HAND_OVER_SECONDS, labels, (hand_over.seconds,))
        self._sink.observe(of.TAKE_SECONDS, labels, (hand_over.taking_seconds,))
        self._sink.observe(of.SEND_SECONDS, labels, (hand_over.sending_seconds,))
        self._sink.observe(of.HAND_OVER_ROWS, labels, (len(hand_over.rows),))
        for verdict, count in Counter(map(type, hand_over.verdicts)).items():
            self._sink.add(of.VERDICTS, (*labels, _VERDICTS[verdict]), count)
        self._set_clock(hand_over.rows[0], ago=hand_over.seconds - hand_over.taking_seconds)
        self._ended(hand_over.settlements)

    @harmless
    def leases_lost(self, rows: Sequence[OutboxRow]) -> None:
        """Note leases that were lost."""
        for queue, count in Counter(row.queue for row in rows).items():
            self._sink.add(of.LEASES_LOST, (self._outbox, self._queue_of(queue)), count)

    @harmless
    def taken_over(self, queues: Collection[str]) -> None:
        """Note leases that were given back for others."""
        for queue in queues:
            self._sink.add(of.TAKE_OVERS, (self._outbox, self._queue_of(queue)), 1)

    def _set_clock(self, row: OutboxRow, ago: float = 0.0) -> None:
        if row.acquired_at is not None:
            self._ahead = row.acquired_at.timestamp() - (time.time() - ago)

    def _ended(self, settlements: Iterable[Settlement]) -> None:
        """Note outcomes that are written."""
        now = time.time() + self._ahead
        outcomes: Counter[tuple[str, type[Outcome]]] = Counter()
        ages: defaultdict[str, list[float]] = defaultdict(list)
        for row, outcome in settlements:
            kind = type(outcome)
            outcomes[row.queue, kind] += 1
            if kind is Delivered:
                # A timer waits because its publisher wants it to.
                if row.timer_id is None:
                    ages[row.queue].append(now - row.created_at.timestamp())
            elif isinstance(outcome, Dead):
                reason = outcome.reason if outcome.reason in _REASONS else OTHER
                self._sink.add(of.DEAD_LETTERS, (self._outbox, self._queue_of(row.queue), reason), 1)
        for (queue, kind), count in outcomes.items():
            self._sink.add(of.OUTCOMES, (self._outbox, self._queue_of(queue), _OUTCOMES[kind]), count)
        for queue, seconds in ages.items():
            # Clocks are not known to the millisecond.
            self._sink.observe(
                of.ACK_SECONDS, (self._outbox, self._queue_of(queue)), [max(0.0, age) for age in seconds]
            )


class InboxRecorder:
    """Counts what comes to an inbox.

    Args:
        outbox: The first label: the name of its table, if no other was given.
        consumer: Whose inbox it is.
        sink: Takes the values.
    """

    def __init__(self, outbox: str, consumer: str, sink: Sink) -> None:
        self._outbox = outbox
        self._consumer = consumer
        self._sink = sink

    @harmless
    def came(self, is_first: bool) -> None:  # noqa: FBT001 - it is what is counted
        """Note a message, or its repeat."""
        self._sink.add(of.INBOX_MESSAGES, (self._outbox, self._consumer, "accepted" if is_first else "repeated"), 1)
