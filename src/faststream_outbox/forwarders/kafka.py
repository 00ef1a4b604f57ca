"""To a Kafka topic, through FastStream's ``KafkaBroker`` and its aiokafka producer.

Rows are packed into record batches here, one batch in flight for each partition. aiokafka's own batching would go on
with the next batch of a partition after one has failed, and so pass rows by an earlier row of their key.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)
from aiokafka.partitioner import DefaultPartitioner
from faststream.kafka.publisher.usecase import BatchPublisher, LogicPublisher

from faststream_outbox._engine.health import Health, Log
from faststream_outbox._faststream import broker_of, connection_options, kafka_producer
from faststream_outbox._values.outcome import Accepted, Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import wire_headers
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.link import Link

POISON: dict[type[KafkaError], str] = {
    MessageSizeTooLargeError: Reason.TOO_LARGE,
    RecordListTooLargeError: Reason.TOO_LARGE,
    UnsupportedForMessageFormatError: Reason.INVALID,
}
"""Errors after which the same record will never be taken. Names and meanings: Kafka protocol guide, "Error Codes"."""

REFUSED: tuple[type[KafkaError], ...] = (
    TopicAuthorizationFailedError,
    GroupAuthorizationFailedError,
    InvalidTopicError,
    PolicyViolationError,
)
"""Errors that say no to the record although the cluster is well. Every other error is taken for an outage."""

DEFAULT_REQUEST_TIMEOUT_MS = 40_000
"""aiokafka's default, after which it drops a batch that was not acknowledged."""

MARGIN_SECONDS = 5.0


class KafkaDestination:
    """One topic.

    The broker must wait for all in-sync replicas: with ``acks`` of 1 or 0 a record can be acknowledged and lost.

    Args:
        publisher: What ``kafka_broker.publisher("topic")`` returned.
        log: Where changes of the destination's state are written.

    Raises:
        ConfigError: It is a batch publisher, or stands on no broker, or its broker has unsafe ``acks``.
    """

    def __init__(self, publisher: LogicPublisher, log: Log) -> None:
        if isinstance(publisher, BatchPublisher):
            msg = "to: a forwarder makes its own batches; give a publisher without batch=True"
            raise ConfigError(msg)
        broker = broker_of(publisher)
        options = connection_options(broker)
        _check_acks(options)
        self._publisher = publisher
        self._link = Link.to(broker)
        self._partitioner = options.get("partitioner") or DefaultPartitioner()
        self._turn = 0
        self.name = f"kafka:{publisher.topic}"
        self.health = Health(f"destination {self.name}", log)
        timeout_ms = options.get("request_timeout_ms", DEFAULT_REQUEST_TIMEOUT_MS)
        # Later than aiokafka's own: when we give a batch up, aiokafka has dropped it.
        self.send_timeout = timeout_ms / 1000 + MARGIN_SECONDS

    async def connect(self) -> None:
        await self._link.open()

    async def close(self) -> None:
        await self._link.close()

    async def send(self, rows: Sequence[OutboxRow]) -> Sequence[Verdict]:
        producer = kafka_producer(self._publisher)
        try:
            partitions = sorted(await producer.partitions_for(self._publisher.topic))  # type: ignore[no-untyped-call]
        except KafkaError as error:
            return [Unsent(error)] * len(rows)
        verdicts: dict[int, Verdict] = {}
        async with asyncio.TaskGroup() as group:
            for partition, share in self._spread(rows, partitions).items():
                sending = _PartitionSending(producer, self._publisher, partition, verdicts)
                group.create_task(sending.send(share))
        return [verdicts[row.id] for row in rows]

    def _spread(self, rows: Sequence[OutboxRow], partitions: list[int]) -> dict[int, list[OutboxRow]]:
        """Choose a partition for each row: by key, or in equal runs for rows without one."""
        shares: defaultdict[int, list[OutboxRow]] = defaultdict(list)
        keyless = []
        for row in rows:
            key = _key_of(row, self._publisher)
            if self._publisher.partition is not None:
                shares[self._publisher.partition].append(row)
            elif key is None:
                keyless.append(row)
            else:
                shares[self._partitioner(key, partitions, partitions)].append(row)
        for position, row in enumerate(keyless):
            turn = self._turn + position * len(partitions) // len(keyless)
            shares[partitions[turn % len(partitions)]].append(row)
        self._turn += 1
        return shares


