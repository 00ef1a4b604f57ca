"""Sentinels that are dead, that want a password, or whose server speaks TLS."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from faststream.redis import RedisSentinelBroker
from faststream.security import BaseSecurity
from redis.asyncio import sentinel as redis_sentinel

from faststream_outbox._values.outcome import Accepted
from integration.broker.observing import LogLines, eventually
from integration.destinations.redis import StreamBox
from integration.faults.proxy import TcpProxy
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.forwarders.parcels import destination, parcel
from integration.servers.missing import missing
from integration.servers.process import LOOPBACK
from integration.servers.redis import EmbeddedRedis, EmbeddedSentinel

PASSWORD = "open-sesame"


@pytest.mark.parametrize("its_options", [None, {"socket_timeout": 30.0}])
async def test_one_that_lives_is_heard_behind_dead_ones(
    its_options: dict[str, Any] | None, own_redis: EmbeddedRedis, own_box: StreamBox, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        sentinel = stack.enter_context(EmbeddedSentinel(tmp_path, "shop", own_redis))
        dead = [await stack.enter_async_context(TcpProxy(LOOPBACK, sentinel.port.number)) for _ in range(4)]
        for proxy in dead:
            proxy.black_hole()
        addresses = [(LOOPBACK, port) for port in (*(proxy.port for proxy in dead), sentinel.port.number)]
        broker = RedisSentinelBroker(
            sentinels=addresses,
            sentinel_master_name="shop",
            sentinel_kwargs=its_options,
            socket_timeout=1.0,
            logger=None,
        )
        async with destination(broker.publisher(stream=own_box.name)) as to:
            async with asyncio.timeout(3.0):
                await to.connect()
            assert await to.send([parcel()]) == [Accepted()]


async def test_no_password_of_sentinels_is_told(
    *, make_broker: MakeBroker, publishing: Publishing, log: LogLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def discover_master(self: redis_sentinel.Sentinel, name: str) -> None:
        raise redis_sentinel.MasterNotFoundError(f"No master found for {name!r}: {self.sentinel_kwargs}")

    # As redis-py 6.2 to 7.3 does.
    monkeypatch.setattr(redis_sentinel.Sentinel, "discover_master", discover_master)
    redis = RedisSentinelBroker(
        sentinels=[("one", 1), ("two", 2)],
        sentinel_master_name="shop",
        sentinel_kwargs={"password": PASSWORD},
        logger=None,
    )
    broker = make_broker(logger=log)
    forwarder = broker.forwarder("orders", to=redis.publisher(stream="orders"))
    await publishing.one(b"")
    await broker.start()
    [line] = await eventually(lambda: log.containing("'shop'"))
    assert "one:1, two:2" in line
    assert PASSWORD not in "".join(log.containing(""))
    assert PASSWORD not in repr(await forwarder.status())


async def test_a_server_that_speaks_tls(
    own_redis: EmbeddedRedis, own_box: StreamBox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = _certificate(tmp_path)
    ends_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ends_tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
    proxy = await asyncio.start_server(_to(own_redis.port.number), "localhost", 0, ssl=ends_tls)
    port = proxy.sockets[0].getsockname()[1]

    async def discover_master(*_: object) -> tuple[str, int]:
        return "localhost", port

    monkeypatch.setattr(redis_sentinel.Sentinel, "discover_master", discover_master)
    trust = ssl.create_default_context(cafile=str(certificate))
    broker = RedisSentinelBroker(
        sentinels=[(LOOPBACK, 1)],
        sentinel_master_name="shop",
        security=BaseSecurity(ssl_context=trust, use_ssl=True),
        logger=None,
    )
    async with proxy, destination(broker.publisher(stream=own_box.name)) as to:
        await to.connect()
        sent = parcel()
        assert await to.send([sent]) == [Accepted()]
        assert [message.row_id for message in await own_box.read()] == [sent.row.id]


@pytest.mark.parametrize(
    ("its_options", "speaks_tls"),
    [(None, True), ({"socket_timeout": 2.0}, True), ({"ssl": False}, False)],
    ids=["as the server", "with options", "on purpose in plain text"],
)
async def test_sentinels_are_greeted_as_safely_as_their_server(
    *,
    its_options: dict[str, Any] | None,
    speaks_tls: bool,
    own_redis: EmbeddedRedis,
    own_box: StreamBox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate = _certificate(tmp_path)
    ends_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ends_tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
    trust = ssl.create_default_context(cafile=str(certificate))
    discover = redis_sentinel.Sentinel.discover_master
    (folder := tmp_path / "sentinel").mkdir()
    with EmbeddedSentinel(folder, "shop", own_redis) as sentinel:
        before_server = await asyncio.start_server(_to(own_redis.port.number), "localhost", 0, ssl=ends_tls)
        before_sentinel = await asyncio.start_server(_to(sentinel.port.number), "localhost", 0, ssl=ends_tls)
        port = _port_of(before_sentinel) if speaks_tls else sentinel.port.number
        found: list[object] = []

        async def discover_master(self: redis_sentinel.Sentinel, name: str) -> tuple[str, int]:
            # The Sentinel itself speaks plain text with the server that it watches.
            found.append(await discover(self, name))
            return "localhost", _port_of(before_server)

        monkeypatch.setattr(redis_sentinel.Sentinel, "discover_master", discover_master)
        broker = RedisSentinelBroker(
            sentinels=[("localhost" if speaks_tls else LOOPBACK, port)],
            sentinel_master_name="shop",
            sentinel_kwargs=its_options,
            security=BaseSecurity(ssl_context=trust, use_ssl=True),
            logger=None,
        )
        async with before_server, before_sentinel, destination(broker.publisher(stream=own_box.name)) as to:
            await to.connect()
            assert await to.send([parcel()]) == [Accepted()]
            assert found == [(LOOPBACK, own_redis.port.number)]


async def test_no_sentinel_learns_anything_in_plain_text(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1000))
        writer.close()

    trust = ssl.create_default_context(cafile=str(_certificate(tmp_path)))
    async with await asyncio.start_server(listen, LOOPBACK, 0) as plain:
        broker = RedisSentinelBroker(
            sentinels=[(LOOPBACK, _port_of(plain))],
            sentinel_master_name="shop",
            sentinel_kwargs={"password": PASSWORD},
            security=BaseSecurity(ssl_context=trust, use_ssl=True),
            logger=None,
        )
        async with destination(broker.publisher(stream="orders")) as to:
            with pytest.raises(ConnectionError, match="the sentinels at"):
                await to.connect()
    assert heard
    assert all(PASSWORD.encode() not in each and b"SENTINEL" not in each for each in heard)


def _port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


def _certificate(folder: Path) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        missing("openssl is not installed")
    file = folder / "localhost.crt"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *name]
    subprocess.run([*command, "-keyout", file.with_suffix(".key"), "-out", file], check=True, capture_output=True)
    return file


def _to(port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(LOOPBACK, port)
        await asyncio.gather(pump(reader, server_writer), pump(server_reader, writer), return_exceptions=True)

    return serve
