"""Tests of applications without a database."""

from collections.abc import Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, NamedTuple

from typing_extensions import override

from faststream_outbox._faststream import EnterType, TestBroker, broker_of, is_connected
from faststream_outbox._store.memory import MemoryStore
from faststream_outbox._store.protocol import Store, Writer
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import wire_headers
from faststream_outbox.broker.broker import OutboxBroker
from faststream_outbox.message import Delivery
from faststream_outbox.publisher.usecase import OutboxPublisher
from faststream_outbox.subscriber.factory import create_subscriber
from faststream_outbox.subscriber.usecase import OutboxSubscriber

__all__ = ("TestOutboxBroker",)


# Not registered with ``broker=OutboxBroker``: FastStream would offer "try it out" on the AsyncAPI page, which puts the
# live broker into test mode for a moment, and what other requests publish in that moment would be lost.
class TestOutboxBroker(TestBroker[OutboxBroker, EnterType]):
    """Runs an ``OutboxBroker`` on memory instead of PostgreSQL.

    ``publish`` checks and encodes its arguments as ever, ignores the session, and runs the subscriber's handler before
    it returns; what the handler raises, it raises. Delayed messages wait in ``store`` until ``deliver_all``. A
    forwarder's messages go to its destination while that is connected, as inside of FastStream's ``TestKafkaBroker``.

    Args:
        *brokers: The brokers to test.
        run_loops: Run the real loops on the store in memory: claims, leases, retries and dead letters as in production.
        with_real: Use the real database, and only record what handlers receive.
        connect_only: FastStream's switch for use inside of its ``TestApp``. Default: found out.

    Example::

        async with TestOutboxBroker(broker):
            await broker.publish({"id": 1}, queue="orders", session=None)
            handle.mock.assert_called_once_with({"id": 1})
    """

    __test__ = False

    def __init__(
        self,
        *brokers: OutboxBroker,
        run_loops: bool = False,
        with_real: bool = False,
        connect_only: bool | None = None,
    ) -> None:
        super().__init__(*brokers, with_real=with_real or run_loops, connect_only=connect_only)
        self._in_memory = not with_real
        self._run_loops = run_loops
        self._replaced: list[_Replaced] = []
        self.store = MemoryStore()
        """The rows of this test: ``store.rows`` are alive, ``store.dead_letters`` failed for good."""

    async def __aenter__(self) -> EnterType:
        if self._in_memory:
            for broker in self.brokers:
                self._replace(broker)
        try:
            return await super().__aenter__()
        except BaseException:
            self._restore()
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc_val, exc_tb)
        finally:
            self._restore()

    async def deliver_all(self) -> None:
        """Run the handlers for all rows that wait, delayed ones included, in the order of their ids."""
        for row in self.store.rows:
            await _Direct(self.store, self.brokers).deliver(row)

    def _replace(self, broker: OutboxBroker) -> None:
        producer: Any = broker.config.producer
        self._replaced.append(_Replaced(broker, broker._store, producer.writer, producer._begin))
        broker._store = self.store
        producer.writer = self.store if self._run_loops else _Direct(self.store, self.brokers)
        producer._begin = _no_transaction

    def _restore(self) -> None:
        while self._replaced:
            broker, store, writer, begin = self._replaced.pop()
            producer: Any = broker.config.producer
            broker._store, producer.writer, producer._begin = store, writer, begin

    @contextmanager
    def _patch_producer(self, broker: OutboxBroker) -> Generator[None, None, None]:
        # The real producer stays, so that bad input is refused as ever; only its writer is another.
        yield

    @override
    async def _fake_connect(self, broker: OutboxBroker, *args: Any, **kwargs: Any) -> Any:
        return broker.engine

    @override
    def create_publisher_fake_subscriber(
        self,
        broker: OutboxBroker,
        publisher: OutboxPublisher,
    ) -> tuple[OutboxSubscriber, bool]:
        for subscriber in _subscribers(self.brokers):
            if publisher.queue in subscriber.queues:
                return subscriber, True
        fake = create_subscriber(publisher.queue, config=broker.config)
        broker._subscribers.add(fake)
        return fake, False


class _Replaced(NamedTuple):
    broker: OutboxBroker
    store: Store
    writer: Writer
    begin: Any


class _Direct:
    """A writer that hands each message to its consumer before it returns."""

    def __init__(self, store: MemoryStore, brokers: Sequence[OutboxBroker]) -> None:
        self._store = store
        self._brokers = brokers

    async def insert(self, session: Any, draft: Draft) -> int | None:
        row_id = self._store.insert_sync(None, draft)
        if row_id is not None:
            await self._deliver_if_ready([row_id])
        return row_id

    def insert_sync(self, session: Any, draft: Draft) -> int | None:
        # Nothing can be awaited here: the row waits for ``deliver_all``.
        return self._store.insert_sync(None, draft)

    async def insert_many(self, session: Any, drafts: Sequence[Draft]) -> list[int]:
        ids = await self._store.insert_many(None, drafts)
        await self._deliver_if_ready(ids)
        return ids

    async def cancel_timer(self, session: Any, *, queue: str, timer_id: str) -> bool:
        return await self._store.cancel_timer(session, queue=queue, timer_id=timer_id)

    async def fetch_unprocessed(self, session: Any, *, queue: str | None, limit: int) -> list[OutboxRow]:
        return await self._store.fetch_unprocessed(session, queue=queue, limit=limit)

    async def _deliver_if_ready(self, ids: Sequence[int]) -> None:
        for row in self._store.ready_among(ids):
            await self.deliver(row)

    async def deliver(self, row: OutboxRow) -> None:
        """Give a row to its consumer; without one, it is kept."""
        for subscriber in _subscribers(self._brokers):
            if row.queue in subscriber.queues:
                self._store.forget(row.id)
                await subscriber.process_message(Delivery(row))
                return
        for broker in self._brokers:
            for forwarder in broker.forwarders:
                if row.queue in forwarder.queues and is_connected(broker_of(forwarder.to)):
                    self._store.forget(row.id)
                    await _forward(row, forwarder.to)
                    return


async def _forward(row: OutboxRow, publisher: Any) -> None:
    key = {} if row.key is None else {"key": row.key.encode()}
    await publisher.publish(row.payload, headers=wire_headers(row), **key)


def _subscribers(brokers: Sequence[OutboxBroker]) -> list[OutboxSubscriber]:
    return [
        subscriber
        for broker in brokers
        for subscriber in broker.subscribers
        if isinstance(subscriber, OutboxSubscriber)
    ]


@asynccontextmanager
async def _no_transaction() -> Any:
    yield None
