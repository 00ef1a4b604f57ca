"""What is on its way to a peer that does not read, when its connection is reset. Real sockets."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvloop

from faststream_outbox.forwarders.socket_reset import reset

LOOPBACK = "127.0.0.1"
SIZE = 8 * 1024 * 1024
"""More than both ends buffer: the rest is still here when the connection ends."""


async def arrived(*, resets: int, closes_before: bool) -> int:
    """Return how many bytes a peer gets that reads only after the sender has given the connection up."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        # The peer's end inherits it, so little is in its hands.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.setblocking(False)
        _, writer = await asyncio.open_connection(LOOPBACK, listening.getsockname()[1])
        peer, _ = await asyncio.get_running_loop().sock_accept(listening)
        with peer:
            writer.write(bytes(SIZE))
            await asyncio.sleep(0.05)
            if closes_before:
                writer.close()
            for _ in range(resets):
                reset(writer.transport)
                await asyncio.sleep(0.05)
            return await _read_all(peer)


async def _read_all(peer: socket.socket) -> int:
    total = 0
    loop = asyncio.get_running_loop()
    try:
        while chunk := await loop.sock_recv(peer, 1 << 20):
            total += len(chunk)
    except ConnectionResetError:
        pass
    return total


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("closes_before", [False, True])
@pytest.mark.parametrize("resets", [1, 2])
def test_what_has_not_left_is_thrown_away(run: Callable[..., Any], resets: int, closes_before: bool) -> None:
    assert run(arrived(resets=resets, closes_before=closes_before)) < SIZE / 8


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_that_is_only_closed_sends_on(run: Callable[..., Any]) -> None:
    """What the reset is for; the way of the loops and of the kernel, which may change."""
    assert run(arrived(resets=0, closes_before=True)) == SIZE
