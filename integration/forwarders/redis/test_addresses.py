"""Rows that name a stream, list or channel of their own, on the real Redis."""

import asyncio

import pytest
from faststream.redis import RedisBroker

from faststream_outbox._values.outcome import Accepted, Poison, Reason, Refused, Unsent
from integration.destinations.received import check_order
from integration.destinations.redis import StreamBox
from integration.forwarders.parcels import destination, parcel
from integration.servers.redis import EmbeddedRedis, RedisServer


@pytest.mark.parametrize("kind", ["stream", "list"])
async def test_each_row_goes_to_its_key_and_in_order(
    kind: str, redis: RedisBroker, redis_server: RedisServer, box: StreamBox
) -> None:
    other = StreamBox(redis_server, f"{box.name}-ä")
    parcels = [parcel(other.name if n % 3 else None, key=f"key-{n % 5}") for n in range(60)]
    async with destination(redis.publisher(**{kind: box.name})) as to:
        await to.connect()
        assert set(await to.send(parcels)) == {Accepted()}
    for each_box in (box, other):
        messages = await each_box.read()
        assert {message.row_id for message in messages} == {
            each.row.id for each in parcels if (each.address or box.name) == each_box.name
        }
        check_order(messages)


async def test_another_stream_is_as_long_as_the_publishers(redis_server: RedisServer, box: StreamBox) -> None:
    from faststream.redis import StreamSub

    publisher = RedisBroker(redis_server.url, logger=None).publisher(stream=StreamSub(box.name, maxlen=100))
    async with destination(publisher) as to:
        await to.connect()
        await to.send([parcel(f"{box.name}-other") for _ in range(2000)])
    assert len(await StreamBox(redis_server, f"{box.name}-other").read()) < 1000


async def test_another_channel(redis: RedisBroker, redis_server: RedisServer, redis_key: str) -> None:
    async with redis_server.client() as client, client.pubsub() as listening:
        await listening.subscribe(f"{redis_key}-other")
        assert (await listening.get_message(timeout=5) or {})["type"] == "subscribe"
        async with destination(redis.publisher(channel=redis_key), allow_lossy=True) as to:
            await to.connect()
            assert await to.send([parcel(), parcel(f"{redis_key}-other")]) == [Accepted()] * 2
        async with asyncio.timeout(5):
            while (message := await listening.get_message(timeout=1)) is None:
                pass
        assert message["channel"].decode() == f"{redis_key}-other"


async def test_a_key_that_holds_something_else_refuses_its_rows_and_no_others(
    redis: RedisBroker, redis_server: RedisServer, box: StreamBox
) -> None:
    async with redis_server.client() as client:
        await client.set(f"{box.name}-text", "text")
    async with destination(redis.publisher(stream=box.name)) as to:
        await to.connect()
        verdicts = await to.send(
            [parcel(f"{box.name}-text", key="a"), parcel(key="b"), parcel(f"{box.name}-text", key="a")]
        )
        assert [type(verdict) for verdict in verdicts] == [Refused, Accepted, Unsent]
        assert f"XADD '{box.name}-text': Redis answered WRONGTYPE" in str(verdicts[0])
        assert verdicts[2] == Unsent()
    assert len(await box.read()) == 1


async def test_a_key_that_is_not_permitted_refuses_its_rows_and_no_others(
    own_redis: EmbeddedRedis, own_box: StreamBox
) -> None:
    async with own_redis.client() as admin:
        await admin.execute_command("ACL", "SETUSER", "default", "resetkeys", "~orders*")
    async with destination(RedisBroker(own_redis.url, logger=None).publisher(stream=own_box.name)) as to:
        await to.connect()
        addresses = ("secrets", None, "orders-b", "secrets", None)
        verdicts = await to.send([parcel(address, key=f"key-{n}") for n, address in enumerate(addresses)])
    assert [type(verdict) for verdict in verdicts] == [Refused, Accepted, Accepted, Refused, Accepted]
    assert "XADD 'secrets': Redis answered NOPERM" in str(verdicts[0])
    assert len(await own_box.read()) == 2


@pytest.mark.parametrize("address", ["", "\ud800"])
async def test_what_cannot_be_a_key_is_poison(redis: RedisBroker, box: StreamBox, address: str) -> None:
    async with destination(redis.publisher(list=box.name)) as to:
        await to.connect()
        poison, accepted = await to.send([parcel(address), parcel()])
    assert isinstance(poison, Poison)
    assert poison.reason == Reason.INVALID
    assert accepted == Accepted()
