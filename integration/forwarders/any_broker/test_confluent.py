"""Confluent's client: rows that name a topic of their own, and batches that a topic does not take."""

import pytest

from faststream_outbox._values.outcome import Accepted, Poison, Reason, Refused
from integration.broker.observing import eventually
from integration.destinations.base import Box
from integration.destinations.kafka import LIMIT
from integration.forwarders.parcels import connects, destination, parcel


@pytest.mark.parametrize("box", ["confluent"], indirect=True)
async def test_a_missing_topic_refuses_its_rows_and_no_others(box: Box) -> None:
    soon = {"message.timeout.ms": 8000, "topic.metadata.propagation.max.ms": 1000}
    async with destination(box.publisher(config=soon), send_timeout=10.0) as to:
        await eventually(lambda: connects(to), within=15)
        for _ in range(2):
            parcels = [parcel(key="a"), parcel(f"{box.name}-missing", key="b"), parcel(key="c")]
            first, refused, last = await to.send(parcels)
            assert first == last == Accepted()
            assert isinstance(refused, Refused)
            assert "nknown topic" in str(refused.exception)
    assert len(await box.received(4)) == 4


@pytest.mark.parametrize("box", ["confluent"], indirect=True)
async def test_a_batch_beyond_the_topics_limit_condemns_only_the_row_that_is(box: Box) -> None:
    """Kafka refuses it as a whole; librdkafka made it by a limit of its own."""
    # So long they wait for one another, and without keys they all go to one partition.
    together = {"message.timeout.ms": 8000, "linger.ms": 300, "sticky.partitioning.linger.ms": 1000}
    fits = b"x" * (LIMIT // 2)
    async with destination(box.publisher(config=together), send_timeout=10.0) as to:
        await eventually(lambda: connects(to), within=15)
        innocent = [parcel(key=None, payload=fits) for _ in range(5)]
        verdicts = await to.send([*innocent[:3], parcel(key=None, payload=b"x" * (LIMIT + 10_000)), *innocent[3:]])
    guilty = verdicts[3]
    assert isinstance(guilty, Poison)
    assert guilty.reason == Reason.TOO_LARGE
    assert [*verdicts[:3], *verdicts[4:]] == [Accepted()] * 5
    assert len(await box.received(5)) == 5
