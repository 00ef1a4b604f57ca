"""A RabbitMQ queue, fed by the default exchange or by one of its own."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Self

import aio_pika
import pytest
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
from yarl import URL

from integration.faults.proxy import TcpProxy
from integration.servers.queues import Mailbox
from integration.servers.rabbitmq import MAX_MESSAGE_BYTES, RabbitServer

from .base import Box, Received, Shut


class QueueBox(Box):
    kind = "rabbit"
    has_message_id = True
    can_be_shut = True
    longest_body = 300_000
    too_large = b"x" * (MAX_MESSAGE_BYTES + 1)

    def __init__(self, server: RabbitServer, mailbox: Mailbox, proxy: TcpProxy | None = None) -> None:
        super().__init__(server.url, mailbox.name, proxy)
        self._server = server
        self._mailbox = mailbox

    @classmethod
    @asynccontextmanager
    async def open(cls, request: pytest.FixtureRequest) -> AsyncIterator[Self]:
        server: RabbitServer = request.getfixturevalue("rabbit_server")
        async with (
            cls._mailbox_on(server, server.new_name()) as mailbox,
            TcpProxy(server.host, server.port) as proxy,
        ):
            yield cls(server, mailbox, proxy)

    @classmethod
    @asynccontextmanager
    async def _mailbox_on(cls, server: RabbitServer, name: str) -> AsyncIterator[Mailbox]:
        async with Mailbox.open(server.url, name) as mailbox:
            yield mailbox

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
        async with self._mailbox_at(self._address_of(word)) as mailbox:
            box = type(self)(self._server, mailbox)
            box.address = self._address_of(word)
            yield box

    def _address_of(self, word: str) -> str:
        return f"{self.name}-{word}"

    def _mailbox_at(self, address: str) -> AbstractAsyncContextManager[Mailbox]:
        return Mailbox.open(self.url, address)

    def subscribe(self, broker: RabbitBroker, handler: Callable[..., Any]) -> None:
        broker.subscriber(RabbitQueue(self.name, durable=True, declare=False))(handler)

    @property
    def proxied_url(self) -> str:
        return self._server.url_through(self.proxy.address)

    @property
    def port(self) -> int:
        return URL(self.url).port or 5672

    async def _read(self) -> list[Received]:
        return [as_received(message) for message in await self._mailbox.messages(0)]


class ExchangeBox(QueueBox):
    kind = "rabbit-exchange"
    is_main = False

    @classmethod
    @asynccontextmanager
    async def _mailbox_on(cls, server: RabbitServer, name: str) -> AsyncIterator[Mailbox]:
        async with await aio_pika.connect(server.url) as connection, connection.channel() as channel:
            await channel.declare_exchange(name, "topic", durable=True)
        async with Mailbox.open(server.url, name, exchange=name, routing_key="orders.*") as mailbox:
            yield mailbox
        async with await aio_pika.connect(server.url) as connection, connection.channel() as channel:
            await channel.exchange_delete(name)

    def _address_of(self, word: str) -> str:
        return f"refunds.{word}"

    def _mailbox_at(self, address: str) -> AbstractAsyncContextManager[Mailbox]:
        return Mailbox.open(self.url, f"{self.name}-{address}", exchange=self.name, routing_key=address)

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        exchange = RabbitExchange(name, type=ExchangeType.TOPIC)
        return RabbitBroker(url, logger=None, **options).publisher(exchange=exchange, routing_key="orders.created")


def as_received(message: aio_pika.abc.AbstractIncomingMessage) -> Received:
    headers = {name: str(value) for name, value in message.headers.items()}
    assert message.message_id == headers.get("idempotency-key", message.message_id)
    return Received(0, headers.pop("outbox-key", None), message.body, headers)
