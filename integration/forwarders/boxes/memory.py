"""A topic of FastStream's `TestKafkaBroker`, for the destination in memory of `TestOutboxBroker`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
from faststream import Context
from faststream.kafka import KafkaBroker

from .base import Box, Received
from .kafka import as_received


class MemoryBox(Box):
    kind = "memory"
    is_server = False
    key_is_header = False
    adds_headers = frozenset({"content-type"})

    def __init__(self, broker: KafkaBroker, name: str) -> None:
        super().__init__("", name)
        self.broker = broker
        self._messages: list[Received] = []

        @broker.subscriber(name)
        async def receive(body: Any, message: Any = Context()) -> None:
            self._messages.append(as_received(message.raw_message))

    @classmethod
    @asynccontextmanager
    async def open(cls, request: pytest.FixtureRequest) -> AsyncIterator[Self]:
        broker = KafkaBroker("nowhere.invalid", acks="all", logger=None)
        yield cls(broker, "orders.v1")

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        raise NotImplementedError

    def publisher(self, **options: Any) -> Any:
        return self.broker.publisher(self.name)

    async def _read(self) -> list[Received]:
        return list(self._messages)
