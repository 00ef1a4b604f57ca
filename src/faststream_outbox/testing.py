"""Tests of applications without a database."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self, overload
from unittest import mock

from typing_extensions import override

from faststream_outbox._faststream import broker_of, is_connected
from faststream_outbox._faststream.testing import EnterType, TestBroker
from faststream_outbox._store.entries import Entry
from faststream_outbox._store.memory.entries import MemoryEntries
from faststream_outbox._store.memory.storage import MemoryStorage
from faststream_outbox._store.memory.store import MemoryStore
from faststream_outbox._store.protocol import Writer
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.outcome import Accepted, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.staged import Noted, StagedMessage
from faststream_outbox.broker.broker import OutboxBroker
from faststream_outbox.broker_config import OutboxBrokerConfig
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.any_broker.caller import PublisherCaller
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from faststream_outbox.inbox.inbox import Inbox
from faststream_outbox.message import Delivery
from faststream_outbox.publisher.usecase import OutboxPublisher
from faststream_outbox.subscriber.factory import create_subscriber
from faststream_outbox.subscriber.usecase import OutboxSubscriber

__all__ = ("TestInbox", "TestOutboxBroker")


class TestInbox:
    """Puts memory in the place of the tables of all inboxes, as long as the context lasts.

    For handlers of other brokers, together with FastStream's own test broker; ``TestOutboxBroker`` does the same by
    itself. Sessions are ignored. There are no transactions: a delivery that FastStream has nacked or rejected takes its
    entry back, and of two copies at the same time the second one is a repeat at once.

    Example::

        with TestInbox() as test:
            async with TestKafkaBroker(kafka):
                for _ in range(2):
                    await kafka.publish({"order_id": 1}, "invoices.v1", headers={"idempotency-key": "1"})
            assert len(test.entries) == 1
    """

    __test__ = False

    def __init__(self) -> None:
        self._memory = MemoryEntries()
        self._patches = ExitStack()

    @property
    def entries(self) -> list[Entry]:
        """What is accepted, in the order of acceptance: consumer, queue, idempotency key."""
        return self._memory.entries

    def __enter__(self) -> Self:
        self._patches.enter_context(_replaced(Inbox, "in_memory", by=self._memory))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self._patches.close()


class TestOutboxBroker(TestBroker[OutboxBroker, EnterType]):
    """Runs an ``OutboxBroker`` on memory instead of PostgreSQL.

    ``publish`` checks and encodes its arguments as ever, ignores the session, and runs the subscriber's handler before
    it returns; what the handler raises, it raises. What is delayed, and what ``publish_sync`` and ``stage`` write at
    once, waits in ``store`` until ``deliver_all``. A forwarder's messages go to its destination while that is
    connected, as inside of FastStream's ``TestKafkaBroker``; until then they wait in ``store``.

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

    @overload
    def __init__(
        self: "TestOutboxBroker[OutboxBroker]",
        broker: OutboxBroker,
        /,
        *,
        run_loops: bool = False,
        with_real: bool = False,
        connect_only: bool | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self: "TestOutboxBroker[tuple[OutboxBroker, ...]]",
        *brokers: OutboxBroker,
        run_loops: bool = False,
        with_real: bool = False,
        connect_only: bool | None = None,
    ) -> None: ...

    def __init__(
        self,
        *brokers: OutboxBroker,
        run_loops: bool = False,
        with_real: bool = False,
        connect_only: bool | None = None,
    ) -> None:
        if run_loops and with_real:
            msg = "run_loops: with_real=True runs the loops already, on the real database"
            raise ConfigError(msg)
        super().__init__(*brokers, with_real=with_real or run_loops, connect_only=connect_only)
        self._in_memory = not with_real
        self._run_loops = run_loops
        self.store = MemoryStore()
        """The rows of this test: ``store.rows`` are alive, ``store.dead_letters`` failed for good."""

    async def __aenter__(self) -> EnterType:
        with ExitStack() as stack:
            for broker in self.brokers:
                stack.enter_context(_replaced(broker.config.broker_config, "is_in_test", by=True))
            if self._in_memory:
                for broker in self.brokers:
                    stack.enter_context(self._on_memory(broker))
                if Inbox.in_memory is None:
                    stack.enter_context(TestInbox())
            if self._run_loops:
                # Test brokers have no client to send through.
                for broker in self.brokers:
                    stack.enter_context(
                        _replaced(broker.config.broker_config, "destination_of", by=self._destination_of)
                    )
            entered = await super().__aenter__()
            self._restore = stack.pop_all()
        return entered

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        with self._restore:
            await super().__aexit__(exc_type, exc_val, exc_tb)

    async def deliver_all(self) -> None:
        """Run the handlers for all rows that wait, delayed ones included, in the order of their ids.

        Raises:
            ConfigError: The loops run, and deliver by themselves what is due.
        """
        if self._run_loops or not self._in_memory:
            msg = "deliver_all: with run_loops or with_real, the loops deliver what is due"
            raise ConfigError(msg)
        for row in self.store.rows:
            # An earlier one's handler may have cancelled it.
            if row in self.store.rows:
                await self._deliver(row)

    def _on_memory(self, broker: OutboxBroker) -> AbstractContextManager[None]:
        config: OutboxBrokerConfig = broker.config.broker_config
        assert config.storage is not None  # noqa: S101 - that of a broker
        writer: Writer = self.store if self._run_loops else _Direct(self.store, self._deliver)
        storage = MemoryStorage(store=self.store, writer=writer, real=config.storage)
        return _replaced(config, "storage", by=storage)

    def _destination_of(self, publisher: Any) -> "_TestDestination":
        return _TestDestination(publisher, self._forward)

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
        fake.is_fake = True
        if all(publisher.queue not in forwarder.taken_queues for forwarder in _forwarders(self.brokers)):
            broker._subscribers.add(fake)
        return fake, False

    @override
    def _fake_start(self, broker: OutboxBroker, *args: Any, **kwargs: Any) -> None:
        super()._fake_start(broker, *args, **kwargs)
        for fake in self._fake_subscribers:
            # The broker has made the others ready.
            if fake not in broker.subscribers:
                fake._build_fastdepends_model()

    async def _deliver(self, row: OutboxRow) -> None:
        """Deliver a row to its consumer; keep it if there is none."""
        for subscriber in _subscribers(self.brokers):
            if row.queue in subscriber.queues:
                self.store.forget(row.id)
                await subscriber.process_message(Delivery(row))
                return
        for forwarder in _forwarders(self.brokers):
            if row.queue in forwarder.taken_queues and _is_up(forwarder.to) and not forwarder.is_paused:
                prepared = forwarder.prepare(row)
                if isinstance(prepared, Refused):
                    raise prepared.exception
                self.store.forget(row.id)
                if isinstance(prepared, Parcel):
                    await self._forward(prepared, forwarder.to)
                return

    async def _forward(self, parcel: Parcel, publisher: Any) -> None:
        await PublisherCaller(publisher).publish(parcel)
        row = parcel.row
        # For the mocks of our own publishers to the queue.
        for fake in self._fake_subscribers:
            if isinstance(fake, OutboxSubscriber) and row.queue in fake.queues:
                await fake.process_message(Delivery(row))


