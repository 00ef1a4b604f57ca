"""Packing and halving, on a partition that follows a script."""

import re
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._values.outcome import Accepted, Poison, Refused, Unsent, Verdict
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.kafka.sending import PartitionSender
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError

from .rows import row, settings

TOO_LARGE, UNKNOWN_SERVER_ERROR, NOT_LEADER, INVALID, UNKNOWN_TOPIC = 10, -1, 6, 87, 3


class Partition:
    """Keeps what it takes. `refuses` looks at the records of a batch and gives an error code, or 0."""

    def __init__(self, refuses: Callable[[list[Any]], int] = lambda _records: 0, topic: str = "topic") -> None:
        self.topic = topic
        self.log: list[Any] = []
        self.batches: list[list[Any]] = []
        self.sizes: list[int] = []
        self._refuses = refuses

    async def produce(self, topic: str, partition: int, batch: bytes) -> None:
        assert (topic, partition) == (self.topic, 3)
        records = list(MemoryRecords(bytes(batch)).next_batch())
        self.batches.append(records)
        self.sizes.append(len(batch))
        if code := self._refuses(records):
            raise KafkaAnswerError(code, "the partition")
        self.log += records


async def send(partition: Any, rows: list[OutboxRow], **options: Any) -> list[Verdict]:
    verdicts: dict[int, Verdict] = {}
    await PartitionSender(partition, settings(**options), TopicPartition(partition.topic, 3), verdicts).send(rows)
    assert set(verdicts) == {each.id for each in rows}, "a verdict for each row"
    return [verdicts[each.id] for each in rows]


def ids(records: list[Any]) -> list[int]:
    return [int(dict(record.headers)["outbox-id"]) for record in records]


def holding(*values: bytes, code: int) -> Callable[[list[Any]], int]:
    return lambda records: code if any(record.value in values for record in records) else 0


async def test_a_record_carries_the_row() -> None:
    partition = Partition()
    await send(partition, [row(7, key="k", payload=b"body", x="y")], headers={"x": b"publisher", "team": b"shop"})
    [record] = partition.log
    assert (record.key, record.value) == (b"k", b"body")
    assert dict(record.headers) == {
        "x": b"y",
        "team": b"shop",
        "content-type": b"application/octet-stream",
        "idempotency-key": b"i-7",
        "outbox-id": b"7",
        "outbox-queue": b"orders",
        "outbox-created-at": b"2026-01-02T03:04:05Z",
    }


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"retries": 3}, "'retries' is 3"),
        ({"x": None, "y": ["z"]}, "'x' is None, 'y' is \\['z'\\]"),
        ([3], "is \\[3\\]"),
        ("text", "mapping"),
        (None, "mapping"),
        ({7: "no text"}, "7 is 'no text'"),
    ],
)
async def test_a_row_whose_headers_are_no_texts_is_poison_and_its_neighbours_go(headers: Any, says: str) -> None:
    partition = Partition()
    rows = [row(0, key="k"), row(1, key="k")._replace(headers=headers), row(2, key="k"), row(3)]
    verdicts = await send(partition, rows, headers={"team": b"shop"})
    poison = verdicts.pop(1)
    assert isinstance(poison, Poison)
    assert poison.reason == "invalid"
    assert re.search(says, str(poison.exception))
    assert verdicts == [Accepted()] * 3
    assert ids(partition.log) == [0, 2, 3]


@pytest.mark.parametrize(
    ("each", "publishers_key", "value"),
    [
        (row(1, key="k"), None, None),
        (row(1), b"p", None),
        (row(1), None, b""),
        (row(1, key="k", payload=b"null"), None, b"null"),
        (row(1, key="k", **{"content-type": "text/plain"}), None, b""),
    ],
    ids=["its key", "the publisher's key", "no key", "a body", "an empty text"],
)
async def test_a_body_that_is_none_is_a_null_value_where_that_is_wanted(
    each: OutboxRow, publishers_key: bytes | None, value: bytes | None
) -> None:
    for tombstones, expected in ((True, value), (False, each.payload)):
        partition = Partition()
        assert await send(partition, [each], tombstones=tombstones, key=publishers_key) == [Accepted()]
        assert [record.value for record in partition.log] == [expected]


