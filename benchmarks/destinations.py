"""Destinations of relays as a plain client sees them: how many messages there are, and which."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import aio_pika
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from benchmarks.servers import Servers
from integration.destinations.rabbit import QueueBox
from integration.servers.rabbitmq import RabbitServer
from integration.servers.topics import read_topic

PARTITIONS = 6
PAGE = 5000


class Destination(Protocol):
    """Where one relay sends."""

    kind: str
    address: str
    name: str

    async def count(self) -> int:
        """Tell how many messages have arrived; cheap enough to be asked all the time."""

    async def bodies(self) -> list[dict[str, Any]]:
        """Read all messages; those of one key stand in the order in which they arrived."""


class KafkaTopic:
    """A topic of six partitions."""

    kind = "kafka"

    def __init__(self, address: str, name: str, consumer: AIOKafkaConsumer) -> None:
        self.address = address
        self.name = name
        self._consumer = consumer
        self._partitions = [TopicPartition(name, number) for number in range(PARTITIONS)]

    @classmethod
    @asynccontextmanager
    async def create(cls, servers: Servers) -> AsyncIterator["KafkaTopic"]:
        address = servers.kafka.bootstrap
        with servers.kafka.topic(PARTITIONS) as name:
            async with AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False) as consumer:
                yield cls(address, name, consumer)

    async def count(self) -> int:
        return sum((await self._consumer.end_offsets(self._partitions)).values())

    async def bodies(self) -> list[dict[str, Any]]:
        records = await read_topic(self.address, self.name, await self.count(), timeout=60)
        return [json.loads(record.value or b"") for record in records]


class RabbitQueue:
    """A durable queue."""

    kind = "rabbit"

    def __init__(self, mailbox: QueueBox, channel: Any) -> None:
        self.address = mailbox.url
        self.name = mailbox.name
        self._mailbox = mailbox
        self._channel = channel

    @classmethod
    @asynccontextmanager
    async def create(cls, servers: Servers) -> AsyncIterator["RabbitQueue"]:
        async with (
            QueueBox.declared(servers.rabbit, RabbitServer.new_name()) as mailbox,
            await aio_pika.connect(servers.rabbit.url) as connection,
            connection.channel() as channel,
        ):
            yield cls(mailbox, channel)

    async def count(self) -> int:
        queue = await self._channel.declare_queue(self.name, passive=True)
        return queue.declaration_result.message_count or 0

    async def bodies(self) -> list[dict[str, Any]]:
        messages = await self._mailbox.messages(await self.count(), timeout=60)
        return [json.loads(message.body) for message in messages]


class RedisStream:
    """A stream, in FastStream's envelope."""

    kind = "redis"

    def __init__(self, address: str, name: str, client: Redis) -> None:
        self.address = address
        self.name = name
        self._client = client

    @classmethod
    @asynccontextmanager
    async def create(cls, servers: Servers) -> AsyncIterator["RedisStream"]:
        with servers.redis.key() as name:
            async with servers.redis.client() as client:
                yield cls(servers.redis.url, name, client)

    async def count(self) -> int:
        return int(await self._client.xlen(self.name))

    async def bodies(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = "-"
        while page := await self._client.xrange(self.name, min=after, count=PAGE):
            found += [json.loads(_payload(fields[b"__data__"])) for _, fields in page]
            after = f"({page[-1][0].decode()}"
        return found


def _payload(envelope: bytes) -> bytes:
    # Bytes 14 to 17 of the envelope tell where the payload begins.
    return envelope[int.from_bytes(envelope[14:18], "big") :]


Create = Callable[[Servers], AbstractAsyncContextManager[Destination]]

DESTINATIONS: dict[str, Create] = {
    "kafka": KafkaTopic.create,
    "rabbit": RabbitQueue.create,
    "redis": RedisStream.create,
}
