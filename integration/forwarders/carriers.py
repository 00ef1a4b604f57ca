"""From a table to a box: on PostgreSQL as in production, or in memory as in the tests of applications."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from faststream.kafka import TestKafkaBroker

from faststream_outbox import OutboxBroker, Outgoing, TestOutboxBroker
from integration.broker.observing import Table, eventually
from integration.destinations.base import Box
from integration.destinations.memory import MemoryBox

from .carrying import Publishing

IN_MEMORY: Any = None
"""Nothing is written to a database."""


class Carrier(Protocol):
    """A forwarder, what is published for it, and what is left."""

    async def forward(self, queues: Sequence[str], **options: Any) -> None:
        """Declare a forwarder to the box; nothing goes there yet."""

    async def publish(self, messages: Sequence[Outgoing], *, queue: str = "orders") -> list[int]:
        """Publish, and give the ids of the rows."""

    async def publish_one(self, body: Any, **options: Any) -> int | None:
        """Publish one message with all that can be said of it."""

    async def rows(self) -> Sequence[Any]:
        """What is in the table."""

    async def go(self) -> None:
        """Let rows flow."""

    async def drained(self) -> None:
        """Wait until the table is empty."""


class TableCarrier:
    """On PostgreSQL."""

    def __init__(self, make_broker: Any, publishing: Publishing, table: Table, box: Box) -> None:
        self._make_broker = make_broker
        self._publishing = publishing
        self._table = table
        self._box = box
        self._brokers: list[OutboxBroker] = []

    async def forward(self, queues: Sequence[str], **options: Any) -> None:
        broker = self._make_broker()
        broker.forwarder(queues, to=self._box.publisher(), **options)
        self._brokers.append(broker)

    async def publish(self, messages: Sequence[Outgoing], *, queue: str = "orders") -> list[int]:
        return await self._publishing.many(messages, queue=queue)

    async def publish_one(self, body: Any, **options: Any) -> int | None:
        return await self._publishing.one(body, **options)

    async def rows(self) -> Sequence[Any]:
        return await self._table.rows()

    async def go(self) -> None:
        for broker in self._brokers:
            await broker.start()

    async def drained(self) -> None:
        await eventually(self._table.is_empty, within=20)


class MemoryCarrier:
    """On a store in memory, with the real loops. Until ``go``, the destination is down."""

    def __init__(self, broker: OutboxBroker, box: MemoryBox, stack: AsyncExitStack) -> None:
        self._broker = broker
        self._tester = TestOutboxBroker(broker, run_loops=True)
        self._box = box
        self._stack = stack

    async def forward(self, queues: Sequence[str], **options: Any) -> None:
        self._broker.forwarder(queues, to=self._box.publisher(), **options)
        await self._stack.enter_async_context(self._tester)

    async def publish(self, messages: Sequence[Outgoing], *, queue: str = "orders") -> list[int]:
        return await self._broker.publish_batch(*messages, queue=queue, session=IN_MEMORY)

    async def publish_one(self, body: Any, **options: Any) -> int | None:
        return await self._broker.publish(body, **{"queue": "orders"} | options, session=IN_MEMORY)

    async def rows(self) -> Sequence[Any]:
        return list(self._tester.store.rows)

    async def go(self) -> None:
        await self._stack.enter_async_context(TestKafkaBroker(self._box.broker))

    async def drained(self) -> None:
        await eventually(lambda: not self._tester.store.rows, within=10)
