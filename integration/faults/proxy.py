"""A loopback TCP proxy that can misbehave in the ways networks do.

    async with TcpProxy("127.0.0.1", port) as proxy:
        ...                     # clients connect to proxy.address
        proxy.black_hole()      # connections stay open, nothing arrives
        await proxy.restore()   # what was held back arrives, as after a retransmission

A fault stays until `restore`, on open connections and on new ones; `reset` happens once. The proxy lives in the event
loop that entered it: a test that blocks its loop stops the network too.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self

from integration.servers.process import ReservedPort

CHUNK = 64 * 1024
DRIP = 50
"""Bytes that a dripping direction delivers at a time."""
# Closing with a linger time of zero sends RST instead of FIN.
LINGER_ZERO = struct.pack("ii", 1, 0)


class Direction(Enum):
    """The way the bytes go."""

    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


BOTH = (Direction.TO_SERVER, Direction.TO_CLIENT)


@dataclass
class _Link:
    """How one direction of every connection behaves now."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    delay: float = 0.0
    bytes_per_second: float | None = None
    bytes_left: int | None = None

    async def hold(self) -> None:
        """Wait as long as a chunk, or the end of a connection, is held back."""
        await asyncio.sleep(self.delay)
        await self.open.wait()

    def allow(self, size: int) -> int:
        """How many of `size` bytes may pass; takes them from what is left."""
        if self.bytes_left is None:
            return size
        allowed = min(size, self.bytes_left)
        self.bytes_left -= allowed
        return allowed

    async def trickle(self, chunk: bytes, writer: asyncio.StreamWriter) -> None:
        """Write a chunk, in drips if the direction is slow; what is left flows freely once it no longer is."""
        rest = memoryview(chunk)
        while rest and self.bytes_per_second is not None:
            await asyncio.sleep(DRIP / self.bytes_per_second)
            writer.write(bytes(rest[:DRIP]))
            await writer.drain()
            rest = rest[DRIP:]
        writer.write(bytes(rest))
        await writer.drain()

    @property
    def is_cut(self) -> bool:
        return self.bytes_left == 0


class TcpProxy:
    """Forwards connections from `address` to a server; starts and stops as an async context manager.

    Args:
        host, upstream_port: the server.
        port: where to listen on loopback; 0 takes a free port.
    """

    def __init__(self, host: str, upstream_port: int, *, port: int = 0) -> None:
        self.host = host
        self.upstream_port = upstream_port
        self.port = port
        self._links = {direction: _Link() for direction in BOTH}
        self._listener: asyncio.Server | None = None
        self._reserved: ReservedPort | None = None
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    @property
    def address(self) -> str:
        """ "127.0.0.1:port"."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.restore()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.reset()
        await asyncio.gather(*self._connections, return_exceptions=True)
        if self._reserved is not None:
            self._reserved.release()

    async def restore(self) -> None:
        """End every fault: listen, forward, deliver what a black hole held back."""
        for link in self._links.values():
            link.delay, link.bytes_left, link.bytes_per_second = 0.0, None, None
            link.open.set()
        if not self.port:
            # Or somebody else could be given the port while the proxy refuses.
            self._reserved = ReservedPort()
            self.port = self._reserved.number
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def refuse(self) -> None:
        """Refuse new connections, as when nothing listens; open ones go on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def reset(self) -> None:
        """Reset every open connection, both ways (RST); new ones are served."""
        for task in self._connections:
            self._reset(task)

    def black_hole(self, directions: Iterable[Direction] = BOTH) -> None:
        """Deliver nothing more in these directions, not even the end of a connection."""
        for direction in directions:
            self._links[direction].open.clear()

    def delay(self, seconds: float, directions: Iterable[Direction] = BOTH) -> None:
        """Hold every chunk (64 KiB at most) for so long; the chunks behind it wait their turn: slow and far away."""
        for direction in directions:
            self._links[direction].delay = seconds

    def drip(self, bytes_per_second: float, directions: Iterable[Direction] = BOTH) -> None:
        """Deliver so little at a time that frames arrive in pieces, and slowly."""
        for direction in directions:
            self._links[direction].bytes_per_second = bytes_per_second

    def cut_after(self, size: int, direction: Direction) -> None:
        """Let `size` more bytes pass in this direction, over all connections, then reset the one that sent the last.

        Others, and those that follow, are reset at their next byte in this direction, until `restore`.
        """
        self._links[direction].bytes_left = size

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = [writer]
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(self.host, self.upstream_port)
            self._connections[task].append(upstream_writer)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(reader, upstream_writer, self._links[Direction.TO_SERVER]))
                pumps.create_task(_pump(upstream_reader, writer, self._links[Direction.TO_CLIENT]))
        except* (OSError, asyncio.CancelledError):
            self._reset(task)
        finally:
            for each in self._connections.pop(task):
                each.close()

    def _reset(self, task: asyncio.Task[None]) -> None:
        for writer in self._connections[task]:
            if sock := writer.get_extra_info("socket"):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            writer.transport.abort()
        if task is not asyncio.current_task():
            task.cancel()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link) -> None:
    # Draining then waits for the last byte: what was let pass has left before a cut throws away what is buffered.
    writer.transport.set_write_buffer_limits(high=0)
    while chunk := await reader.read(CHUNK):
        await link.hold()
        allowed = link.allow(len(chunk))
        await link.trickle(chunk[:allowed], writer)
        if link.is_cut:
            raise ConnectionResetError
    await link.hold()
    writer.write_eof()
