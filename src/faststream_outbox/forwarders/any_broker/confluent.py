"""Kafka through Confluent's client."""

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

from confluent_kafka import KafkaException
from faststream.confluent.publisher.usecase import BatchPublisher

from faststream_outbox._faststream.confluent import producer_of, producer_options
from faststream_outbox._values.outcome import Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.any_broker import destination as any_broker
from faststream_outbox.forwarders.any_broker.outlet import Answer, Outlet
from faststream_outbox.forwarders.kafka.answers import OF_A_TOPIC, verdict_on
from faststream_outbox.forwarders.kinds import Address, Wishes

INVALID_ARGUMENT = -186
UNKNOWN_TOPIC = -188
MESSAGE_TOO_LARGE = 10

ACKS = ("acks", "request.required.acks")
TIMEOUT = ("message.timeout.ms", "delivery.timeout.ms")
"""One setting of librdkafka each, with two names."""
DEFAULT_TIMEOUT_MS = 300_000
GOOD_TIMEOUT_MS = 30_000


def _kafka_error(error: KafkaException) -> Verdict:
    """Read librdkafka's error; its own codes are negative, and say that the client could not reach or ask a server."""
    code = error.args[0].code()
    if code < 0 and code != INVALID_ARGUMENT:
        return Unsent(error)
    return verdict_on(code, error)


class ConfluentOutlet(Outlet):
    """A topic. Each row waits for its delivery report.

    librdkafka retries in the background until ``message.timeout.ms`` is over, five minutes by default. That must be
    less than the hand-over's time-out, so that what is given up is not sent later. On a connection of its own, the
    forwarder also purges it.

    librdkafka batches rows, and Kafka refuses a batch beyond a topic's ``max.message.bytes`` as a whole: then each of
    its rows is sent once more, alone, before one is called too large.

    A topic that is not there may be one that librdkafka has not heard of yet: a row that names it is met with an outage
    for ``topic.metadata.propagation.max.ms``, half a minute by default, and only then refused.

    Raises:
        ConfigError: ``acks`` is not all, the producer is transactional, or the publisher makes batches.
    """

    answers: ClassVar[Sequence[Answer]] = ((KafkaException, _kafka_error),)

    def __init__(self, publisher: Any, *, allow_lossy: bool = False) -> None:
        super().__init__(publisher, allow_lossy=allow_lossy)
        if isinstance(publisher, BatchPublisher):
            msg = "to: a forwarder sends row by row; give a publisher without batch=True"
            raise ConfigError(msg)
        self._options = producer_options(self.broker)
        timeout_ms = next((int(self._options[name]) for name in TIMEOUT if name in self._options), None)
        self._timeout_ms = DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms
        self.usual_timeout = (timeout_ms or GOOD_TIMEOUT_MS) / 1000
        for name in ACKS:
            if str(self._options.get(name, "all")) not in {"all", "-1"}:
                msg = f"to: {name}={self._options[name]!r} can lose acknowledged records; write acks='all'"
                raise ConfigError(msg)
        if self._options.get("transactional.id"):
            msg = "to: records of a producer with transactional_id never get committed here; leave it out"
            raise ConfigError(msg)

    @property
    def kind(self) -> str:
        return "confluent"

    def check_timeout(self, send_timeout: float) -> None:
        # 0 means for ever.
        if not 0 < self._timeout_ms < send_timeout * 1000:
            good = min(GOOD_TIMEOUT_MS, int(send_timeout * 1000) - 1)
            msg = (
                f"to: with message.timeout.ms={self._timeout_ms} a record could still be sent when its hand-over of "
                f"{send_timeout:g} s was given up; write KafkaBroker(..., config={{'message.timeout.ms': {good}}})"
            )
            raise ConfigError(msg)

    async def publish(self, parcel: Parcel) -> None:
        # FastStream's callback for the report fails if its future was cancelled meanwhile.
        report: asyncio.Future[Any] = await self._caller.publish(parcel, no_confirm=True)
        report.add_done_callback(_take_note)
        await asyncio.shield(report)

    def classify(self, error: BaseException, parcel: Parcel) -> Verdict:
        is_of_a_topic = isinstance(error, KafkaException) and error.args[0].code() in {*OF_A_TOPIC, UNKNOWN_TOPIC}
        if is_of_a_topic and parcel.address is not None:
            # That there is no such topic is then this row's trouble alone.
            return Refused(error)
        return super().classify(error, parcel)

    def is_doubtful(self, error: BaseException) -> bool:
        # librdkafka makes batches by its own limit, and a topic may have a lower one.
        return isinstance(error, KafkaException) and error.args[0].code() == MESSAGE_TOO_LARGE

    async def stop(self, *, cut: bool) -> None:
        producer = producer_of(self.broker)
        if cut:
            producer.purge()
        await super().stop(cut=cut)
        # Or its connections stay until Python happens to free it.
        await asyncio.to_thread(producer.close)


def _take_note(report: asyncio.Future[Any]) -> None:
    """Look at the report, or asyncio would complain about a failure after its hand-over was given up."""
    if not report.cancelled():
        report.exception()


def address_of(publisher: Any, wishes: Wishes) -> Address:
    """Read a publisher of FastStream's ``KafkaBroker`` for Confluent's client; see ``ConfluentOutlet``."""
    return any_broker.address_of(publisher, wishes, ConfluentOutlet)
