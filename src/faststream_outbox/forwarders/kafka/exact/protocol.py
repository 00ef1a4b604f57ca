"""Requests of Kafka's protocol that aiokafka does not have, and what it does not show of answers that it has."""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, TypeGuard

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.record._protocols import DefaultRecordBatchProtocol, LegacyRecordBatchProtocol
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords

from faststream_outbox._values.position import Mark
from faststream_outbox._values.wire import IDEMPOTENCY_KEY, ROW_ID
from faststream_outbox.forwarders.kafka.exact.look import SEQUENCES, Batch


class DescribeProducersResponse(Response):
    """For each partition, what its leader remembers of each producer."""

    API_KEY = 61
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition_index", Int32),
                        ("error_code", Int16),
                        ("error_message", CompactString("utf-8")),
                        (
                            "active_producers",
                            CompactArray(
                                ("producer_id", Int64),
                                ("producer_epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_timestamp", Int64),
                                ("coordinator_epoch", Int32),
                                ("current_txn_start_offset", Int64),
                                ("tags", TaggedFields),
                            ),
                        ),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class DescribeProducersStruct(RequestStruct):
    """Version 0, the only one: Kafka protocol guide, "DescribeProducers API"."""

    FLEXIBLE_VERSION = True
    API_KEY = 61
    API_VERSION = 0
    RESPONSE_TYPE = DescribeProducersResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                ("partition_indexes", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class DescribeProducersRequest(Request[DescribeProducersStruct]):
    """Asks a leader which producers it remembers.

    Args:
        topic: Its name.
        partitions: Those that the leader has.
    """

    API_KEY = 61

    def __init__(self, topic: str, partitions: Sequence[int]) -> None:
        self._topic = topic
        self._partitions = partitions

    def build(self, request_struct_class: type[DescribeProducersStruct]) -> DescribeProducersStruct:
        return request_struct_class([(self._topic, list(self._partitions), {})], {})


def next_sequence(last_sequence: int) -> int | None:
    """Return the sequence number behind the last batch of a producer; None where it has none."""
    return None if last_sequence < 0 else (last_sequence + 1) % SEQUENCES


class Found(NamedTuple):
    """A record batch in a log."""

    offset: int
    end: int
    """The offset behind it."""
    producer_id: int = -1
    batch: Batch | None = None
    """Only where it is of a producer that was asked for."""


def batches_of(records: bytes, producer_ids: Collection[int]) -> Iterator[Found]:
    """Yield the batches that a fetch has given, which may begin before what was asked for and end within a batch."""
    memory = MemoryRecords(records)
    while memory.has_next():
        batch = memory.next_batch()
        if batch is not None and _has_producer(batch):
            is_ours = batch.producer_id in producer_ids and not batch.is_control_batch
            size = batch.last_offset_delta + 1
            ours = Batch(batch.base_offset, batch.base_sequence, size, _marks_of(batch)) if is_ours else None
            yield Found(batch.base_offset, batch.next_offset, batch.producer_id, ours)
        elif batch is not None:
            offsets = [record.offset for record in batch]
            yield Found(offsets[0], offsets[-1] + 1)


def _has_producer(
    batch: DefaultRecordBatchProtocol | LegacyRecordBatchProtocol,
) -> TypeGuard[DefaultRecordBatchProtocol]:
    # Older formats have neither producers nor headers.
    return isinstance(batch, DefaultRecordBatch)


def _marks_of(batch: DefaultRecordBatchProtocol) -> list[Mark]:
    return [_mark_of(record.headers) for record in batch]


def _mark_of(headers: Sequence[tuple[str, bytes | None]]) -> Mark:
    # Of several headers with one name, those that the bridge writes come last.
    of = {name: value or b"" for name, value in headers}
    return Mark(int(of[ROW_ID]), of[IDEMPOTENCY_KEY].decode())
