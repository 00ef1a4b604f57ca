from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

from faststream_outbox._values.position import Mark
from faststream_outbox.forwarders.kafka.exact.look import SEQUENCES, Batch
from faststream_outbox.forwarders.kafka.exact.protocol import Found, batches_of, next_sequence

OURS, OTHERS = 7, 8


def batch(offset: int, ids: list[int], *, producer: int = OURS, sequence: int = 3, compression: int = 0) -> bytes:
    builder: Any = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=0,
        producer_id=producer,
        producer_epoch=0,
        base_sequence=sequence,
        batch_size=10_000,
    )
    for position, id_ in enumerate(ids):
        headers = [("outbox-id", str(id_).encode()), ("x", None), ("idempotency-key", f"k{id_}".encode())]
        builder.append(position, None, None, b"body", headers)
    built = builder.build()
    # Kafka writes the offset over what a producer has put there.
    built[:8] = offset.to_bytes(8)
    return bytes(built)


@pytest.mark.parametrize("compression", [0, 1])
def test_our_batches_are_read_among_others(compression: int) -> None:
    records = batch(5, [1], producer=OTHERS) + batch(6, [2, 3], compression=compression)
    marks = [Mark(2, "k2"), Mark(3, "k3")]
    assert [*batches_of(records, {OURS})] == [Found(5, 6, OTHERS), Found(6, 8, OURS, Batch(6, 3, 2, marks))]


def test_a_batch_that_is_cut_off_is_left_out() -> None:
    records = batch(5, [1]) + batch(6, [2])[:-1]
    assert [found.end for found in batches_of(records, {OURS})] == [6]


def test_records_of_the_older_formats_are_passed_over() -> None:
    builder = LegacyRecordBatchBuilder(magic=1, compression_type=0, batch_size=1000)
    for offset in (3, 4):
        builder.append(offset, timestamp=1, key=b"key", value=b"old")
    assert [*batches_of(bytes(builder.build()), {OURS})] == [Found(3, 4), Found(4, 5)]


def test_the_next_sequence_wraps() -> None:
    assert [next_sequence(last) for last in (-1, 0, SEQUENCES - 1)] == [None, 1, 0]
