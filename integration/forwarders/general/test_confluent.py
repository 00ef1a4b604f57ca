"""Confluent's client: rows that name a topic of their own."""

import pytest

from faststream_outbox._values.outcome import Accepted, Refused
from integration.broker.observing import eventually
from integration.forwarders.boxes import Box
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
