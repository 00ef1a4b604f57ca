"""A RabbitMQ queue, fed by the default exchange or by one of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Self

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from yarl import URL

from integration.faults.proxy import TcpProxy
from integration.servers.rabbitmq import MAX_MESSAGE_BYTES, RabbitServer

from .base import SECONDS_TO_READ, Box, Shut
from .received import Received

SECONDS_FOR_A_PUSH = 5.0


class QueueBox(Box):
    """A durable queue; connects for each reading, so that it outlives the server's restarts.

    What was read once is kept here and gone there.
    """

    kind = "rabbit"
    server_fixture = "rabbit_server"
    has_message_id = True
    can_be_shut = True
    longest_body = 300_000
    too_large = b"x" * (MAX_MESSAGE_BYTES + 1)

    def __init__(self, server: RabbitServer, name: str, proxy: TcpProxy | None = None) -> None:
        super().__init__(server, name, proxy)
        self._received: list[AbstractIncomingMessage] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, server: RabbitServer) -> AsyncIterator[Self]:
        async with cls._made_on(server, server.new_name()) as name, TcpProxy(server.host, server.port) as proxy:
            yield cls(server, name, proxy)

    @classmethod
    @asynccontextmanager
    async def _made_on(cls, server: RabbitServer, name: str) -> AsyncIterator[str]:
        async with cls.declared(server, name):
            yield name

    @classmethod
    @asynccontextmanager
    async def declared(
        cls, server: RabbitServer, name: str, *, exchange: str = "", routing_key: str = "", **arguments: Any
    ) -> AsyncIterator[Self]:
        """Declare the queue, bind it if there is an exchange, and delete it afterwards.

        A queue's arguments are given with underscores: `x_queue_type="quorum"`; so are those of a binding to a headers
        exchange, which must exist: `bind_x_match="all"`, `bind_format="pdf"`.
        """
        bind = {key.removeprefix("bind_"): arguments.pop(key) for key in list(arguments) if key.startswith("bind_")}
        async with _channel(server.url) as channel:
            queue = await channel.declare_queue(name, durable=True, arguments=_with_hyphens(arguments))
            if exchange:
                await queue.bind(exchange, routing_key, arguments=_with_hyphens(bind))
        try:
            yield cls(server, name)
        finally:
            async with _channel(server.url) as channel:
                await channel.queue_delete(name)

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        return RabbitBroker(url, logger=None, **options).publisher(name)

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Self]:
        async with self._at("beside") as box:
            yield box

    @asynccontextmanager
    async def shut(self) -> AsyncIterator[Shut]:
        async with AsyncExitStack() as stack:
            yield Shut(self._address_of("shut"), lambda: stack.enter_async_context(self._at("shut")))

    @asynccontextmanager
    async def _at(self, word: str) -> AsyncIterator[Self]:
        async with self._declared_at(self._address_of(word)) as box:
            box.address = self._address_of(word)
            yield box

    def _address_of(self, word: str) -> str:
        return f"{self.name}-{word}"

    def _declared_at(self, address: str) -> AbstractAsyncContextManager[Self]:
        return self.declared(self.server, address)

    def subscribe(self, broker: RabbitBroker, handler: Callable[..., Any]) -> None:
        broker.subscriber(RabbitQueue(self.name, durable=True, declare=False))(handler)

    @property
    def proxied_url(self) -> str:
        return str(self.server.url_through(self.proxy.address))

    @property
    def port(self) -> int:
        return URL(self.url).port or 5672

    async def read(self) -> list[Received]:
        return [as_received(message) for message in await self.messages(0, SECONDS_TO_READ)]

    async def messages(self, expected: int, timeout: float = 10.0) -> list[AbstractIncomingMessage]:
        """All messages so far, in the queue's order, once they are as many as expected, and whatever else is there.

        Raises TimeoutError, which says how many arrived, when there are fewer after `timeout` seconds.
        """
        async with _channel(self.url) as channel:
            queue = await channel.get_queue(self.name)
            there = len(self._received) + (queue.declaration_result.message_count or 0)
            news = asyncio.Event()

            async def receive(message: AbstractIncomingMessage) -> None:
                self._received.append(message)
                news.set()

            async def are_here(count: int) -> None:
                while len(self._received) < count:
                    news.clear()
                    await news.wait()

            tag = await queue.consume(receive, no_ack=True)
            try:
                async with asyncio.timeout(timeout):
                    await are_here(expected)
                # To fetch thousands one by one takes long. A message whose time is over meanwhile does not come.
                with suppress(TimeoutError):
                    async with asyncio.timeout(SECONDS_FOR_A_PUSH):
                        await are_here(there)
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


class ExchangeBox(QueueBox):
    """Reached through a topic exchange, which forwarders declare."""

    kind = "rabbit-exchange"
    is_main = False

    @classmethod
    @asynccontextmanager
    async def _made_on(cls, server: RabbitServer, name: str) -> AsyncIterator[str]:
        async with _channel(server.url) as channel:
            await channel.declare_exchange(name, "topic", durable=True)
        async with cls.declared(server, name, exchange=name, routing_key="orders.*"):
            yield name
        async with _channel(server.url) as channel:
            await channel.exchange_delete(name)

    def _address_of(self, word: str) -> str:
        return f"refunds.{word}"

    def _declared_at(self, address: str) -> AbstractAsyncContextManager[Self]:
        return self.declared(self.server, f"{self.name}-{address}", exchange=self.name, routing_key=address)

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        exchange = RabbitExchange(name, type=ExchangeType.TOPIC)
        return RabbitBroker(url, logger=None, **options).publisher(exchange=exchange, routing_key="orders.created")


class DirectBox(QueueBox):
    """Reached under its name through a direct exchange, which forwarders do not declare; a full queue says so."""

    kind = "rabbit-direct"
    is_main = False

    @property
    def exchange(self) -> str:
        return _direct(self.name)

    @classmethod
    @asynccontextmanager
    async def _made_on(cls, server: RabbitServer, name: str) -> AsyncIterator[str]:
        async with cls.declared(server, name, x_overflow="reject-publish") as box:
            await box.declare_exchange()
            try:
                yield name
            finally:
                await box.delete_exchange()

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        exchange = RabbitExchange(_direct(name), declare=False)
        return RabbitBroker(url, logger=None, **options).publisher(name, exchange)

    async def declare_exchange(self) -> None:
        async with _channel(self.url) as channel:
            exchange = await channel.declare_exchange(self.exchange, durable=True)
            await (await channel.get_queue(self.name)).bind(exchange, self.name)

    async def delete_exchange(self) -> None:
        async with _channel(self.url) as channel:
            await channel.exchange_delete(self.exchange)


def _direct(queue: str) -> str:
    return f"to-{queue}"


def as_received(message: AbstractIncomingMessage) -> Received:
    headers = {
        name: value.decode() if isinstance(value, bytes) else str(value) for name, value in message.headers.items()
    }
    assert message.message_id == headers.get("idempotency-key", message.message_id)
    return Received(0, headers.pop("outbox-key", None), message.body, headers)


@asynccontextmanager
async def _channel(url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        yield channel


def _with_hyphens(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in arguments.items()}
