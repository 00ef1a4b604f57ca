"""The rows of one hand-over that go to one partition: a record batch, its answer, the next batch."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Protocol

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from faststream_outbox._values.outcome import ACCEPTED, Poison, Reason, Unsent, Verdict
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import CONTENT_TYPE
from faststream_outbox.forwarders.batches import Answer, BatchSender
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.verdicts import classify, is_of_a_topic

MAGIC = 2
"""The record batch format that has headers."""


class Producer(Protocol):
    """What sending needs of a client."""

    async def produce(self, topic: str, partition: int, batch: bytes) -> int:
        """Send a record batch, and return its offset; raise unless Kafka has it."""


class PartitionSender(BatchSender[OutboxRow, bytes]):
    """Sends rows to one partition, a record batch at a time.

    Args:
        client: Sends batches.
        settings: How records are made.
        partition: Where they go.
        verdicts: See ``BatchSender``.
    """

    def __init__(
        self,
        client: Producer,
        settings: KafkaSettings,
        partition: TopicPartition,
        verdicts: MutableMapping[int, Verdict],
    ) -> None:
        super().__init__(verdicts)
        self._client = client
        self._settings = settings
        self._partition = partition
        self.outage: Exception | None = None
        """Why it has ended before all rows were sent."""

    def _rows_of(self, messages: Sequence[OutboxRow]) -> Sequence[OutboxRow]:
        return messages

    async def _exchange(self, batch: bytes, members: Sequence[OutboxRow]) -> Answer:
        try:
            await self._client.produce(*self._partition, batch)
        except Exception as error:  # noqa: BLE001 - each becomes a verdict
            return self._answer_of(error, members)
        return Answer([ACCEPTED] * len(members))

    def _answer_of(self, error: Exception, members: Sequence[OutboxRow]) -> Answer:
        verdicts = [verdict := self._read(error)] * len(members)
        if isinstance(verdict, Unsent):
            self.outage = error
            return Answer(verdicts, behind=Unsent())
        if is_of_a_topic(error):
            return Answer(verdicts, behind=verdict)
        # Kafka refuses a batch for any of its records.
        return Answer(verdicts, is_for_one=True)

    def _read(self, error: Exception) -> Verdict:
        return classify(error, elsewhere=self._partition.topic != self._settings.topic)

    def _pack(self, run: list[OutboxRow]) -> tuple[list[OutboxRow], bytes]:
        builder = self._new_builder()
        members: list[OutboxRow] = []
        taken = 0
        for row in run:
            if not self._is_held(row):
                try:
                    # The first record of a batch is taken whatever its size.
                    if not self._append(builder, len(members), row):
                        break
                except (AttributeError, TypeError, ValueError) as error:
                    # Something in it is no text. aiokafka finds that before it writes the first byte of the record.
                    self._note([row], [_not_text(row, error)])
                else:
                    if builder.size() > self._settings.max_record_bytes:
                        self._note([row], [_over_limit(builder.size(), self._settings)])
                        builder = self._new_builder()
                    else:
                        members.append(row)
            taken += 1
        del run[:taken]
        return members, builder.build() if members else b""

    def _new_builder(self) -> Any:
        return DefaultRecordBatchBuilder(
            magic=MAGIC,
            compression_type=self._settings.compression,
            is_transactional=0,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=0,
            batch_size=self._settings.batch_bytes,
        )

    def _append(self, builder: Any, offset: int, row: OutboxRow) -> bool:
        settings = self._settings
        of_row = settings.headers_of(row)
        headers = [(name, value.encode()) for name, value in of_row.items()]
        if settings.headers:
            headers[:0] = [(name, value) for name, value in settings.headers.items() if name not in of_row]
        key = settings.key if row.key is None else row.key.encode()
        value = None if settings.tombstones and key is not None and _has_no_body(row) else row.payload
        return builder.append(offset, None, key, value, headers) is not None


def _has_no_body(row: OutboxRow) -> bool:
    """Return whether a row was published with the body None: an empty text would have a content type."""
    return not row.payload and not row.headers.get(CONTENT_TYPE)


def _not_text(row: OutboxRow, error: BaseException) -> Poison:
    headers: Any = row.headers
    named = headers.items() if isinstance(headers, Mapping) else [("all of them", headers)]
    others = [f"{name!r} is {value!r}" for name, value in named if {type(name), type(value)} != {str}]
    problem = TypeError(f"headers must be a mapping of text to text: {', '.join(others) or error}")
    problem.__cause__ = error
    return Poison(Reason.INVALID, problem)


def _over_limit(size: int, settings: KafkaSettings) -> Poison:
    problem = f"the record has {size} bytes, KafkaBroker(max_request_size=...) allows {settings.max_record_bytes}"
    return Poison(Reason.TOO_LARGE, ValueError(problem))
