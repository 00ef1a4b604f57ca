"""One connection to RabbitMQ with one channel: confirmed publishing, and an end that lets nothing through."""

import asyncio
import contextlib
import secrets
from typing import Any

from aiormq.exceptions import (
    AMQPChannelError,
    AMQPError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)
from faststream.rabbit import RabbitExchange

from faststream_outbox.forwarders.rabbit.connection import Connection, OpeningRefusedError
from faststream_outbox.forwarders.rabbit.properties import Properties
from faststream_outbox.forwarders.rabbit.settings import RabbitSettings
from faststream_outbox.forwarders.rabbit.transport import Transport
from faststream_outbox.forwarders.rabbit.verdicts import BlockedError

PROBE_SECONDS = 2.0
CLOSE_SECONDS = 1.0
SMALL_BODY_BYTES = 16 * 1024
"""What is larger waits until the socket has room for it: bodies that queue up behind it would fill the memory."""


class RabbitClient:
    """Publishes to one exchange. Made by ``open``; after ``close`` nothing more is sent."""

    def __init__(self, settings: RabbitSettings) -> None:
        self._settings = settings
        self._transport = Transport()
        self._connection = Connection(settings.url, context=settings.ssl_context, transport_factory=self._transport)
        self._channel: Any = None
        self._probing: asyncio.Task[None] | None = None
        self._unanswered = 0

    @classmethod
    async def open(cls, settings: RabbitSettings) -> "RabbitClient":
        """Connect and declare the exchange; leaves nothing open when it fails.

        Raises:
            ConnectionError: No server answers, or it lets us not in.
            AMQPChannelError: The exchange is missing, or is another than declared.
        """
        client = cls(settings)
        try:
            async with asyncio.timeout(settings.connect_timeout):
                await client._open()
        except AMQPChannelError:
            await client.close()
            raise
        except OSError as error:
            await client._abandon()
            # aiormq has many names for a connection that is not there; one keeps the log to one line.
            reason = str(error) if isinstance(error, OpeningRefusedError) else repr(error)
            msg = f"cannot connect to {settings.url.with_password('***')}: {reason}"
            raise ConnectionError(msg) from error
        except BaseException:
            await client._abandon()
            raise
        return client

    async def _open(self) -> None:
        await self._transport.open(self._connection)
        await self._connection.connect()
        self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        await self._declare(self._settings.exchange)

    async def _declare(self, exchange: RabbitExchange) -> None:
        """Declare what FastStream's publishers declare before they publish."""
        if not exchange.name:
            return
        await self._channel.exchange_declare(
            exchange.name,
            exchange_type=exchange.type.value,
            durable=exchange.durable,
            auto_delete=exchange.auto_delete,
            passive=not exchange.declare,
            arguments=exchange.arguments,
        )
        if exchange.bind_to is not None:
            await self._declare(exchange.bind_to)
            await self._channel.exchange_bind(
                destination=exchange.name,
                source=exchange.bind_to.name,
                routing_key=exchange.routing(),
                arguments=exchange.bind_arguments,
            )

    @property
    def is_alive(self) -> bool:
        """Whether it can be used, as far as that shows on this side."""
        return self._channel is not None and not self._channel.is_closed and not self._connection.is_closed

    @property
    def has_unanswered(self) -> bool:
        """Whether a message was given up before its answer came."""
        return self._unanswered > 0

    @property
    def max_frame_size(self) -> int:
        """Bytes of the largest frame that the server takes; 0: no limit."""
        return int(self._connection.connection_tune.frame_max)

    async def is_blocked(self) -> bool:
        """Return whether RabbitMQ has said that it does not read from this connection now."""
        try:
            async with asyncio.timeout(0):
                await self._connection.ready()
        except TimeoutError:
            return True
        return False

    async def probe(self) -> None:
        """Find out whether there is an alarm, which RabbitMQ tells those only who publish.

        The probe names a queue that does not exist, on the default exchange: without an alarm it comes back at once. It
        has a body, since RabbitMQ blocks when it has read the headers: an empty message would be through by then.

        Raises:
            BlockedError: There is one. The probe stays on its way, and the next call waits for the same one.
        """
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe(), name="outbox-rabbit-probe")
        await asyncio.wait([self._probing], timeout=PROBE_SECONDS)
        if not self._probing.done():
            raise BlockedError
        probing, self._probing = self._probing, None
        probing.result()

    async def _probe(self) -> None:
        channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        # It comes back. Or this user may not write to the default exchange, and the next hand-over will tell.
        with contextlib.suppress(PublishError, ChannelAccessRefused):
            routing_key = f"outbox-probe-{secrets.token_hex(8)}"
            await channel.basic_publish(b"probe", routing_key=routing_key, mandatory=True)

    async def publish(self, body: bytes, properties: Properties, routing_key: str | None = None) -> None:
        """Send a message; returns when RabbitMQ has confirmed that at least one queue has it.

        Args:
            body: Of the message.
            properties: Of the message.
            routing_key: Another than the publisher's.

        Raises:
            DeliveryError: It was returned or refused.
            Exception: It is not known whether a queue has it.
        """
        self._unanswered += 1
        try:
            await self._channel.basic_publish(
                body,
                exchange=self._settings.exchange.name,
                routing_key=self._settings.routing_key if routing_key is None else routing_key,
                properties=properties,
                mandatory=True,
                wait=len(body) > SMALL_BODY_BYTES,
            )
        except DeliveryError:
            self._unanswered -= 1
            raise
        self._unanswered -= 1

    async def is_node_down(self, queue: str) -> bool:
        """Return whether a durable queue exists and its node is down; False where that cannot be asked.

        RabbitMQ before 4.0 then returns messages as if there were no such queue.
        """
        channel = await self._connection.channel(publisher_confirms=False)
        try:
            await channel.queue_declare(queue, passive=True)
        except ChannelNotFoundEntity as error:
            return "home node" in str(error)
        except AMQPChannelError:
            return False
        await channel.close()
        return False

    async def close(self) -> None:
        """Close in order, or reset the connection, so that nothing of it is on its way any more."""
        # What is on its way to a channel that RabbitMQ has closed is void.
        if self.has_unanswered and self.is_alive:
            self._transport.cut()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        # aiormq would let its waiters see a cancellation that nobody has asked for.
        reason = ConnectionError("the connection was closed")
        with contextlib.suppress(TimeoutError, AMQPError, OSError, RuntimeError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._connection.close(reason)
        self._transport.cut()

    async def _abandon(self) -> None:
        """Reset the connection: it may not even be open yet."""
        self._transport.cut()
        await self.close()
