"""A Kafka topic."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self

from faststream.kafka import KafkaBroker

from integration.faults.proxy import TcpProxy
from integration.servers.kafka import KafkaServer, OwnKafka
from integration.servers.process import LOOPBACK
from integration.servers.topics import Record, create_topic, delete_topic, read_topic

from .base import SECONDS_TO_READ, Box, Shut
from .received import Received

LIMIT = 60_000


class KafkaBox(Box):
    kind = "kafka"
    server_fixture = "kafka_server"
    can_refuse = True
    can_be_shut = True
    too_large = b"x" * (LIMIT + 10_000)
    patient: ClassVar[dict[str, Any]] = {"request_timeout_ms": 60_000}

    @classmethod
    @asynccontextmanager
    async def open(cls, server: KafkaServer, *, is_limited: bool = True) -> AsyncIterator[Self]:
        """Return a topic that takes no message beyond `LIMIT`, or as large a message as Kafka takes by default."""
        with server.topic(6, **({"max_message_bytes": str(LIMIT)} if is_limited else {})) as name:
            if not isinstance(server, OwnKafka):
                # Its clients would go around a proxy.
                yield cls(server, name)
                return
            async with TcpProxy(LOOPBACK, server.proxied_port, port=server.proxy_port) as proxy:
                yield cls(server, name, proxy)

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        return KafkaBroker(url.split(","), acks="all", logger=None, **options).publisher(name)

    @property
    def url(self) -> str:
        return str(self.server.bootstrap)

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Self]:
        name = f"{self.name}-beside"
        await create_topic(self.url, name, 3)
        try:
            yield type(self)(self.server, name)
        finally:
            await delete_topic(self.url, name)

    def subscribe(self, broker: KafkaBroker, handler: Callable[..., Any]) -> None:
        broker.subscriber(self.name, auto_offset_reset="earliest")(handler)

    @asynccontextmanager
    async def shut(self) -> AsyncIterator[Shut]:
        name = f"{self.name}-shut"

        async def open_it() -> Box:
            await create_topic(self.url, name, 3)
            return type(self)(self.server, name)

        try:
            yield Shut(name, open_it)
        finally:
            await delete_topic(self.url, name)

    def options_that_refuse(self, key: str, times: int) -> dict[str, Any]:
        left = [times]

        def partitioner(its_key: bytes, partitions: list[int], available: list[int]) -> int:
            if its_key == key.encode() and left[0]:
                left[0] -= 1
                raise ValueError("no partition for this key yet")
            return partitions[0]

        return {"partitioner": partitioner}

    async def read(self) -> list[Received]:
        return [as_received(record) for record in await read_topic(self.url, self.name, 0, SECONDS_TO_READ)]

    async def records(self, expected: int) -> list[Record]:
        """All records there are, once they are as many as expected, with what records alone have."""
        return await read_topic(self.url, self.name, expected)


def as_received(record: Record) -> Received:
    headers = {name: value.decode() for name, value in record.headers}
    assert len(headers) == len(record.headers), "a header twice"
    key = None if record.key is None else record.key.decode()
    return Received(record.partition, key, record.value or b"", headers)
