"""Each line of the table of failure classes that a real server can be brought to, without the outbox around it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from faststream.redis import RedisBroker, RedisSentinelBroker
from redis import exceptions
from redis._parsers import BaseParser, _AsyncHiredisParser, _AsyncRESP3Parser
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from faststream_outbox._values.outcome import Accepted, Poison, Reason, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.redis.destination import RedisDestination
from faststream_outbox.forwarders.redis.eviction import EvictionWarning
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import ANSWERS, RedisAnswerError
from faststream_outbox.forwarders.suspects import Suspects
from integration.broker.observing import eventually
from integration.destinations.redis import StreamBox
from integration.faults.proxy import Direction, TcpProxy
from integration.servers.process import LOOPBACK, ReservedPort
from integration.servers.redis import EmbeddedRedis, EmbeddedSentinel, running_own_redis

_ids = iter(range(1, 10**9))


def row(payload: bytes = b"", key: str | None = "k") -> OutboxRow:
    number = next(_ids)
    return OutboxRow(
        id=number,
        queue="orders",
        key=key,
        idempotency_key=f"key-{number}",
        payload=payload,
        headers={},
        attempts_count=0,
        deliveries_count=0,
        created_at=datetime.now(UTC),
    )


@asynccontextmanager
async def destination(broker: RedisBroker, send_timeout: float = 5.0, **where: str) -> AsyncIterator[RedisDestination]:
    settings = RedisSettings.of(broker.publisher(**(where or {"stream": "orders"})))
    eviction = EvictionWarning(lambda *_: None, settings.address)
    made = RedisDestination(settings, eviction, Suspects(), send_timeout)
    try:
        yield made
    finally:
        await made.close()


async def send(to: RedisDestination, rows: Sequence[OutboxRow]) -> Sequence[Verdict]:
    return await to.send([Parcel(row) for row in rows])


def codes(verdicts: Any) -> set[str]:
    assert all(isinstance(verdict, Unsent) for verdict in verdicts), verdicts
    assert all(isinstance(verdict.exception, RedisAnswerError) for verdict in verdicts), verdicts
    return {verdict.exception.reply.split()[0] for verdict in verdicts}


Arrange = Callable[[EmbeddedRedis, Redis], Awaitable[Any]]


async def run_out_of_memory(own_redis: EmbeddedRedis, admin: Redis) -> None:
    await admin.config_set("maxmemory", "1")


async def run_out_of_replicas(own_redis: EmbeddedRedis, admin: Redis) -> None:
    await admin.config_set("min-replicas-to-write", "1")


async def become_a_replica(own_redis: EmbeddedRedis, admin: Redis) -> None:
    await admin.replicaof(LOOPBACK, 1)


async def become_a_replica_without_a_primary(own_redis: EmbeddedRedis, admin: Redis) -> None:
    await admin.config_set("replica-read-only", "no")
    await admin.config_set("replica-serve-stale-data", "no")
    await admin.replicaof(LOOPBACK, 1)


async def run_out_of_disk(own_redis: EmbeddedRedis, admin: Redis) -> None:
    # The file that a snapshot would replace is a folder.
    (own_redis.folder / "dump.rdb").mkdir()
    await admin.config_set("save", "3600 1")
    await admin.bgsave()
    await eventually(lambda: _snapshot_failed(admin))


async def _snapshot_failed(admin: Redis) -> bool:
    return (await admin.info("persistence"))["rdb_last_bgsave_status"] == "err"


async def take_the_permission_to_write(own_redis: EmbeddedRedis, admin: Redis) -> None:
    await admin.execute_command("ACL", "SETUSER", "default", "-xadd")


async def take_the_permission_for_transactions(own_redis: EmbeddedRedis, admin: Redis) -> None:
    await admin.execute_command("ACL", "SETUSER", "default", "-multi")


async def put_something_else_there(own_redis: EmbeddedRedis, admin: Redis) -> None:
    await admin.set("orders", "text")


async def use_up_the_ids(own_redis: EmbeddedRedis, admin: Redis) -> None:
    await admin.xadd("orders", {"a": "b"}, id=f"{2**64 - 1}-{2**64 - 1}")


async def ask_for_a_password(own_redis: EmbeddedRedis, admin: Redis) -> None:
    await admin.config_set("requirepass", "secret")


SITUATIONS: dict[str, tuple[Arrange, bool]] = {
    # Whether it shows before a row is sent.
    "OOM": (run_out_of_memory, True),
    "NOREPLICAS": (run_out_of_replicas, True),
    "READONLY": (become_a_replica, True),
    "MASTERDOWN": (become_a_replica_without_a_primary, True),
    "MISCONF": (run_out_of_disk, True),
    "NOPERM": (take_the_permission_to_write, True),
    "WRONGTYPE": (put_something_else_there, True),
    "ERR": (use_up_the_ids, False),
}


@pytest.mark.parametrize("code", SITUATIONS)
async def test_an_outage_takes_no_row_and_is_seen_before_the_next_hand_over(
    code: str, own_redis: EmbeddedRedis
) -> None:
    arrange, shows_before = SITUATIONS[code]
    async with own_redis.client() as admin, destination(RedisBroker(own_redis.url)) as to:
        await to.connect()
        assert await send(to, [row()]) == [Accepted()]
        await arrange(own_redis, admin)
        assert codes(await send(to, [row() for _ in range(5)])) == {code}
        if shows_before:
            with pytest.raises(RedisAnswerError, match=code):
                await to.connect()
        async with destination(RedisBroker(own_redis.url)) as fresh:
            if shows_before:
                with pytest.raises(RedisAnswerError, match=code):
                    await fresh.connect()


async def test_a_permission_for_transactions_that_goes_away_is_an_outage(own_redis: EmbeddedRedis) -> None:
    async with own_redis.client() as admin, destination(RedisBroker(own_redis.url)) as to:
        await to.connect()
        await take_the_permission_for_transactions(own_redis, admin)
        [verdict] = await send(to, [row()])
        assert isinstance(verdict, Unsent)
        assert "NOPERM" in str(verdict.exception)
        for _ in range(3):
            with pytest.raises(RedisAnswerError, match="NOPERM"):
                await to.connect()
        # That one command stood alone, and nothing since.
        assert await admin.xlen("orders") == 1


async def test_a_script_that_does_not_end(own_redis: EmbeddedRedis) -> None:
    async with own_redis.client() as admin, own_redis.client() as other, destination(RedisBroker(own_redis.url)) as to:
        await to.connect()
        await admin.config_set("busy-reply-threshold", "50")
        busy = asyncio.create_task(other.eval("while true do end", 0))
        await eventually(lambda: _is_busy(admin))
        assert codes(await send(to, [row() for _ in range(5)])) == {"BUSY"}
        with pytest.raises(RedisAnswerError, match="BUSY"):
            await to.connect()
        await admin.script_kill()
        with suppress(ResponseError):
            await busy
        await to.connect()
        assert await send(to, [row()]) == [Accepted()]


async def _is_busy(admin: Redis) -> bool:
    try:
        await admin.ping()
    except ResponseError as error:
        return str(error).startswith("BUSY")
    return False


async def test_passwords(own_redis: EmbeddedRedis) -> None:
    url = urlsplit(own_redis.url)
    async with own_redis.client() as admin:
        await ask_for_a_password(own_redis, admin)
    async with destination(RedisBroker(own_redis.url)) as to:
        with pytest.raises(RedisAnswerError, match="NOAUTH"):
            await to.connect()
    wrong = url._replace(netloc=f":wrong@{url.netloc}").geturl()
    async with destination(RedisBroker(wrong)) as to:
        with pytest.raises(RedisAnswerError, match="WRONGPASS"):
            await to.connect()
    right = url._replace(netloc=f":secret@{url.netloc}").geturl()
    async with destination(RedisBroker(right)) as to:
        await to.connect()
        assert await send(to, [row()]) == [Accepted()]


@pytest.mark.parametrize("parser", [_AsyncHiredisParser, _AsyncRESP3Parser])
async def test_a_server_that_loads_its_data(
    own_redis: EmbeddedRedis, own_box: StreamBox, parser: type[BaseParser]
) -> None:
    # To redis-py such an answer is a lost connection, and its parsers differ in what they read afterwards.
    async with own_redis.client() as admin:
        await admin.config_set("appendonly", "no")
        async with admin.pipeline(transaction=False) as pipeline:
            for number in range(2000):
                pipeline.set(f"key-{number}", "x")
            await pipeline.execute()
        await admin.save()
    own_redis.stop()
    # Microseconds for each key, and how many bytes are loaded between two looks at the clients.
    own_redis.set_at_start(appendonly="no", key_load_delay="500", loading_process_events_interval_bytes="1024")
    await asyncio.to_thread(own_redis.start, wait_for_data=False)
    async with destination(RedisBroker(own_redis.url, parser_class=parser)) as to:
        with pytest.raises(RedisAnswerError, match="LOADING"):
            await to.connect()
        await eventually(lambda: _connects(to), within=10)
        assert await send(to, [row()]) == [Accepted()]


async def _connects(to: RedisDestination) -> bool:
    try:
        await to.connect()
    except (RedisAnswerError, ConnectionError):
        return False
    return True


async def test_a_server_that_is_set_up_differently() -> None:
    bus = ReservedPort()
    cluster = {"cluster_enabled": "yes", "cluster_port": str(bus.number)}
    for settings, reply in ((cluster, "CLUSTERDOWN"), ({"rename_command": "XADD XADD2"}, "ERR unknown command")):
        with running_own_redis(**settings) as server:
            async with destination(RedisBroker(server.url)) as to:
                with pytest.raises(RedisAnswerError, match=reply):
                    await to.connect()
    bus.release()


async def test_too_many_clients(own_redis: EmbeddedRedis) -> None:
    async with own_redis.client() as admin:
        await admin.config_set("maxclients", "1")
        async with destination(RedisBroker(own_redis.url)) as to:
            with pytest.raises((ConnectionError, RedisAnswerError), match="max number of clients"):
                await to.connect()


async def test_no_server(own_redis: EmbeddedRedis) -> None:
    own_redis.stop()
    async with destination(RedisBroker(own_redis.url)) as to:
        with pytest.raises(ConnectionError, match="connecting"):
            await to.connect()
        assert all(isinstance(verdict, Unsent) for verdict in await send(to, [row()]))


@pytest.mark.parametrize("kind", ["stream", "list"])
async def test_a_message_over_the_servers_limit_is_poison_and_stops_no_other(
    kind: str, own_redis: EmbeddedRedis, own_box: StreamBox
) -> None:
    async with own_redis.client() as admin:
        await admin.config_set("proto-max-bulk-len", "1mb")
    rows = [row(), row(b"x" * 1024 * 1024), row()]
    async with destination(RedisBroker(own_redis.url), **{kind: "orders"}) as to:
        await to.connect()
        first, second, third = await send(to, rows)
    assert first == third == Accepted()
    assert isinstance(second, Poison)
    assert second.reason == Reason.TOO_LARGE
    assert [message.row_id for message in await own_box.read()] == [rows[0].id, rows[2].id]


async def test_a_limit_that_the_server_does_not_tell(own_redis: EmbeddedRedis, own_box: StreamBox) -> None:
    async with own_redis.client() as admin:
        await admin.config_set("proto-max-bulk-len", "1mb")
        await admin.execute_command("ACL", "SETUSER", "default", "-config")
    rows = [row(), row(), row(b"x" * 1024 * 1024), row(), row()]
    async with destination(RedisBroker(own_redis.url)) as to:
        verdicts: dict[int, Verdict] = {}
        async with asyncio.timeout(5):
            while waiting := [each for each in rows if isinstance(verdicts.get(each.id, Unsent()), Unsent)]:
                await to.connect()
                verdicts |= zip((each.id for each in waiting), await send(to, waiting), strict=True)
    assert {type(verdicts.pop(rows[2].id))} == {Poison}
    assert set(verdicts.values()) == {Accepted()}


async def test_a_connection_that_the_server_has_closed_is_no_outage(own_redis: EmbeddedRedis) -> None:
    async with own_redis.client() as admin, destination(RedisBroker(own_redis.url)) as to:
        await to.connect()
        await admin.execute_command("CLIENT", "KILL", "TYPE", "normal")
        client = to._client
        assert client is not None
        await eventually(lambda: not client.is_alive)
        await to.connect()
        assert await send(to, [row()]) == [Accepted()]
        own_redis.stop()
        await asyncio.to_thread(own_redis.start)
        await to.connect()
        assert await send(to, [row()]) == [Accepted()]


async def test_what_was_given_up_is_dead_once_the_rows_can_be_sent_again(
    own_redis: EmbeddedRedis, own_box: StreamBox
) -> None:
    """The network holds a transaction back; it may not be executed behind the same rows sent again."""
    port = own_redis.port.number
    async with (
        TcpProxy(LOOPBACK, port) as proxy,
        TcpProxy(LOOPBACK, port) as other_way,
        destination(RedisBroker(f"redis://{proxy.address}"), send_timeout=0.3) as to,
    ):
        await to.connect()
        proxy.black_hole([Direction.TO_SERVER])
        rows = [row() for _ in range(20)]
        assert {type(verdict) for verdict in await send(to, rows)} == {Unsent}
        # The proxy keeps what it has read, and will deliver it to the server later.
        to._settings.client_options["port"] = other_way.port  # type: ignore[index]
        await to.connect()
        assert set(await send(to, rows)) == {Accepted()}
        await proxy.restore()
        await asyncio.sleep(0.2)
    assert [message.row_id for message in await own_box.read()] == [each.id for each in rows]


async def test_a_sentinel_is_asked_for_the_server_again_when_it_changes(
    own_redis: EmbeddedRedis, tmp_path: Path
) -> None:
    for name in ("replica", "sentinel"):
        (tmp_path / name).mkdir()
    replica = EmbeddedRedis(tmp_path / "replica", replicaof=f"{LOOPBACK} {own_redis.port.number}")
    with replica, EmbeddedSentinel(tmp_path / "sentinel", "shop", own_redis) as sentinel:
        broker = RedisSentinelBroker(sentinels=[(LOOPBACK, sentinel.port.number)], sentinel_master_name="shop")
        async with destination(broker) as to:
            await to.connect()
            assert await send(to, [row()]) == [Accepted()]
            async with own_redis.client() as primary:
                # Redis answers before its replicas have the message; what they do not have is lost in a failover.
                await primary.wait(1, 5000)
            await sentinel.promote()
            await eventually(lambda: _is_primary(replica), within=15)
            # Until it hears of the failover, the old primary would still take rows, which nobody would ever see.
            await asyncio.to_thread(own_redis.stop)
            last = row()
            await eventually(lambda: _connects_and_sends(to, last), within=15)
        assert (await StreamBox(replica, "orders").read())[-1].row_id == last.id


async def _connects_and_sends(to: RedisDestination, sent: OutboxRow) -> bool:
    return await _connects(to) and await send(to, [sent]) == [Accepted()]


async def _is_primary(server: EmbeddedRedis) -> bool:
    # A server that changes its role disconnects its clients.
    with suppress(exceptions.ConnectionError):
        async with server.client() as client:
            return bool((await client.info("replication"))["role"] == "master")
    return False


def test_the_table_is_shown_line_by_line() -> None:
    shown = {*SITUATIONS, "BUSY", "CLUSTERDOWN", "LOADING", "NOAUTH", "WRONGPASS"}
    cluster_only = {"ASK", "MOVED", "TRYAGAIN"}
    assert {line for line in ANSWERS if not line.startswith("ERR")} == shown - {"ERR"} | cluster_only