class _Direct:
    """A writer that has each message delivered before it returns."""

    def __init__(self, store: MemoryStore, deliver: Callable[[OutboxRow], Awaitable[None]]) -> None:
        self._store = store
        self._deliver = deliver

    async def insert(self, session: Any, draft: Draft) -> int | None:
        ids = await self.insert_many(session, [draft])
        return ids[0] if ids else None

    def insert_sync(self, session: Any, draft: Draft) -> int | None:
        # Nothing can be awaited here: the row waits for ``deliver_all``.
        return self._store.insert_sync(None, draft)

    def stage(self, session: Any, draft: Draft, message: StagedMessage, noted: Noted) -> None:
        self._store.stage(None, draft, message, noted)

    async def insert_alone(self, draft: Draft) -> int | None:
        return await self.insert(None, draft)

    async def insert_many(self, session: Any, drafts: Sequence[Draft]) -> list[int]:
        written = self._store.write(None, drafts)
        await self._deliver_if_ready([row.id for row in written])
        return [row.id for row in written if row.queue == drafts[0].queue]

    async def cancel_timer(self, session: Any, *, queue: str, timer_id: str, copies: Sequence[str] = ()) -> bool:
        return await self._store.cancel_timer(None, queue=queue, timer_id=timer_id, copies=copies)

    async def fetch_unprocessed(self, session: Any, *, queue: str | None, limit: int) -> list[OutboxRow]:
        return await self._store.fetch_unprocessed(None, queue=queue, limit=limit)

    async def _deliver_if_ready(self, ids: Sequence[int]) -> None:
        for row in self._store.ready_among(ids):
            await self._deliver(row)


class _TestDestination:
    """Sends row by row through a FastStream publisher, while its broker is connected."""

    def __init__(
        self,
        publisher: Any,
        forward: Callable[[Parcel, Any], Awaitable[None]],
    ) -> None:
        self._publisher = publisher
        self._forward = forward

    @property
    def is_connected(self) -> bool:
        return _is_up(self._publisher)

    async def connect(self) -> None:
        if not self.is_connected:
            msg = "the test does not run the destination's broker"
            raise ConnectionError(msg)

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        verdicts: list[Verdict] = []
        for parcel in parcels:
            try:
                await self._forward(parcel, self._publisher)
            except Exception as error:  # noqa: BLE001 - what a consumer in the test raises
                return [*verdicts, *[Unsent(error)] * (len(parcels) - len(verdicts))]
            verdicts.append(Accepted())
        return verdicts

    def finish(self, grace: float) -> None:
        """Nothing takes long here."""

    async def close(self) -> None:
        """Nothing was opened."""


@contextmanager
def _replaced(owner: Any, name: str, *, by: Any) -> Generator[None, None, None]:
    """Set an attribute to another value as long as the context lasts."""
    before = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _is_up(publisher: Any) -> bool:
    broker = broker_of(publisher)
    # Not every test broker of FastStream's puts a connection into its broker, but each puts a mock there to start it.
    return is_connected(broker) or isinstance(broker.start, mock.NonCallableMock)


def _subscribers(brokers: Sequence[OutboxBroker]) -> list[OutboxSubscriber]:
    subscribers = (subscriber for broker in brokers for subscriber in broker.subscribers)
    return [subscriber for subscriber in subscribers if isinstance(subscriber, OutboxSubscriber)]


def _forwarders(brokers: Sequence[OutboxBroker]) -> list[OutboxForwarder]:
    return [forwarder for broker in brokers for forwarder in broker.forwarders]