async def test_the_publishers_reply_to_is_the_only_one() -> None:
    partition = Partition()
    rows = [row(1, reply_to="elsewhere"), row(2, Reply_To="elsewhere")]
    await send(partition, rows, headers={"reply_to": b"answers"})
    for record in partition.log:
        assert [value for name, value in record.headers if name.lower() == "reply_to"] == [b"answers"]


async def test_batches_are_filled_up_to_the_limit_and_keep_the_order() -> None:
    partition = Partition()
    rows = [row(number, payload=b"x" * 300) for number in range(40)]
    assert await send(partition, rows) == [Accepted()] * 40
    assert ids(partition.log) == list(range(40))
    assert max(partition.sizes) <= 2000
    assert 8 <= len(partition.batches) <= 12


async def test_a_single_row_may_be_larger_than_a_batch() -> None:
    partition = Partition()
    rows = [row(0), row(1, payload=b"x" * 3000), row(2)]
    assert await send(partition, rows) == [Accepted()] * 3
    assert ids(partition.log) == [0, 1, 2]


async def test_a_row_over_the_record_limit_is_not_even_sent() -> None:
    partition = Partition()
    rows = [row(0), row(1, payload=b"x" * 6000), row(2)]
    first, second, third = await send(partition, rows)
    assert (first, third) == (Accepted(), Accepted())
    assert isinstance(second, Poison)
    assert second.reason == "too_large"
    assert "max_request_size" in str(second.exception)
    assert ids(partition.log) == [0, 2]


@pytest.mark.parametrize("position", [0, 1, 6, 12])
async def test_halving_finds_the_poisoned_row(position: int) -> None:
    partition = Partition(holding(b"poison", code=TOO_LARGE))
    rows = [row(number, key="k", payload=b"poison" if number == position else b"") for number in range(13)]
    verdicts = await send(partition, rows, batch_bytes=100_000)
    assert isinstance(verdicts[position], Poison)
    assert ids(partition.log) == [number for number in range(13) if number != position]
    assert len(partition.batches) <= 10, "not one by one"


async def test_a_refused_row_holds_back_its_key_and_no_other() -> None:
    partition = Partition(holding(b"refused", code=UNKNOWN_SERVER_ERROR))
    rows = [row(0, key="a"), row(1, key="b", payload=b"refused"), row(2, key="a"), row(3, key="b"), row(4)]
    verdicts = await send(partition, rows)
    assert isinstance(verdicts[1], Refused)
    assert verdicts[3] == Unsent()
    assert [verdicts[n] for n in (0, 2, 4)] == [Accepted()] * 3
    assert ids(partition.log) == [0, 2, 4]


async def test_rows_without_a_key_do_not_hold_each_other_back() -> None:
    partition = Partition(holding(b"refused", code=UNKNOWN_SERVER_ERROR))
    verdicts = await send(partition, [row(0, payload=b"refused"), row(1)])
    assert isinstance(verdicts[0], Refused)
    assert verdicts[1] == Accepted()


async def test_nothing_is_sent_behind_an_outage() -> None:
    answers = iter([0, NOT_LEADER])
    partition = Partition(lambda _records: next(answers))
    rows = [row(number, payload=b"x" * 300) for number in range(40)]
    verdicts = await send(partition, rows)
    sent = len(partition.log)
    assert verdicts[:sent] == [Accepted()] * sent
    assert all(isinstance(verdict, Unsent) for verdict in verdicts[sent:])
    tried = sent + len(partition.batches[1])
    assert all(verdict.exception for verdict in verdicts[sent:tried] if isinstance(verdict, Unsent))
    assert verdicts[tried:] == [Unsent()] * (40 - tried), "they were not in flight"
    assert len(partition.batches) == 2


