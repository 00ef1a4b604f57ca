"""RabbitMQ queues seen from outside, with plain aio-pika: declare, read everything, delete."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage


class Mailbox:
    """A durable queue of a test; connects for each reading, so that it outlives the server's restarts."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self._received: list[AbstractIncomingMessage] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, name: str, *, exchange: str = "", routing_key: str = "", **arguments: Any
    ) -> AsyncIterator["Mailbox"]:
        """Declare the queue, bind it if there is an exchange, and delete it afterwards.

        A queue's arguments are given with underscores: `x_queue_type="quorum"`; so are those of a binding to a headers
        exchange, which must exist: `bind_x_match="all"`, `bind_format="pdf"`.
        """
        bind = {key.removeprefix("bind_"): arguments.pop(key) for key in list(arguments) if key.startswith("bind_")}
        async with await aio_pika.connect(url) as connection, connection.channel() as channel:
            queue = await channel.declare_queue(name, durable=True, arguments=_with_hyphens(arguments))
            if exchange:
                await queue.bind(exchange, routing_key, arguments=_with_hyphens(bind))
        try:
            yield cls(url, name)
        finally:
            async with await aio_pika.connect(url) as connection, connection.channel() as channel:
                await channel.queue_delete(name)

    async def messages(self, expected: int, timeout: float = 10.0) -> list[AbstractIncomingMessage]:
        """All messages so far, in the queue's order, once they are as many as expected, and whatever else is there.

        Raises TimeoutError, which says how many arrived, when there are fewer after `timeout` seconds.
        """
        async with await aio_pika.connect(self.url) as connection, connection.channel() as channel:
            queue = await channel.get_queue(self.name)
            news = asyncio.Event()

            async def receive(message: AbstractIncomingMessage) -> None:
                self._received.append(message)
                news.set()

            tag = await queue.consume(receive, no_ack=True)
            try:
                async with asyncio.timeout(timeout):
                    while len(self._received) < expected:
                        news.clear()
                        await news.wait()
            except TimeoutError:
                found = len(self._received)
                raise TimeoutError(f"{found} of {expected} messages in {self.name!r} after {timeout:g} s") from None
            finally:
                # Answered behind everything that is on its way to us.
                await queue.cancel(tag)
                await asyncio.sleep(0)
            while (rest := await queue.get(no_ack=True, fail=False)) is not None:
                self._received.append(rest)
        return list(self._received)


@asynccontextmanager
async def open_exchange(url: str, queue: str) -> AsyncIterator[str]:
    """Declare an exchange by which a queue is reached under its name, and delete it afterwards; yields its name."""
    await declare_exchange(url, name := f"to-{queue}", queue)
    try:
        yield name
    finally:
        await delete_exchange(url, name)


async def declare_exchange(url: str, name: str, queue: str) -> None:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        exchange = await channel.declare_exchange(name, durable=True)
        await (await channel.get_queue(queue)).bind(exchange, queue)


async def delete_exchange(url: str, name: str) -> None:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        await channel.exchange_delete(name)


def _with_hyphens(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in arguments.items()}
