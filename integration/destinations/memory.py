"""A topic of FastStream's `TestKafkaBroker`, for the destination in memory of `TestOutboxBroker`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from faststream import Context
from faststream.kafka import KafkaBroker

from .base import Box
from .kafka import as_received
from .received import Received


class MemoryBox(Box):
    kind = "memory"
    server_fixture = None
    is_server = False
    adds_headers = frozenset({"content-type"})

    def __init__(self, broker: KafkaBroker, name: str) -> None:
        super().__init__(None, name)
        self.broker = broker
        self._messages: list[Received] = []

        @broker.subscriber(name)
        async def receive(body: Any, message: Any = Context()) -> None:
            arrived = as_received(message.raw_message)
            # The test broker makes an empty key of none.
            self._messages.append(arrived._replace(key=arrived.key or None))

    @classmethod
    @asynccontextmanager
    async def open(cls, server: None) -> AsyncIterator[Self]:
        broker = KafkaBroker("nowhere.invalid", acks="all", logger=None)
        yield cls(broker, "orders.v1")

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        raise NotImplementedError

    def publisher(self, **options: Any) -> Any:
        return self.broker.publisher(self.name)

    async def read(self) -> list[Received]:
        return list(self._messages)
