"""The four metrics of OpenTelemetry's semantic conventions for messaging."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.metrics import Meter
from typing_extensions import override

from faststream_outbox._engine.meter import HandedOver
from faststream_outbox._values.outcome import Accepted, Dead, Outcome, Retry
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.tracing import system_of
from faststream_outbox.metrics.recorder import Recorder, harmless
from faststream_outbox.metrics.sink import Sink
from faststream_outbox.tracing import SYSTEM

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Those that "Semantic conventions for messaging client metrics" names for both histograms, in seconds."""

NOT_ACCEPTED = "not_accepted"
"""``error.type`` of a hand-over of which the destination did not take all: its errors are too many kinds."""


class StandardMetrics:
    """The instruments, as "Semantic conventions for messaging client metrics" names them."""

    def __init__(self, meter: Meter) -> None:
        self._operations = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=BOUNDS,
        )
        self._processes = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=BOUNDS,
        )
        self._sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )

    def sent(self, count: int, seconds: float, attributes: Mapping[str, str]) -> None:
        """Note one call that has sent messages."""
        attributes = {**attributes, "messaging.operation.type": "send"}
        self._operations.record(seconds, attributes)
        if count:
            self._sent.add(count, attributes)

    def received(self, seconds: float, attributes: Mapping[str, str]) -> None:
        """Note one call that has asked for messages."""
        self._operations.record(seconds, {**attributes, "messaging.operation.type": "receive"})

    def consumed(self, count: int, attributes: Mapping[str, str]) -> None:
        """Note messages that were taken for a handler."""
        self._consumed.add(count, attributes)

    def processed(self, seconds: float, attributes: Mapping[str, str]) -> None:
        """Note one run of a handler."""
        self._processes.record(seconds, attributes)


class StandardRecorder(Recorder):
    """A meter that tells the standard metrics too.

    Args:
        outbox: The first label of all others.
        sink: Takes the values of all others.
        queue_of: Returns the label of a queue.
        standard: Takes the values of the standard ones.
    """

    def __init__(self, outbox: str, sink: Sink, queue_of: Callable[[str], str], standard: StandardMetrics) -> None:
        super().__init__(outbox, sink, queue_of)
        self._standard = standard

    @override
    def published(self, queue: str, *, rows: int, duplicates: int, seconds: float) -> None:
        super().published(queue, rows=rows, duplicates=duplicates, seconds=seconds)
        self._note_published(queue, rows, seconds)

    @override
    def claimed(self, consumer: str, rows: Sequence[OutboxRow], seconds: float) -> None:
        super().claimed(consumer, rows, seconds)
        self._note_claimed(rows, seconds)

    @override
    def handled(self, row: OutboxRow, outcome: Outcome, seconds: float) -> None:
        super().handled(row, outcome, seconds)
        self._note_handled(row, outcome, seconds)

    @override
    def handed_over(self, hand_over: HandedOver) -> None:
        super().handed_over(hand_over)
        self._note_handed_over(hand_over)

    @harmless
    def _note_published(self, queue: str, rows: int, seconds: float) -> None:
        self._standard.sent(rows, seconds, self._of_queue("publish", queue))

    @harmless
    def _note_claimed(self, rows: Sequence[OutboxRow], seconds: float) -> None:
        self._standard.received(seconds, {"messaging.system": SYSTEM, "messaging.operation.name": "claim"})
        for queue, count in Counter(row.queue for row in rows).items():
            self._standard.consumed(count, self._of_queue("claim", queue))

    @harmless
    def _note_handled(self, row: OutboxRow, outcome: Outcome, seconds: float) -> None:
        attributes = self._of_queue("process", row.queue)
        if isinstance(outcome, Retry | Dead):
            attributes["error.type"] = "dead" if isinstance(outcome, Dead) else "retry"
        self._standard.processed(seconds, attributes)

    @harmless
    def _note_handed_over(self, hand_over: HandedOver) -> None:
        system, address = system_of(hand_over.address)
        attributes = {
            "messaging.system": system,
            "messaging.operation.name": "send",
            "messaging.destination.name": address,
        }
        accepted = sum(isinstance(verdict, Accepted) for verdict in hand_over.verdicts)
        if accepted < len(hand_over.verdicts):
            attributes["error.type"] = NOT_ACCEPTED
        self._standard.sent(accepted, hand_over.sending_seconds, attributes)

    def _of_queue(self, operation: str, queue: str) -> dict[str, str]:
        return {
            "messaging.system": SYSTEM,
            "messaging.operation.name": operation,
            "messaging.destination.name": self._queue_of(queue),
        }
