"""What Redis does with the step, and which rights it takes."""

from collections.abc import Sequence
from typing import Any

import pytest
from faststream.redis import RedisBroker

from faststream_outbox._store.memory.positions import MemoryPositions
from faststream_outbox._values.position import Mark
from faststream_outbox._values.run import NO_RUN
from faststream_outbox.forwarders.factory import create_destinations
from faststream_outbox.forwarders.kinds import PositionKeeper
from faststream_outbox.forwarders.redis.exact.marker import PREFIX, Element, ShardMarker, mark_text, name_of
from faststream_outbox.forwarders.redis.exact.script import Contradicted, Message, Taken, answer_of, call
from integration.servers.process import ReservedPort
from integration.servers.redis import EmbeddedRedis, RedisServer

FIRST, OLD, NEW = 5, 1 << 24, 2 << 24


@pytest.fixture
def marker(redis_key: str) -> ShardMarker:
    return ShardMarker(f"{redis_key}-marker", FIRST, NO_RUN)


async def step(server: RedisServer, marker: ShardMarker, token: int, messages: Sequence[Message]) -> Any:
    async with server.client() as client:
        return answer_of(await client.execute_command(*call(marker, token, messages, verb=b"RPUSH")))


async def elements(server: RedisServer, marker: ShardMarker) -> Sequence[Element]:
    other = ShardMarker(marker.name, NEW << 9, NO_RUN)
    found = await step(server, other, NEW << 10, ())
    assert isinstance(found, Contradicted)
    return found.there


def message(number: int, address: str) -> Message:
    return Message(mark_text(Mark(number, f"key-{number}")), address.encode(), (b"%d" % number,))


async def test_messages_and_marker_are_written_together_or_not_at_all(
    redis_server: RedisServer, marker: ShardMarker, redis_key: str
) -> None:
    messages = [message(number, redis_key) for number in range(3)]
    assert await step(redis_server, marker, OLD, messages) == Taken(3, None)
    written = [Element(OLD, FIRST, [Mark(number, f"key-{number}") for number in range(3)])]
    assert await elements(redis_server, marker) == written
    # A late step, which expects what was there before.
    assert await step(redis_server, marker, NEW, messages) == Contradicted(written)
    marker.taken(OLD)
    marker.waiting = frozenset({Mark(9, "waits")})
    assert await step(redis_server, marker, NEW, [message(3, redis_key)]) == Taken(1, None)
    assert (await elements(redis_server, marker))[1] == Element(NEW, OLD, [Mark(9, "waits"), Mark(3, "key-3")])
    async with redis_server.client() as client:
        assert await client.lrange(redis_key, 0, -1) == [b"0", b"1", b"2", b"3"]


async def test_the_marker_names_what_was_taken_and_nothing_behind_a_refusal_is_sent(
    redis_server: RedisServer, marker: ShardMarker, redis_key: str
) -> None:
    async with redis_server.client() as client:
        await client.set(f"{redis_key}-text", "no list")
    messages = [message(1, redis_key), message(2, redis_key), message(3, f"{redis_key}-text"), message(4, redis_key)]
    taken = await step(redis_server, marker, OLD, messages)
    assert taken.count == 2
    assert taken.problem.startswith("WRONGTYPE")
    assert await elements(redis_server, marker) == [Element(OLD, FIRST, [Mark(1, "key-1"), Mark(2, "key-2")])]
    async with redis_server.client() as client:
        assert await client.lrange(redis_key, 0, -1) == [b"1", b"2"]


async def test_where_nothing_is_taken_there_is_no_marker(own_redis: EmbeddedRedis) -> None:
    marker = ShardMarker("marker", FIRST, NO_RUN)
    async with own_redis.client() as client:
        await client.config_set("maxmemory", "1")
        taken = await step(own_redis, marker, OLD, [message(1, "orders")])
        assert (taken.count, taken.problem[:3]) == (0, "OOM")
        assert await client.exists("marker") == 0


@pytest.mark.parametrize("missing", [None, "eval", "lindex", "lrange", "rpush", "ltrim"])
async def test_the_rights_that_it_needs_are_named(own_redis: EmbeddedRedis, missing: str | None) -> None:
    commands = {
        "eval",
        "lindex",
        "lrange",
        "rpush",
        "ltrim",
        "xadd",
        "type",
        "info",
        "client",
        "config",
        "multi",
        "exec",
    }
    rights = [f"+{command}" for command in {*commands, "discard", "select"} - {missing}]
    async with own_redis.client() as admin:
        await admin.execute_command("ACL", "SETUSER", "relay", "on", ">secret", f"~{PREFIX}*", "~orders", *rights)
    url = own_redis.url.replace("//", "//relay:secret@")
    keeper = PositionKeeper(lambda: "relay", MemoryPositions(set))
    publisher = RedisBroker(url, logger=None).publisher(stream="orders")
    [lane] = create_destinations(publisher, lambda *_: None, lanes=1, send_timeout=None, exactly_once=keeper).lanes
    try:
        if missing is None:
            await lane.connect()
        else:
            with pytest.raises(PermissionError, match=rf"\+{missing}.*NOPERM"):
                await lane.connect()
    finally:
        await lane.close()


async def test_a_cluster_is_refused(own_redis: EmbeddedRedis) -> None:
    own_redis.stop()
    # By default its nodes speak 10,000 above the server's port, where there may be no port.
    bus = ReservedPort()
    own_redis.set_at_start(cluster_enabled="yes", cluster_port=str(bus.number))
    own_redis.start(wait_for_data=False)
    keeper = PositionKeeper(lambda: "relay", MemoryPositions(set))
    publisher = RedisBroker(own_redis.url, logger=None).publisher(stream="orders")
    [lane] = create_destinations(publisher, lambda *_: None, lanes=1, send_timeout=None, exactly_once=keeper).lanes
    with pytest.raises(Exception, match="exactly_once is not for Redis Cluster"):
        await lane.connect()
    await lane.close()
    bus.release()


def test_the_marker_has_the_name_that_the_page_says() -> None:
    assert name_of(255) == "faststream-outbox:00000000000000ff"
