"""The proxy's faults, seen by a client of an echo server."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from .proxy import Direction, TcpProxy

LITTLE = 0.2


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, proxy: TcpProxy) -> "Client":
        host, port = proxy.address.split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self, size: int, timeout: float = 5.0) -> bytes:
        async with asyncio.timeout(timeout):
            return await self._reader.readexactly(size)

    async def echo(self, data: bytes) -> bytes:
        await self.send(data)
        return await self.receive(len(data))

    async def end(self) -> bytes:
        self._writer.write_eof()
        return await self._reader.read()

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
async def received() -> bytearray:
    """What has reached the echo server."""
    return bytearray()


@pytest.fixture
async def proxy(received: bytearray) -> AsyncIterator[TcpProxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                received.extend(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: TcpProxy) -> AsyncIterator[Client]:
    client = await Client.connect(proxy)
    assert await client.echo(b"hello") == b"hello"
    yield client
    client.close()


async def test_bytes_and_the_end_of_a_connection_pass(client: Client) -> None:
    data = bytes(range(256)) * 4096
    sending = asyncio.create_task(client.send(data))
    assert await client.receive(len(data)) == data
    await sending
    assert await client.end() == b""


async def test_refuse_stops_new_connections_only(proxy: TcpProxy, client: Client) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(proxy)
    assert await client.echo(b"still here") == b"still here"
    # Nobody else is given the port meanwhile.
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", proxy.port))

    await proxy.restore()
    again = await Client.connect(proxy)
    assert await again.echo(b"back") == b"back"
    again.close()


async def test_reset_breaks_open_connections_only(proxy: TcpProxy, client: Client) -> None:
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await client.receive(1)

    again = await Client.connect(proxy)
    assert await again.echo(b"back") == b"back"
    again.close()


async def test_a_black_hole_keeps_the_connection_and_delivers_later(
    proxy: TcpProxy, client: Client, received: bytearray
) -> None:
    proxy.black_hole()
    await client.send(b"lost?")
    with pytest.raises(TimeoutError):
        await client.receive(1, timeout=LITTLE)
    assert received == b"hello"

    await proxy.restore()
    assert await client.receive(5) == b"lost?"


async def test_a_black_hole_of_one_direction_lets_the_other_pass(
    proxy: TcpProxy, client: Client, received: bytearray
) -> None:
    proxy.black_hole([Direction.TO_CLIENT])
    await client.send(b"done, but you will not know")
    with pytest.raises(TimeoutError):
        await client.receive(1, timeout=LITTLE)
    assert received == b"hello" + b"done, but you will not know"


async def test_a_black_hole_swallows_new_connections_too(proxy: TcpProxy) -> None:
    proxy.black_hole()
    client = await Client.connect(proxy)
    await client.send(b"anybody?")
    with pytest.raises(TimeoutError):
        await client.receive(1, timeout=LITTLE)
    client.close()


async def test_delay_holds_each_way(proxy: TcpProxy, client: Client) -> None:
    proxy.delay(0.1)
    started = time.monotonic()
    assert await client.echo(b"far away") == b"far away"
    assert time.monotonic() - started >= 0.2


async def test_cut_after_resets_in_the_middle(proxy: TcpProxy, client: Client, received: bytearray) -> None:
    proxy.cut_after(7, Direction.TO_SERVER)
    with pytest.raises(ConnectionResetError):
        await client.echo(b"0123456789")
    async with asyncio.timeout(5):
        while received != b"hello0123456":
            await asyncio.sleep(0.01)


async def test_cut_after_in_the_answer(proxy: TcpProxy, client: Client, received: bytearray) -> None:
    proxy.cut_after(3, Direction.TO_CLIENT)
    with pytest.raises(ConnectionResetError):
        await client.echo(b"acknowledged")
    assert received == b"helloacknowledged"


async def test_leaving_closes_everything() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server, TcpProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        proxy.black_hole()
        client = await Client.connect(proxy)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.receive(1)
    client.close()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(proxy)


async def test_drip_delivers_in_pieces_until_restored(proxy: TcpProxy, client: Client) -> None:
    proxy.drip(1000, [Direction.TO_CLIENT])
    began = time.monotonic()
    await client.send(b"x" * 10_000)
    await client.receive(300)
    assert time.monotonic() - began > 0.25
    await proxy.restore()
    await client.receive(9_700, timeout=2.0)
