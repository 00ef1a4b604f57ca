"""What has arrived, read by plain clients: everything that a topic, a queue or a stream holds.

Once the outbox is empty, everything has been acknowledged and can be read at once.
"""

from typing import Protocol

from aio_pika.abc import AbstractIncomingMessage
from faststream.redis.parser import BinaryMessageFormatV1

from integration.servers.queues import Mailbox
from integration.servers.redis import RedisServer
from integration.servers.topics import Record, read_topic

from .ledger import Copy

SECONDS_TO_READ = 600.0
"""The test's own time limit comes first; a million records take a while."""
IDENTITY = "idempotency-key"


class Arrivals(Protocol):
    """One address of one server."""

    async def copies(self) -> list[Copy]:
        """All copies there are, those of a place in their order."""


class TopicArrivals:
    """A Kafka topic, through aiokafka's consumer."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.bootstrap = bootstrap
        self.name = topic

    async def copies(self) -> list[Copy]:
        return [_of_record(record) for record in await read_topic(self.bootstrap, self.name, 0, SECONDS_TO_READ)]


class QueueArrivals:
    """A RabbitMQ queue, through aio-pika. What was read once is kept here and gone there."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self.name = mailbox.name

    async def copies(self) -> list[Copy]:
        return [_of_delivery(message) for message in await self._mailbox.messages(0, SECONDS_TO_READ)]


class StreamArrivals:
    """A Redis stream, through redis-py."""

    def __init__(self, server: RedisServer, stream: str) -> None:
        self._server = server
        self.name = stream

    async def copies(self) -> list[Copy]:
        async with self._server.client() as client:
            return [_of_envelope(fields[b"__data__"]) for _, fields in await client.xrange(self.name)]


def _of_record(record: Record) -> Copy:
    headers = {name: value.decode() for name, value in record.headers}
    key = None if record.key is None else record.key.decode()
    return Copy(headers[IDENTITY], key, record.value or b"", str(record.partition), headers)


def _of_delivery(message: AbstractIncomingMessage) -> Copy:
    headers = {
        name: value.decode() if isinstance(value, bytes) else str(value) for name, value in message.headers.items()
    }
    return Copy(headers[IDENTITY], headers.get("outbox-key"), message.body, "", headers)


def _of_envelope(envelope: bytes) -> Copy:
    body, headers = BinaryMessageFormatV1.parse(envelope)
    return Copy(headers[IDENTITY], headers.get("outbox-key"), body, "", headers)
