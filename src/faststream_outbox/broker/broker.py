"""The broker whose queue is a PostgreSQL table."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, cast

from fast_depends import dependency_provider
from faststream.message import gen_cor_id
from faststream.specification.schema import BrokerSpec
from sqlalchemy import Connection, Table
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from typing_extensions import Unpack, override

from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._faststream import (
    EMPTY,
    BrokerUsecase,
    ContextRepo,
    DefaultCodec,
    FastDependsConfig,
    SendableMessage,
)
from faststream_outbox._store.postgres.store import PostgresStore
from faststream_outbox._store.postgres.writer import PostgresWriter
from faststream_outbox._store.protocol import Store
from faststream_outbox._values.draft import DEFAULT_MAX_PAYLOAD_BYTES
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.broker.logging import make_outbox_logger_state
from faststream_outbox.broker.options import BrokerOptions
from faststream_outbox.broker.registrator import OutboxRegistrator
from faststream_outbox.config import OutboxBrokerConfig
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.message import Delivery
from faststream_outbox.publisher.message_options import MessageOptions
from faststream_outbox.publisher.producer import OutboxProducer
from faststream_outbox.response import OutboxPublishCommand, Outgoing

DEFAULT_GRACEFUL_TIMEOUT = 15.0

AnySession = AsyncSession | AsyncConnection


class OutboxBroker(OutboxRegistrator, BrokerUsecase[Delivery, AsyncEngine, OutboxBrokerConfig]):
    """A FastStream broker whose queue is a PostgreSQL table.

    ``publish`` writes a row in the caller's transaction, so a message exists exactly when the work behind it does.
    Subscribers handle rows in this process, forwarders carry them on to other brokers.

    Args:
        engine: The caller's engine, ``postgresql+asyncpg``; it is used, and never disposed.
        outbox_table: Made by ``make_outbox_table``.
        dlq_table: Made by ``make_dlq_table``; None parks rows that failed for good in the outbox table.
        **options: See ``BrokerOptions``.

    Raises:
        ConfigError: The engine is not on asyncpg, or an option cannot work.

    Example::

        broker = OutboxBroker(engine, outbox_table=make_outbox_table(metadata))

        @broker.subscriber("orders")
        async def handle(body: dict) -> None: ...

        async with session_factory() as session, session.begin():
            session.add(order)
            await broker.publish({"order_id": 1}, queue="orders", session=session)
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        outbox_table: Table,
        dlq_table: Table | None = None,
        **options: Unpack[BrokerOptions],
    ) -> None:
        _check_engine("engine", engine)
        listen_engine = options.get("listen_engine")
        if listen_engine is not None:
            _check_engine("listen_engine", listen_engine)
        self._engine = engine
        self._listen = options.get("listen", True)
        self._store: Store = PostgresStore(engine, outbox_table, dlq_table, listen_engine=listen_engine)
        super().__init__(
            routers=options.get("routers", ()),
            config=OutboxBrokerConfig(
                producer=OutboxProducer(
                    writer=PostgresWriter(outbox_table, notify=options.get("notify", True)),
                    max_payload_bytes=_payload_limit(options),
                    begin=engine.begin,
                    codec=options.get("codec") or DefaultCodec(),
                    serializer=lambda: self.config.fd_config._serializer,  # noqa: SLF001
                    parser=options.get("parser"),
                    decoder=options.get("decoder"),
                ),
                broker_middlewares=options.get("middlewares", ()),
                broker_parser=options.get("parser"),
                broker_decoder=options.get("decoder"),
                broker_codec=options.get("codec"),
                broker_dependencies=options.get("dependencies", ()),
                logger=make_outbox_logger_state(
                    logger=options.get("logger", EMPTY),
                    log_level=options.get("log_level", logging.INFO),
                ),
                fd_config=FastDependsConfig(
                    use_fastdepends=options.get("apply_types", True),
                    serializer=options.get("serializer", EMPTY),
                    provider=options.get("provider") or dependency_provider,
                    context=options.get("context") or ContextRepo(),
                ),
                graceful_timeout=options.get("graceful_timeout", DEFAULT_GRACEFUL_TIMEOUT),
                ack_policy=options.get("ack_policy", EMPTY),
                id_generator=options.get("id_generator", gen_cor_id),
                extra_context={"broker": self},
            ),
            specification=BrokerSpec(
                url=[options.get("specification_url") or _public_url(engine)],
                protocol=options.get("protocol") or "postgresql",
                protocol_version=options.get("protocol_version"),
                description=options.get("description"),
                tags=options.get("tags", ()),
                security=None,
            ),
        )

    @property
    def engine(self) -> AsyncEngine:
        """The caller's engine."""
        return self._engine

    @override
    async def _connect(self) -> AsyncEngine:
        # Nothing to open: connections come from the engine when they are needed.
        return self._engine

    @override
    async def start(self) -> None:
        """Start subscribers and forwarders; FastAPI's lifespan or the FastStream application calls it.

        Neither the database nor a destination has to be up: what is down is tried again until it works.

        Raises:
            ConfigError: A queue has two consumers, or the settings of a forwarder's destination are not safe.
        """
        if self.running:
            return
        self.check_consumers()
        await self.connect()
        runtime = Runtime(self._store, self._log, listen=self._listen)
        self.config.broker_config.set_runtime(runtime)
        runtime.start()
        try:
            for forwarder in self.forwarders:
                forwarder.start()
            await super().start()
        except BaseException:
            await self.stop()
            raise

    @override
    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Claim nothing more, finish what is in flight up to the graceful timeout, give the rest back, then close."""
        grace = self.config.graceful_timeout
        forwarders = self.forwarders
        try:
            await asyncio.gather(
                super().stop(exc_type, exc_val, exc_tb),
                *(forwarder.stop(float("inf") if grace is None else grace) for forwarder in forwarders),
            )
            await asyncio.gather(*(forwarder.close() for forwarder in forwarders))
        finally:
            runtime = self.config.broker_config.take_runtime()
            if runtime is not None:
                await runtime.stop(grace)
            self._connection = None

    @override
    async def ping(self, timeout: float | None = None) -> bool:
        """Tell whether the database answers.

        Args:
            timeout: Seconds to wait; None waits as long as the driver does.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._store.ping()
        except Exception:  # noqa: BLE001 - whatever it is, the database does not answer
            return False
        return True

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

        A message with a key is written after the session's pending changes are flushed, so that ids follow the order in
        which transactions locked their domain rows.

        Args:
            body: Anything that FastStream can encode; encoded once, and sent as these bytes ever after.
            queue: The queue's name; at most 255 bytes.
            session: The transaction to write in.
            headers: Names and values are strings; 32 KiB together at most.
            correlation_id: Default: a new one.
            **options: See ``MessageOptions``: key, idempotency_key, activate_in, activate_at, timer_id.

        Returns:
            The row's id; None where a live row of the queue has the same idempotency key or timer id.

        Raises:
            InvalidSessionError: ``session`` cannot carry a row; it is a ``TypeError``.
            InvalidMessageError: An argument is refused; nothing was written and the transaction stays usable.

        Example::

            await broker.publish({"order_id": 1}, queue="orders", key="customer-7", session=session)
        """
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
        """Do what ``publish`` does for a plain SQLAlchemy ``Session`` or ``Connection``.

        FastStream's publish middlewares, which are coroutines, are not called.
        """
        cmd = OutboxPublishCommand(
            body,
            queue=queue,
            session=session,
            headers=headers,
            correlation_id=correlation_id or self.config.id_generator(),
            **options,
        )
        return self._outbox_producer.publish_sync(cmd)

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

        Returns:
            Whether it was there and had not been handed to a consumer. While a forwarder is just sending it, the call
            waits for the outcome.

        Raises:
            InvalidSessionError: ``session`` cannot be used.
        """
        return await self._outbox_producer.writer.cancel_timer(session, queue=queue, timer_id=timer_id)

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
            queue: Only this queue's; None: all queues'.
            limit: The most rows.

        Raises:
            InvalidSessionError: ``session`` cannot be used.
        """
        return await self._outbox_producer.writer.fetch_unprocessed(session, queue=queue, limit=limit)

    @property
    def _outbox_producer(self) -> OutboxProducer:
        return cast("OutboxProducer", self.config.producer)

    def _log(self, level: int, message: str, error: BaseException | None) -> None:
        exception = error if isinstance(error, Exception) else None
        self.config.logger.log(message, level, exc_info=exception if level >= logging.ERROR else None)


def _check_engine(argument: str, engine: Any) -> None:
    if not isinstance(engine, AsyncEngine):
        msg = f"{argument}: must be an AsyncEngine, as create_async_engine makes it, got {type(engine).__name__}"
        raise ConfigError(msg)
    if (engine.dialect.name, engine.dialect.driver) != ("postgresql", "asyncpg"):
        msg = f"{argument}: must be on postgresql+asyncpg, got {engine.dialect.name}+{engine.dialect.driver}"
        raise ConfigError(msg)


def _payload_limit(options: BrokerOptions) -> int:
    limit = options.get("max_payload_bytes", DEFAULT_MAX_PAYLOAD_BYTES)
    if limit < 1:
        msg = f"max_payload_bytes: must be at least 1, got {limit}"
        raise ConfigError(msg)
    return limit


def _public_url(engine: AsyncEngine) -> str:
    url = engine.url
    host = url.host or "localhost"
    return f"postgresql://{host}:{url.port or 5432}/{url.database or ''}"
