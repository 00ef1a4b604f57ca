"""Sends the rows of one shard to one partition, each batch under its sequence number."""

from collections.abc import MutableMapping, Sequence
from typing import Any

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from faststream_outbox._values.outcome import ACCEPTED, Unsent, Verdict
from faststream_outbox._values.position import Part
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.batches import Answer
from faststream_outbox.forwarders.doubt import InDoubtError, marks_of
from faststream_outbox.forwarders.kafka.client import KafkaClient, LeaderUnreachableError
from faststream_outbox.forwarders.kafka.exact.book import ShardBook, is_read_back
from faststream_outbox.forwarders.kafka.exact.leaders import Leaders
from faststream_outbox.forwarders.kafka.sending import MAGIC, PartitionSender
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError, NotSentError

OUT_OF_ORDER_SEQUENCE_NUMBER = 45

NOT_TAKEN = {
    10,  # MESSAGE_TOO_LARGE
    18,  # RECORD_LIST_TOO_LARGE
    29,  # TOPIC_AUTHORIZATION_FAILED
    31,  # CLUSTER_AUTHORIZATION_FAILED
    32,  # INVALID_TIMESTAMP
    43,  # UNSUPPORTED_FOR_MESSAGE_FORMAT
    76,  # UNSUPPORTED_COMPRESSION_TYPE
    87,  # INVALID_RECORD
}
"""Answers after which the batch is not in the log, whatever else happens: it was checked, and not appended.

All others leave it in doubt, those included that sound like a refusal. Of 274 times NOT_LEADER_OR_FOLLOWER the batch
was there once, of 100 times REQUEST_TIMED_OUT 76 times.
"""


class ExactPartitionSender(PartitionSender):
    """Sends as ``PartitionSender`` does, and knows of each batch whether it is in the log.

    Args:
        client: Sends batches.
        settings: How records are made.
        part: Where they go.
        verdicts: Takes a verdict for each row, under the row's id.
        book: Of the shard that the rows are of.
    """

    def __init__(
        self,
        client: KafkaClient,
        settings: KafkaSettings,
        part: Part,
        verdicts: MutableMapping[int, Verdict],
        book: ShardBook,
    ) -> None:
        super().__init__(client, settings, TopicPartition(*part), verdicts)
        self._part = part
        self._book = book
        self._leaders = Leaders(client)

    def _new_builder(self) -> Any:
        producer = self._book.held.producer
        return DefaultRecordBatchBuilder(
            magic=MAGIC,
            compression_type=self._settings.compression,
            is_transactional=0,
            producer_id=producer.id,
            producer_epoch=producer.epoch,
            base_sequence=self._book.next_sequence(self._part),
            batch_size=self._settings.batch_bytes,
        )

    async def _exchange(self, batch: bytes, members: Sequence[OutboxRow]) -> Answer:
        # Whatever ends this call, a time-out among others, it is in doubt from here on.
        self._book.sent(self._part, [row.id for row in members])
        try:
            offset = await self._client.produce(*self._part, batch)
            if self._book.is_to_be_read_back(self._part, offset):
                await self._read_back(offset, members)
        except Exception as error:  # noqa: BLE001 - each becomes a verdict
            return self._answer_of(error, members)
        self._book.accepted(self._part, offset, len(members))
        return Answer([ACCEPTED] * len(members))

    def _answer_of(self, error: Exception, members: Sequence[OutboxRow]) -> Answer:
        if isinstance(error, KafkaAnswerError) and error.code in NOT_TAKEN:
            self._book.refused(self._part)
            return super()._answer_of(error, members)
        if isinstance(error, NotSentError | LeaderUnreachableError):
            self._book.refused(self._part)
        elif isinstance(error, _OthersError) or getattr(error, "code", None) == OUT_OF_ORDER_SEQUENCE_NUMBER:
            self._book.contradicted(self._part)
        self.outage = error
        return Answer([Unsent(error)] * len(members), behind=Unsent())

    async def _read_back(self, offset: int, members: Sequence[OutboxRow]) -> None:
        try:
            # However large it is: of a fetch's first partition, Kafka gives a whole batch (KIP-74).
            found = await self._leaders.read(self._part, offset, {self._book.held.producer.id}, most_bytes=1)
        except KafkaAnswerError as error:
            # It says nothing of the batch, which Kafka has taken, or another one in its place.
            raise InDoubtError(str(error)) from error
        there = next((one.batch for one in found if one.offset == offset), None)
        if there is None or not is_read_back(marks_of(members), there.marks):
            msg = f"partition {self._part.partition} of {self._part.topic!r}: another batch came before this one"
            raise _OthersError(msg)


class _OthersError(InDoubtError):
    """Kafka has taken the batch for one that it has."""
