"""The broker whose queue is a PostgreSQL table."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from fast_depends import dependency_provider
from faststream.message import gen_cor_id
from faststream.specification.schema import BrokerSpec
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import Unpack, override

from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._engine.watching.unconsumed import UnconsumedQueue
from faststream_outbox._faststream import (
    EMPTY,
    BrokerUsecase,
    ContextRepo,
    DefaultCodec,
    DriverAnnotation,
    FastDependsConfig,
    serializer_of,
)
from faststream_outbox._store.postgres.storage import PostgresStorage
from faststream_outbox._store.storage import Storage
from faststream_outbox.admin.admin import OutboxAdmin
from faststream_outbox.admin.dead_letters import DeadLetters
from faststream_outbox.broker.arguments import (
    check_engine,
    check_tables,
    graceful_timeout,
    payload_limit,
    public_url,
    text_of_exceptions,
)
from faststream_outbox.broker.draining import OutboxDrainMixin
from faststream_outbox.broker.health import BrokerHealth, HealthJudge
from faststream_outbox.broker.logging import make_outbox_logger_state
from faststream_outbox.broker.measured import Measured
from faststream_outbox.broker.options import BrokerOptions
from faststream_outbox.broker.publishing import OutboxPublishMixin
from faststream_outbox.broker.registrator import OutboxRegistrator
from faststream_outbox.broker_config import OutboxBrokerConfig
from faststream_outbox.checks import MIN_SECONDS, check_options, require_flag, require_seconds
from faststream_outbox.exceptions import SchemaError
from faststream_outbox.message import Delivery, OutboxMessage
from faststream_outbox.metrics.metrics import check_metrics
from faststream_outbox.publisher.producer import OutboxProducer


class OutboxBroker(
    OutboxPublishMixin,
    OutboxDrainMixin,
    OutboxRegistrator,
    BrokerUsecase[Delivery, AsyncEngine, OutboxBrokerConfig],
):
    """A FastStream broker whose queue is a PostgreSQL table.

    ``publish`` writes a row in the caller's transaction, so a message exists exactly when the work behind it does.
    Subscribers handle rows in this process, forwarders carry them on to other brokers.

    Args:
        engine: The caller's engine, ``postgresql+asyncpg``; it is used, and never disposed.
        outbox_table: Made by ``make_outbox_table``.
        position_table: Made by ``make_position_table``; forwarders with ``exactly_once=True`` need it.
        control_table: Made by ``make_outbox_control_table``; pauses that are stored, and the audit log, need it.
        dlq_table: Made by ``make_dlq_table``; None parks rows that failed for good in the outbox table.
        **options: See ``BrokerOptions``.

    Raises:
        ConfigError: The engine is not on asyncpg, a table is not what its factory makes, or an option cannot work.
        TypeError: There is no such option.

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
        position_table: Table | None = None,
        control_table: Table | None = None,
        **options: Unpack[BrokerOptions],
    ) -> None:
        check_options("OutboxBroker", options, BrokerOptions, besides=("dlq_table", "position_table", "control_table"))
        check_engine("engine", engine)
        check_tables(outbox_table, dlq_table, position_table, control_table)
        listen_engine = options.get("listen_engine")
        if listen_engine is not None:
            check_engine("listen_engine", listen_engine)
        self._engine = engine
        self._listen = options.get("listen", True)
        self._notify = options.get("notify", True)
        self._lifecycle = asyncio.Lock()
        self._judge = HealthJudge()
        self._measured = Measured(check_metrics(options.get("metrics")), outbox_table.fullname)
        publish_only = require_flag("publish_only", options.get("publish_only", False))
        text_of = text_of_exceptions(options, self._warn)
        super().__init__(
            routers=options.get("routers", ()),
            config=OutboxBrokerConfig(
                producer=OutboxProducer(
                    writer=lambda: self._storage.writer,
                    max_payload_bytes=payload_limit(options),
                    codec=options.get("codec") or DefaultCodec(),
                    serializer=lambda: serializer_of(self.config),
                    parser=options.get("parser"),
                    decoder=options.get("decoder"),
                    copies=self.copies_of,
                    meter=self._measured.meter,
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
                graceful_timeout=graceful_timeout(options),
                ack_policy=options.get("ack_policy") or EMPTY,
                id_generator=options.get("id_generator", gen_cor_id),
                extra_context={"broker": self},
                storage=PostgresStorage(
                    engine,
                    outbox_table,
                    dlq_table,
                    position_table,
                    control_table=control_table,
                    listen_engine=listen_engine,
                    notify=self._notify,
                    waker=self._waker,
                    warn=self._warn,
                    text_of=text_of,
                ),
                text_of=text_of,
                publish_only=publish_only,
                default_driver_annotations={
                    kind: DriverAnnotation(type_hint=kind, module="faststream_outbox.annotations", name=kind.__name__)
                    for kind in (OutboxBroker, OutboxMessage, OutboxProducer)
                },
            ),
            specification=BrokerSpec(
                url=[options.get("specification_url") or public_url(engine)],
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

    @property
    def dead_letters(self) -> DeadLetters:
        """Rows that failed for good: look at them, send them again, or let them go."""
        return DeadLetters(self._storage.dead_letters)

    @property
    def admin(self) -> OutboxAdmin:
        """What people who run the outbox ask and do: figures of queues, dead letters, what is wrong, and pauses."""
        rows = self._storage
        return OutboxAdmin(rows.onlooker, rows.examiner, rows.dead_letters, rows.store.explain, rows.controls)

    @property
    def is_idle(self) -> bool:
        """Whether it has consumers and was not started; always False in a test with ``TestOutboxBroker``."""
        config: OutboxBrokerConfig = self.config.broker_config
        return config.current_runtime is None and not config.is_in_test and bool(self.consumers)

    @property
    def set_aside(self) -> int:
        """How many messages have been handled in this process whose outcome the database refuses.

        A trigger or a constraint of yours, or a missing permission, keeps each in the table. The log names them, nobody
        else is given them, and the outcome is tried again at least once a minute. Of a forwarder's messages
        ``status().set_aside`` tells.
        """
        runtime = self.config.broker_config.current_runtime
        return 0 if runtime is None else runtime.set_aside

    @property
    def duplicates(self) -> int:
        """How many messages ``publish`` has left out in this process, since a live row had their key or timer id."""
        return self._outbox_producer.duplicates

    @property
    def stalled(self) -> Sequence[str]:
        """Loops of this broker that have ended by themselves, or hang; empty while all of them beat.

        A loop that cannot reach the database, or its destination, beats: it tries again. So this is for liveness: if it
        is not empty, only a restart of the process helps. The database is not asked.
        """
        runtime = self.config.broker_config.current_runtime
        return () if runtime is None else runtime.stalled

    @override
    async def _connect(self) -> AsyncEngine:
        # Nothing to open: connections come from the engine when they are needed.
        return self._engine

    @override
    async def start(self) -> None:
        """Start subscribers and forwarders; FastAPI's lifespan or the FastStream application calls it.

        Those that are declared afterwards start at once. Neither the database nor a destination has to be up: what is
        down is tried again until it works. With ``publish_only=True`` nothing is started.

        Raises:
            ConfigError: A queue has two consumers, or the settings of a forwarder's destination are not safe.
        """
        async with self._lifecycle:
            if self.running:
                return
            self.check_consumers()
            await self.connect()
            if self.config.broker_config.publish_only:
                await super().start()
                return
            runtime = Runtime(
                self._storage.store,
                self._log,
                listen=self._listen,
                meter=self._measured.meter,
                text_of=self.config.broker_config.text_of,
            )
            self.config.broker_config.set_runtime(runtime)
            runtime.start()
            self._measured.start(runtime, self._storage, lambda: self.forwarders, self._engine)
            try:
                for forwarder in self.forwarders:
                    forwarder.start()
                await super().start()
                runtime.check_connections()
                self.config.broker_config.is_open = True
            except BaseException:
                await self._stop()
                raise

    @override
    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Claim nothing more, finish what is in flight up to the graceful timeout, give the rest back, then close.

        It may be called at any time and any number of times: it waits for a start or a stop that is under way.
        """
        async with self._lifecycle:
            await self._stop()

    async def _stop(self) -> None:
        self.config.broker_config.is_open = False
        grace = self.config.graceful_timeout
        deadline = None if grace is None else time.monotonic() + grace
        forwarders = self.forwarders
        try:
            # All of them end, whatever becomes of one: a lane left behind would go on sending.
            ended = await asyncio.gather(
                super().stop(),
                *(forwarder.stop(float("inf") if grace is None else grace) for forwarder in forwarders),
                return_exceptions=True,
            )
            ended += await asyncio.gather(*(forwarder.close() for forwarder in forwarders), return_exceptions=True)
        finally:
            self.running = False
            await self._measured.stop()
            runtime = self.config.broker_config.take_runtime()
            if runtime is not None:
                await runtime.stop(None if deadline is None else max(0.0, deadline - time.monotonic()))
            self._connection = None
        for error in ended:
            if isinstance(error, BaseException):
                raise error

    @override
    async def ping(self, timeout: float | None = None) -> bool:
        """Return whether the database answers and takes writes; a standby, or one that is read-only, does not.

        Args:
            timeout: Seconds to wait; None waits as long as the driver does.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._storage.store.ping()
        except Exception:  # noqa: BLE001 - whatever it is, the database does not answer
            return False

    async def health(self, *, timeout: float = 2.0) -> BrokerHealth:  # noqa: ASYNC109 - as ``ping`` has it
        """Return whether this process lives, is ready, and what does not work: what probes ask for.

        Live means that all loops beat; ready, that the database takes writes and has the tables as they are declared.
        A destination that is down makes the broker *degraded*: it still accepts messages, and no restart helps.

        Args:
            timeout: Seconds to wait for the database.

        Raises:
            ConfigError: ``timeout`` cannot be.

        Example::

            health = await broker.health()
            if not health.is_ready:
                print(health.state, health.problems)
        """
        require_seconds("timeout", timeout, at_least=MIN_SECONDS)
        config: OutboxBrokerConfig = self.config.broker_config
        return await self._judge.judge(
            self._storage.store,
            config.current_runtime,
            [] if config.publish_only else self.forwarders,
            is_started=config.is_open or config.is_in_test or not self.consumers,
            seconds=timeout,
        )

    async def unconsumed_queues(self) -> Sequence[UnconsumedQueue] | None:
        """Find queues that have rows to be taken and no consumer, the longest wait first.

        Such a queue has a typo in its name, or its consumer was taken out. Who consumes what is known from what each
        process says once a minute, also where it does not listen. Up to 20 queues are named.

        Returns:
            None while that is not known: the broker is not started, or has not listened for two minutes, or cannot.

        Raises:
            Exception: What the driver raises when the database cannot be asked; TimeoutError after 30 s.
        """
        runtime = self.config.broker_config.current_runtime
        return None if runtime is None else await runtime.unconsumed()

    async def validate_schema(self) -> None:
        """Compare the tables in the database with their declarations; a good last line of a migration's test.

        Compared are the columns with their types, which of them the database computes or numbers, which allow NULL,
        and the names of indexes and checks. What these cover, defaults, collations and other constraints are not.
        Columns, indexes and checks of your own are fine, as long as a row can be written without them.

        Raises:
            SchemaError: Tables differ; ``differences`` has one sentence for each point of both tables.
        """
        problems = await self._storage.store.differences()
        if problems:
            raise SchemaError(problems)

    @property
    def _storage(self) -> Storage:
        storage: Storage = self.config.broker_config.storage
        return storage

    def _waker(self) -> Callable[[str], None] | None:
        """Return the function that wakes consumers of this process; None if notifications wake them."""
        config: OutboxBrokerConfig = self.config.broker_config
        # Asked for once: another thread may publish while the broker stops.
        runtime = config.current_runtime
        if runtime is None or (self._notify and runtime.hears):
            return None
        return runtime.wake

    def _warn(self, message: str) -> None:
        """Write a warning to the log, also of a broker that only publishes and was not started."""
        if not self.config.logger.logger:
            self._setup_logger()
        self._log(logging.WARNING, message, None)

    def _log(self, level: int, message: str, error: BaseException | None) -> None:
        exception = error if isinstance(error, Exception) else None
        self.config.logger.log(message, level, exc_info=exception if level >= logging.ERROR else None)
