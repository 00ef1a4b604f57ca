"""Lends connections to a Kafka cluster to the lanes of a process, one lane at a time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any, ClassVar
from weakref import WeakSet

from aiokafka.client import AIOKafkaClient

from faststream_outbox.forwarders.socket_reset import reset

CLOSE_SECONDS = 1.0

MOST_IDLE = 4
"""Clients that are kept open while nobody has borrowed them. Each has a connection to each server that was needed."""

SURPLUS_SECONDS = 5.0
"""After a burst: clients beyond ``MOST_IDLE`` that were not needed for so long are closed."""

MOST_LOOKS = 4
"""Lanes that look at the cluster at once. All lanes of a process start together, and a look takes a millisecond."""

COURTESY_SECONDS = 1.0
"""How long a lane waits for the looks of others. They may hang, and then it finds out for itself."""


class Lender:
    """Has the connections of all lanes of a process whose publishers reach a cluster with the same settings.

    A lane borrows a client of aiokafka for a hand-over, and has it for itself. It gives it back when all that it sent
    has an answer, and else closes it. So a connection that is cut has no rows of another lane in flight. Hundreds of
    idle lanes keep a few connections open.

    Made by ``to``.
    """

    _lenders: ClassVar["WeakSet[Lender]"] = WeakSet()

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._borrowers = 0
        self._idle: list[AIOKafkaClient] = []
        """The last one is lent first: those that are not needed stay at the beginning."""
        self._unneeded = 0
        """How many of them nobody has needed since the last look for a surplus."""
        self._next_look: asyncio.TimerHandle | None = None
        self._looks = asyncio.Semaphore(MOST_LOOKS)
        self._closing: set[asyncio.Task[None]] = set()

    @classmethod
    def to(cls, options: Mapping[str, Any]) -> "Lender":
        """Return the lender of this event loop for a cluster, with one borrower more, which will ``leave`` it."""
        loop = asyncio.get_running_loop()
        lender = next((each for each in cls._lenders if each.is_for(loop, options)), None) or cls(options)
        cls._lenders.add(lender)
        return lender.joined()

    def is_for(self, loop: asyncio.AbstractEventLoop, options: Mapping[str, Any]) -> bool:
        """Return whether its connections are of this loop, and made with these settings."""
        return self._loop is loop and self._options == options

    def joined(self) -> "Lender":
        """Return the lender, with one borrower more."""
        self._borrowers += 1
        return self

    def lend(self, *, anew: bool = False) -> AIOKafkaClient:
        """Return a client that nobody else has; with ``anew``, one that has no connection yet."""
        if anew or not self._idle:
            return AIOKafkaClient(**self._options)  # type: ignore[no-untyped-call]
        client = self._idle.pop()
        self._unneeded = min(self._unneeded, len(self._idle))
        return client

    def take_back(self, client: AIOKafkaClient) -> None:
        """Take a client to lend it again: all that was sent with it has an answer, or was a question."""
        drop_given_up(client)
        self._idle.append(client)
        if self._next_look is None and len(self._idle) > MOST_IDLE:
            self._look_later()

    async def leave(self) -> None:
        """Close what is idle if this was the last borrower."""
        self._borrowers -= 1
        if not self._borrowers:
            await self.close_idle()

    async def close_idle(self) -> None:
        """Close what nobody has borrowed: nothing is on its way there."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        idle, self._idle = self._idle, []
        self._unneeded = 0
        for client in idle:
            # At once, also if nobody waits for the rest.
            cut(client)
        await asyncio.gather(*self._closing, *map(close, idle))

    @contextlib.asynccontextmanager
    async def look(self) -> AsyncIterator[None]:
        """Wait for the looks of others, if they end soon; within this context others wait for this one."""
        has_turn = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COURTESY_SECONDS):
                has_turn = await self._looks.acquire()
        try:
            yield
        finally:
            if has_turn:
                self._looks.release()

    def _look_later(self) -> None:
        self._unneeded = len(self._idle)
        self._next_look = self._loop.call_later(SURPLUS_SECONDS, self._close_surplus)

    def _close_surplus(self) -> None:
        self._next_look = None
        surplus = self._unneeded - MOST_IDLE
        if surplus > 0:
            unneeded, self._idle = self._idle[:surplus], self._idle[surplus:]
            for client in unneeded:
                closing = self._loop.create_task(close(client), name="outbox-kafka-surplus")
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        if len(self._idle) > MOST_IDLE:
            self._look_later()


def cut(client: AIOKafkaClient) -> None:
    """Reset all connections of a client. What has not left this machine is not sent any more."""
    # aiokafka closes a connection by first sending what is buffered: the very sends that were given up.
    for connection in list(client._conns.values()):  # noqa: SLF001
        reset_connection(connection)


def transports_to(client: AIOKafkaClient, server: int) -> list[asyncio.BaseTransport]:
    """Return what a client's connections to a server send over."""
    connections = [each for (node, _group), each in client._conns.items() if node == server]  # noqa: SLF001
    return [each._writer.transport for each in connections if each._writer is not None]  # noqa: SLF001


def reset_connection(connection: Any) -> None:
    """Reset one connection of a client, and drop what is buffered."""
    if (writer := connection._writer) is not None:  # noqa: SLF001
        reset(writer.transport)


def drop(client: AIOKafkaClient, which: Callable[[Any, Any], bool]) -> None:
    """Reset some connections of a client, and forget them.

    Args:
        client: It opens new ones when it needs them.
        which: Told of a server, and of the connection to it; returns whether that is one of them.
    """
    connections = client._conns  # noqa: SLF001
    for connection_id in [each for each, connection in connections.items() if which(each[0], connection)]:
        connection = connections.pop(connection_id)
        reset_connection(connection)
        connection.close()


def drop_given_up(client: AIOKafkaClient) -> None:
    """Drop connections for whose answers nobody waits any more: Kafka answers nothing else there before."""
    drop(client, lambda _server, connection: _is_given_up(connection._requests))  # noqa: SLF001


def _is_given_up(requests: Collection[tuple[Any, Any, asyncio.Future[Any]]]) -> bool:
    return bool(requests) and all(answer.done() for *_, answer in requests)


async def close(client: AIOKafkaClient) -> None:
    """Reset all connections of a client, and forget them."""
    cut(client)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()  # type: ignore[no-untyped-call]