async def test_an_outage_while_halving_leaves_the_rest_unsent() -> None:
    answers = iter([TOO_LARGE, 0, NOT_LEADER])
    partition = Partition(lambda _records: next(answers))
    verdicts = await send(partition, [row(number) for number in range(4)])
    assert [type(verdict) for verdict in verdicts] == [Accepted, Accepted, Unsent, Unsent]


async def test_a_missing_topic_is_an_outage_and_one_that_rows_have_named_refuses_them() -> None:
    rows = [row(0, key="a"), row(1), row(2, key="a"), row(3, key="b"), row(4)]
    verdicts = await send(Partition(lambda _: UNKNOWN_TOPIC), rows)
    assert all(isinstance(verdict, Unsent) and verdict.exception is not None for verdict in verdicts)
    elsewhere = Partition(lambda _: UNKNOWN_TOPIC, topic="elsewhere")
    verdicts = await send(elsewhere, rows)
    assert [type(verdict) for verdict in verdicts] == [Refused, Refused, Unsent, Refused, Refused]
    assert verdicts[2] == Unsent(), "it waits behind the first of its key"
    assert len(elsewhere.batches) == 1, "it is not worth asking again"


async def test_a_topic_that_is_deleted_while_a_batch_is_halved_refuses_the_rest_in_order() -> None:
    answers = iter([INVALID, INVALID, UNKNOWN_TOPIC])
    partition = Partition(lambda _records: next(answers), topic="elsewhere")
    verdicts = await send(partition, [row(n, key="b" if n in (3, 4) else None) for n in range(8)], batch_bytes=100_000)
    assert [ids(batch) for batch in partition.batches] == [[*range(8)], [*range(4)], [0, 1]]
    assert [number for number, verdict in enumerate(verdicts) if not isinstance(verdict, Refused)] == [4]
    assert verdicts[4] == Unsent(), "it waits behind the first of its key"


BEHAVIOURS = st.sampled_from([b"fine"] * 8 + [b"poison", b"refused", b"large"])
ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), BEHAVIOURS), max_size=40)


@given(rows=ROWS, outage_at=st.integers(0, 60), batch_bytes=st.integers(200, 4000))
async def test_order_holds_whatever_the_partition_answers(
    rows: list[tuple[str | None, bytes]], outage_at: int, batch_bytes: int
) -> None:
    """No row of a key is accepted after an earlier one that is still to be sent; the log is what was accepted."""
    answers = 0

    def refuses(records: list[Any]) -> int:
        nonlocal answers
        answers += 1
        values = {record.value for record in records}
        if answers > outage_at:
            return NOT_LEADER
        if b"poison" in values:
            return INVALID
        return UNKNOWN_SERVER_ERROR if b"refused" in values else 0

    partition = Partition(refuses)
    made = [
        row(number, key=key, payload=b"x" * 6000 if value == b"large" else value)
        for number, (key, value) in enumerate(rows)
    ]
    verdicts = await send(partition, made, batch_bytes=batch_bytes)
    accepted = [number for number, verdict in enumerate(verdicts) if isinstance(verdict, Accepted)]
    assert sorted(ids(partition.log)) == accepted
    assert all(left < right for left, right in pairwise(ids(partition.log)))
    by_key: defaultdict[str, list[Verdict]] = defaultdict(list)
    for each, verdict in zip(made, verdicts, strict=True):
        if each.key is not None:
            by_key[each.key].append(verdict)
    for its_verdicts in by_key.values():
        waiting = [isinstance(verdict, Refused | Unsent) for verdict in its_verdicts if not isinstance(verdict, Poison)]
        assert waiting == sorted(waiting)


async def test_the_publishers_headers_are_beside_those_of_the_row_and_never_twice() -> None:
    partition = Partition()
    await send(partition, [row(1, source="row")], headers={"source": b"publisher", "team": b"shop"})

    [record] = partition.log
    assert [value for name, value in record.headers if name == "source"] == [b"row"]
    assert dict(record.headers)["team"] == b"shop"


async def test_the_publishers_key_is_for_rows_without_one() -> None:
    partition = Partition()
    await send(partition, [row(1), row(2, key="own")], key=b"publisher")

    assert [record.key for record in partition.log] == [b"publisher", b"own"]
