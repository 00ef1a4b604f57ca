"""What a broker publishes, and what publishers can do with it until a consumer has it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

from sqlalchemy import Connection
from sqlalchemy.orm import Session
from typing_extensions import Unpack, override

from faststream_outbox._faststream import BrokerPublishMixin, SendableMessage
from faststream_outbox._store.postgres.sessions import AnySession
from faststream_outbox._store.postgres.staging import StagingSession
from faststream_outbox._values.limits import check_queue, check_timer_id
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.staged import StagedMessage
from faststream_outbox.checks import check_options, require_count
from faststream_outbox.message import Delivery
from faststream_outbox.publisher.at_once import finish
from faststream_outbox.publisher.message_options import MessageOptions
from faststream_outbox.publisher.producer import OutboxProducer
from faststream_outbox.response import OutboxPublishCommand, Outgoing


class OutboxPublishMixin(BrokerPublishMixin[Delivery]):
    """The publishing half of ``OutboxBroker``: each method works in the caller's transaction, and none commits."""

    # The broker's, which it shares with its routers.
    config: Any

    @override
    async def publish(  # type: ignore[override]  # a session is what the outbox is about
        self,
        body: SendableMessage,
        *,
        queue: str,
        session: AnySession,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> int | None:
        """Write a message in the caller's transaction. It never commits.

        Each forwarder of the queue with ``tee=True`` on this broker gets a copy, a row of its own, in the same
        statement. So a process that only publishes must declare these forwarders too, though it starts none of them.

        A message with a key is written after the session's pending changes are flushed, so that ids follow the order in
        which transactions locked their domain rows. In a listener to ``before_flush`` these changes are not yet
        written, and ids follow the order of the calls; in ``after_flush`` they are written.

        Args:
            body: Anything that FastStream can encode. It is encoded once, and each copy has the same bytes. NaN and
                infinity, which JSON does not have, are refused anywhere in it.
            queue: The queue's name; at most 255 bytes, without ``=>`` and control characters.
            session: The transaction to write in. It is not in AUTOCOMMIT, and a ``schema_translate_map`` puts the table
                into the schema of the broker. A session that was closed begins a new transaction, as always in
                SQLAlchemy. If it is closed without commit, a warning in the log names the queue.
            headers: Names and values are strings; 32 KiB together at most. Names that the package writes itself
                are refused. So is ``reply_to``, in upper or lower case: a FastStream consumer would publish there. A
                ``traceparent`` is sent unchanged; without one, and with a current span of OpenTelemetry, the
                application's propagators add theirs.
            correlation_id: Without control characters. Default: a new one.
            **options: See ``MessageOptions``: key, idempotency_key, activate_in, activate_at, timer_id,
                timer_conflict.

        Returns:
            The row's id; None where a live row of the queue has the same idempotency key or timer id. With
            ``timer_conflict="extend"``, None only where a handler has that timer, or it is parked.

        Raises:
            InvalidSessionError: ``session`` cannot carry a row; it is a ``TypeError``.
            InvalidMessageError: An argument is refused; nothing was written and the transaction stays usable.
            IntegrityError: SQLAlchemy's. PostgreSQL refuses a row that is no live duplicate, because of a unique index
                of your own, or a sequence that is behind the table's ids; nothing was written.
            NotWrittenError: A trigger or a rule has suppressed the row; nothing was written.
            ConfigError: A copy has no queue: the publisher of a forwarder with ``tee=True`` is on a router that is not
                included in a broker, or the name of the queue of copies would be too long.

        Example::

            await broker.publish({"order_id": 1}, queue="orders", key="customer-7", session=session)
        """
        check_options("publish", options, MessageOptions)
        cmd = OutboxPublishCommand(
            body,
            queue=queue,
            session=session,
            headers=headers,
            correlation_id=correlation_id or self.config.id_generator(),
            **options,
        )
        row_id: int | None = await self._basic_publish(cmd, producer=self._outbox_producer)
        return row_id

    def publish_sync(
        self,
        body: SendableMessage,
        *,
        queue: str,
        session: Session | Connection,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> int | None:
        """Publish as ``publish`` does, in a plain SQLAlchemy ``Session`` or ``Connection``.

        FastStream's publish middlewares, which are coroutines, are not called.
        """
        check_options("publish_sync", options, MessageOptions)
        cmd = OutboxPublishCommand(
            body,
            queue=queue,
            session=session,
            headers=headers,
            correlation_id=correlation_id or self.config.id_generator(),
            **options,
        )
        return self._outbox_producer.publish_sync(cmd)

    def stage(
        self,
        body: SendableMessage,
        *,
        queue: str,
        session: StagingSession,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> StagedMessage:
        """Have a message written with the session's next flush, or before its commit. It awaits nothing.

        For code that is not asynchronous, such as domain objects that say what has happened to them, and for listeners
        to the session's events. The message is encoded and checked at once. All messages that wait in a session are
        written in one statement, in the order of the calls. They are gone with a rollback, and a savepoint that is
        rolled back takes those staged in it.

        - A flush writes them behind its objects, so ids follow the order in which transactions locked their domain
          rows. Without changes to flush, SQLAlchemy's ``flush`` does nothing, and the commit writes them.
        - In a savepoint they wait until it is released.
        - What ``publish`` writes in the same transaction is written before all that still waits.
        - An error of the database is raised by the flush or the commit, which fails.

        FastStream's publish middlewares run at the call, and must not wait for anything. So what they measure is the
        call; ``metrics`` of the broker counts a message when it is written.

        Args:
            body: See ``publish``.
            queue: See ``publish``.
            session: An ``AsyncSession`` or ``Session``, scoped or not. A transaction begins in it, as with
                ``session.add``. If it is closed without commit, a warning in the log names the queue.
            headers: See ``publish``.
            correlation_id: See ``publish``.
            **options: See ``MessageOptions``.

        Returns:
            What becomes of the message: its idempotency key at once, its id when it is written.

        Raises:
            InvalidSessionError: ``session`` is no session, its transaction is over, or it is bound to another kind of
                database. What only its connection shows, as AUTOCOMMIT, makes the flush or the commit fail with it.
            InvalidMessageError: An argument is refused.
            ConfigError: See ``publish``; or the broker's codec or a publish middleware waits for something.

        Example::

            def ship(order: Order) -> None:  # in the domain, without await
                order.status = "shipped"
                broker.stage({"order_id": order.id}, queue="shipped", session=object_session(order))
        """
        check_options("stage", options, MessageOptions)
        cmd = OutboxPublishCommand(
            body,
            queue=queue,
            session=session,
            headers=headers,
            correlation_id=correlation_id or self.config.id_generator(),
            **options,
        )
        stage: Any = self._outbox_producer.stage
        for middleware in reversed(self.middlewares):
            stage = partial(middleware(None, context=self.context).publish_scope, stage)
        result = finish(
            stage(cmd), refusal="stage cannot wait for the broker's codec or a publish middleware that waits"
        )
        if isinstance(result, StagedMessage):
            return result
        # A middleware has kept the message, which is then never written.
        return StagedMessage(cmd.destination, cmd.idempotency_key or "")

    @override
    async def publish_batch(  # type: ignore[override]  # a session is what the outbox is about
        self,
        *messages: SendableMessage | Outgoing,
        queue: str,
        session: AnySession,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        key: str | None = None,
        activate_in: timedelta | None = None,
        activate_at: datetime | None = None,
    ) -> list[int]:
        """Write many messages of one queue with one statement, in their order.

        Args:
            *messages: Bodies, or ``Outgoing`` where a message has its own key, headers or idempotency key.
            queue: The queue's name.
            session: The transaction to write in.
            headers: Of every message; an ``Outgoing`` adds its own.
            correlation_id: Of every message. Default: a new one.
            key: Of every message that has none of its own.
            activate_in: Hold the messages back for so long.
            activate_at: Hold the messages back until then; timezone-aware.

        Returns:
            The ids of the rows that were written; live duplicates are left out.

        Raises:
            InvalidSessionError: ``session`` cannot carry a row.
            InvalidMessageError: An argument or message is refused; nothing was written.
            IntegrityError: See ``publish``.
            NotWrittenError: See ``publish``.
            ConfigError: See ``publish``.
        """
        # Outgoing also keeps a body of None from being taken for no message.
        outgoing = [message if isinstance(message, Outgoing) else Outgoing(message) for message in messages]
        if not outgoing:
            return []
        cmd = OutboxPublishCommand(
            *outgoing,
            queue=queue,
            session=session,
            headers=headers,
            correlation_id=correlation_id or self.config.id_generator(),
            key=key,
            activate_in=activate_in,
            activate_at=activate_at,
        )
        ids: list[int] = await self._basic_publish_batch(cmd, producer=self._outbox_producer)
        return ids

    @override
    async def request(self, message: Any = None, queue: str = "", /, timeout: float = 0.5, **options: Any) -> Any:
        """Not supported: the answer would come after the transaction that asked.

        Raises:
            FeatureNotSupportedException: Always.
        """
        cmd = OutboxPublishCommand(message, queue=queue, session=None)
        return await self._basic_request(cmd, producer=self._outbox_producer)

    async def cancel_timer(self, *, queue: str, timer_id: str, session: AnySession) -> bool:
        """Take back a message that was published with ``timer_id``, in the caller's transaction.

        Copies for forwarders with ``tee=True`` are taken back too, each as far as its forwarder has not taken it.

        Returns:
            Whether it was there and had not been handed to a consumer; copies do not count. While a forwarder is just
            sending it, the call waits for the outcome.

        Raises:
            InvalidSessionError: ``session`` cannot be used.
            InvalidMessageError: No message could have that queue or timer id.
        """
        check_queue(queue)
        check_timer_id(timer_id)
        return await self._outbox_producer.cancel_timer(session, queue=queue, timer_id=timer_id)

    async def fetch_unprocessed(
        self,
        *,
        session: AnySession,
        queue: str | None = None,
        limit: int = 1000,
    ) -> Sequence[OutboxRow]:
        """Look at messages that no consumer has finished, in the order of their ids. Takes no lease and no lock.

        Args:
            session: The transaction to read in.
            queue: Only this queue's, without copies for forwarders with ``tee=True``, whose queues are named as in
                ``orders=>redis:orders``; None: all queues'.
            limit: The most rows.

        Raises:
            InvalidSessionError: ``session`` cannot be used.
            ConfigError: ``limit`` is not a number of rows.
        """
        require_count("limit", limit)
        return await self._outbox_producer.writer.fetch_unprocessed(session, queue=queue, limit=limit)

    @property
    def _outbox_producer(self) -> OutboxProducer:
        return cast("OutboxProducer", self.config.producer)
