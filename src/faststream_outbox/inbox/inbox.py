"""What a consumer asks whether it has handled a message before."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

from faststream.message import StreamMessage
from sqlalchemy import Connection, MetaData, Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from faststream_outbox._store.entries import Entries, Entry
from faststream_outbox._store.memory.entries import MemoryEntries
from faststream_outbox._store.postgres.entries import PostgresEntries
from faststream_outbox._values.texts import check_text
from faststream_outbox.checks import require_count
from faststream_outbox.exceptions import ConfigError, InvalidMessageError, SchemaError
from faststream_outbox.inbox.identity import MAX_BYTES, Identify, identify
from faststream_outbox.inbox.once import handle_once
from faststream_outbox.inbox.pruner import LONGEST_COPY, Pruner, check_span
from faststream_outbox.metrics.metrics import Metrics, check_metrics
from faststream_outbox.schema import make_inbox_table

DEFAULT_BATCH_SIZE = 1000

STOP_SECONDS = 3.0
"""How long a pass that is under way may take to end by itself."""

Handler = TypeVar("Handler", bound=Callable[..., Any])


class Inbox:
    """Remembers which messages a consumer has handled, in the transaction of the handler's own work.

    A copy that comes again, whatever broker brings it, is known by the outbox queue and the idempotency key that it
    carries. What comes from no outbox is known by its header ``idempotency-key``, or else by its own id: RabbitMQ's
    ``message_id``, the place of a record in Kafka, of an entry in a Redis stream, or of a message in JetStream.

    Args:
        inbox_table: Made by ``make_inbox_table``; in the database of the handler's sessions.
        consumer: Whose work is remembered: 1 to 255 bytes, the same in each process, another for each handler.
        identify: Names messages that come from no outbox, as ``lambda message: message.headers["ce-id"]`` does. None:
            by their own id.
        metrics: Where to count messages and repeats: the ``OutboxMetrics()`` that a broker has, or one alone.
            Default: nowhere.

    Raises:
        ConfigError: The table is not what its factory makes, the consumer has no such name, or these are no metrics.

    Example::

        inbox = Inbox(make_inbox_table(metadata), consumer="billing")

        @kafka.subscriber("invoices.v1", group_id="billing")
        @inbox.once
        async def book(body: dict, message: KafkaMessage, session: AsyncSession = Depends(get_session)) -> None:
            session.add(Booking(body["order_id"]))
    """

    in_memory: ClassVar[MemoryEntries | None] = None
    """What all inboxes of a process have in the place of their tables, while a test runs; see ``TestInbox``."""

    def __init__(
        self, inbox_table: Table, *, consumer: str, identify: Identify | None = None, metrics: Metrics | None = None
    ) -> None:
        _check_table(inbox_table)
        check_metrics(metrics)
        try:
            check_text("consumer", consumer, MAX_BYTES)
        except InvalidMessageError as error:
            raise ConfigError(str(error)) from None
        self._table = inbox_table
        self._consumer = consumer
        self._identify = identify
        self._in_database = PostgresEntries(inbox_table)
        self._handler: Callable[..., Any] | None = None
        self._accepted = 0
        self._repeated = 0
        self._note = None if metrics is None else metrics.inbox_meter(inbox_table.fullname, consumer)

    @property
    def consumer(self) -> str:
        """Whose work is remembered."""
        return self._consumer

    @property
    def accepted(self) -> int:
        """How many messages this process has accepted, those included whose transaction was rolled back."""
        return self._accepted

    @property
    def repeated(self) -> int:
        """How many copies have come to this process again, after their message was handled."""
        return self._repeated

    async def accept(
        self, session: AsyncSession | AsyncConnection | async_scoped_session[AsyncSession], message: StreamMessage[Any]
    ) -> bool:
        """Enter a message in the transaction of the work that it asks for; it never commits.

        Of copies that are handled at the same time, one is accepted and the others wait for its transaction: when it
        commits they are repeats, and when it is rolled back the next one is accepted. Above READ COMMITTED, PostgreSQL
        refuses those that have waited for a commit (SQLSTATE 40001); delivered again, they are repeats.

        Args:
            session: In which the handler does its work; not in AUTOCOMMIT.
            message: As FastStream gives it to the handler.

        Returns:
            True once for each message and consumer; False if it was handled before, and is to be skipped.

        Raises:
            InvalidSessionError: ``session`` cannot carry an entry; it is a ``TypeError``.
            NoIdentityError: Nothing in the message says whether another one is its repeat.
            NotWrittenError: A trigger or a rule has suppressed the entry.

        Example::

            async with session_factory() as session, session.begin():
                if await inbox.accept(session, message):
                    session.add(Booking(body["order_id"]))
        """
        return self._count(await self._entries.enter(session, self._entry(message), message))

    def accept_sync(self, session: Session | Connection | scoped_session[Session], message: StreamMessage[Any]) -> bool:
        """Accept a message as ``accept`` does, in a plain SQLAlchemy ``Session`` or ``Connection``."""
        return self._count(self._entries.enter_sync(session, self._entry(message), message))

    def once(self, handler: Handler) -> Handler:
        """Decorate a handler, so that repeats never reach it: they are acknowledged and counted.

        It stands next to the function, below FastStream's decorators. The handler has a parameter for its session and
        one for the message, which are found by their types; both may come from dependencies of any kind, and a plain
        function may have a plain ``Session``. The message is accepted in that session, before the handler runs.

        A handler must return nothing, or in a subscriber of an ``OutboxBroker`` an ``OutboxResponse`` with the same
        session. FastStream publishes any other result after the session has committed; a crash in between would lose
        it, since the next copy is a repeat.

        Args:
            handler: An ``async def`` or a plain function.

        Returns:
            The handler with the parameters that it had.

        Raises:
            ConfigError: Another handler has this inbox, and a message that comes to both would be lost to one; or
                FastStream has decorated the handler before. When it is called: it has not one session and one message,
                or returns what would be lost.

        Example::

            @broker.subscriber("payments")
            @inbox.once
            async def book(body: dict, message: OutboxMessage, session: Session = Depends(get_session)) -> None: ...
        """
        if self._handler is not None and self._handler is not handler:
            name = getattr(self._handler, "__name__", self._handler)
            msg = (
                f"consumer {self._consumer!r} has the handler {name!r} already; give each handler an Inbox with a "
                "consumer of its own, or a message that comes to both is lost to one of them"
            )
            raise ConfigError(msg)
        decorated = handle_once(self, handler)
        self._handler = handler
        return decorated

    async def prune(
        self,
        database: AsyncEngine | AsyncSession | AsyncConnection,
        *,
        older_than: timedelta,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> int:
        """Delete this consumer's entries that are older than any copy can be.

        Args:
            database: An engine: all of them go, in batches that are transactions of their own, with rests as long as
                the batches between them. A session: one batch, in its transaction.
            older_than: By the database's clock. A copy that comes later than this is handled again.
            batch_size: The most entries that are deleted at once.

        Returns:
            How many entries were deleted.

        Raises:
            ConfigError: ``older_than`` or ``batch_size`` is not a span or a number that makes sense.
            InvalidSessionError: ``database`` is no engine, and no session that can be used.
        """
        check_span("older_than", older_than)
        require_count("batch_size", batch_size)
        return await self._entries.prune(database, self._consumer, older_than=older_than, batch_size=batch_size)

    @asynccontextmanager
    async def pruning(
        self,
        engine: AsyncEngine,
        *,
        older_than: timedelta,
        every: timedelta = timedelta(hours=1),
        longest_copy: timedelta = LONGEST_COPY,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> AsyncIterator[None]:
        """Prune now and then, as long as the context lasts: an application's lifespan. Any number of processes may.

        Args:
            engine: For transactions of its own.
            older_than: See ``prune``.
            every: From the end of one pass to the beginning of the next.
            longest_copy: How long after a message its last copy may come. A WARNING is logged at the start if
                ``older_than`` is shorter.
            batch_size: See ``prune``.

        Raises:
            ConfigError: A span or a number makes no sense.

        Example::

            @asynccontextmanager
            async def lifespan(app: FastAPI) -> AsyncIterator[None]:
                async with inbox.pruning(engine, older_than=timedelta(days=30)):
                    yield
        """
        for name, span in (("older_than", older_than), ("every", every), ("longest_copy", longest_copy)):
            check_span(name, span)
        require_count("batch_size", batch_size)
        if not isinstance(engine, AsyncEngine):
            msg = f"engine: must be an AsyncEngine, as create_async_engine makes it, got {type(engine).__name__}"
            raise ConfigError(msg)

        async def prune() -> int:
            return await self.prune(engine, older_than=older_than, batch_size=batch_size)

        pruner = Pruner(self._consumer, prune, every=every)
        pruner.warn_of_short_retention(older_than, longest_copy)
        pruner.start()
        try:
            yield
        finally:
            await pruner.stop(STOP_SECONDS)

    async def validate_schema(self, engine: AsyncEngine) -> None:
        """Compare the table in the database with its declaration; a good last line of a migration's test.

        Raises:
            SchemaError: They differ; ``differences`` has one sentence for each point.
        """
        if found := await self._entries.differences(engine):
            raise SchemaError({self._table.fullname: found}, made_by="make_inbox_table declares")

    @property
    def _entries(self) -> Entries:
        return self.in_memory or self._in_database

    def _entry(self, message: StreamMessage[Any]) -> Entry:
        return Entry(self._consumer, *identify(message, self._identify))

    def _count(self, first: bool) -> bool:  # noqa: FBT001 - it is what is counted
        if first:
            self._accepted += 1
        else:
            self._repeated += 1
        if self._note is not None:
            self._note(first)
        return first


def _check_table(table: Any) -> None:
    if not isinstance(table, Table):
        msg = f"inbox_table: must be a Table, as make_inbox_table makes it, got {type(table).__name__}"
        raise ConfigError(msg)
    missing = [column.name for column in make_inbox_table(MetaData()).columns if column.name not in table.columns]
    if missing:
        msg = f"inbox_table: {table.fullname!r} lacks {', '.join(missing)}; make it with make_inbox_table"
        raise ConfigError(msg)