class _PartitionSending:
    """The rows of one hand-over that go to one partition: a batch, its acknowledgement, the next batch."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        publisher: LogicPublisher,
        partition: int,
        verdicts: dict[int, Verdict],
    ) -> None:
        self._producer = producer
        self._publisher = publisher
        self._partition = partition
        self._verdicts = verdicts
        self._held_keys: set[str] = set()

    async def send(self, rows: Sequence[OutboxRow]) -> None:
        """Send batch by batch; what follows an outage stays unsent."""
        waiting = list(reversed(rows))
        while waiting:
            batch, members = self._pack(waiting)
            if members and (outage := await self._send_batch(batch, members)) is not None:
                for row in waiting:
                    self._verdicts[row.id] = Unsent(outage)
                return

    def _pack(self, waiting: list[OutboxRow]) -> tuple[Any, list[OutboxRow]]:
        """Move rows from ``waiting`` into a batch until it is full."""
        batch = self._producer.create_batch()  # type: ignore[no-untyped-call]
        members: list[OutboxRow] = []
        while waiting:
            row = waiting.pop()
            if row.key in self._held_keys:
                self._verdicts[row.id] = Unsent()
            elif self._append(batch, row) is None:
                waiting.append(row)
                break
            else:
                members.append(row)
        batch.close()
        return batch, members

    def _append(self, batch: Any, row: OutboxRow) -> Any:
        headers = {**self._publisher.headers, **wire_headers(row)}
        return batch.append(
            timestamp=None,
            key=_key_of(row, self._publisher),
            value=row.payload,
            headers=[(name, value.encode()) for name, value in headers.items()],
        )

    async def _send_batch(self, batch: Any, members: list[OutboxRow]) -> BaseException | None:
        """Send a batch and note its verdicts; return the error that makes going on pointless."""
        try:
            acknowledged = await self._producer.send_batch(  # type: ignore[no-untyped-call]
                batch, self._publisher.topic, partition=self._partition
            )
            await acknowledged
        except Exception as error:  # noqa: BLE001 - each becomes a verdict
            return await self._after_error(error, members)
        for row in members:
            self._verdicts[row.id] = Accepted()
        return None

    async def _after_error(self, error: Exception, members: list[OutboxRow]) -> BaseException | None:
        verdict = classify(error)
        if isinstance(verdict, Unsent):
            for row in members:
                self._verdicts[row.id] = verdict
            return error
        if len(members) > 1:
            # Kafka refuses a batch for any of its records: one by one, only the guilty one is refused.
            return await self._send_alone(members)
        self._verdicts[members[0].id] = verdict
        if isinstance(verdict, Refused) and members[0].key is not None:
            self._held_keys.add(members[0].key)
        return None

    async def _send_alone(self, members: list[OutboxRow]) -> BaseException | None:
        for position, row in enumerate(members):
            batch, alone = self._pack([row])
            if alone and (outage := await self._send_batch(batch, alone)) is not None:
                for later in members[position + 1 :]:
                    self._verdicts[later.id] = Unsent(outage)
                return outage
        return None


def classify(error: BaseException) -> Verdict:
    """Read an error of aiokafka: the row is poison, or refused, or the cluster cannot take it now."""
    for kind, reason in POISON.items():
        if isinstance(error, kind):
            return Poison(reason, error)
    if isinstance(error, REFUSED):
        return Refused(error)
    return Unsent(error)


def _key_of(row: OutboxRow, publisher: Any) -> bytes | None:
    return publisher.key if row.key is None else row.key.encode()


def _check_acks(options: dict[str, Any]) -> None:
    acks = options.get("acks")
    # With idempotence aiokafka waits for all replicas unless it was told otherwise, which it then refuses itself.
    if acks not in {"all", -1} and not options.get("enable_idempotence"):
        shown = f"acks={acks!r}" if isinstance(acks, int | str) else "FastStream's default of acks=1"
        msg = f"to: {shown} can lose acknowledged records; write KafkaBroker(..., acks='all')"
        raise ConfigError(msg)
