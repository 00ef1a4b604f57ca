"""A subscriber: runs FastStream's pipeline for each claimed row."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from faststream.exceptions import FeatureNotSupportedException, StopConsume
from faststream.message import AckStatus, StreamMessage

from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.handling.consumer import Consumer
from faststream_outbox._faststream import (
    BrokerMiddleware,
    CallsCollection,
    HandlerItem,
    PublisherProto,
    SubscriberSpecification,
    SubscriberUsecase,
)
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Reason, Released
from faststream_outbox._values.printable import printable
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.broker_config import OutboxBrokerConfig
from faststream_outbox.message import Delivery, OutboxMessage
from faststream_outbox.parser import OutboxParser
from faststream_outbox.subscriber.chaining import (
    UncommittedResponseError,
    publish_in_scope,
    take_back_what_nobody_commits,
)
from faststream_outbox.subscriber.config import OutboxSubscriberConfig
from faststream_outbox.subscriber.declarations import (
    outside_of_the_router,
    refuse_unresolved_annotations,
    refuse_what_fastapi_would_resolve,
)
from faststream_outbox.subscriber.inheritance import Inheritance
from faststream_outbox.subscriber.misfits import is_misfit
from faststream_outbox.subscriber.tracing import HandlingSpan, makes_spans
from faststream_outbox.tracing import server_attributes


class Handlers(CallsCollection[Delivery]):
    """The handlers of a subscriber; tells it when it gets another."""

    on_added: Callable[[], None] = staticmethod(lambda: None)

    def add_call(self, call: HandlerItem[Delivery]) -> None:
        """Take in a handler."""
        super().add_call(call)
        self.on_added()


class OutboxSubscriber(SubscriberUsecase[Delivery]):
    """Handles the messages of one or more queues in this process.

    With a publisher of another broker over it, what the handler returns is published there before the row leaves the
    table, with the row's idempotency key as header ``idempotency-key`` (on RabbitMQ also as ``message_id``), unless the
    handler returns a response with headers of its own. Handled again, the row is published again with the same key::

        @kafka.publisher("invoices.v1")
        @broker.subscriber("orders", propagate_inbound_headers=True)
        async def invoice(order: Order) -> Invoice: ...
    """

    _outer_config: OutboxBrokerConfig

    def __init__(
        self,
        config: OutboxSubscriberConfig,
        specification: SubscriberSpecification[Any, Any],
        calls: Handlers,
    ) -> None:
        config.parser = OutboxParser.parse_message
        config.decoder = OutboxParser.decode_message
        super().__init__(config, specification, calls)
        calls.on_added = self.start_late
        self._config = config
        self._call_decorators = (publish_in_scope(self._outer_config),)
        self._failure = FailurePolicy(
            retry=config.retry_strategy,
            max_deliveries=config.max_deliveries,
            text_of=lambda error: self._outer_config.text_of(error),  # noqa: PLW0108 - a router has another before that
        )
        self._consumer: Consumer | None = None
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._traces_itself = False
        """Whether a middleware makes spans of handlers."""
        self._server: Mapping[str, str | int] = {}
        self.is_fake = False
        """Whether a test has put it in the place of a consumer that is elsewhere."""

    @property
    def propagates_headers(self) -> bool:
        """Whether responses carry the inbound message's headers."""
        return self._config.propagate_inbound_headers

    @property
    def queues(self) -> Sequence[str]:
        """The names of the queues, with the prefixes of the routers that the subscriber stands on."""
        return [f"{self._outer_config.prefix}{queue}" for queue in self._config.queues]

    @property
    def _broker_middlewares(self) -> Sequence[BrokerMiddleware[Delivery, Any]]:
        # The outermost, so that others can change what it sets.
        return (Inheritance, *super()._broker_middlewares)

    def _build_fastdepends_model(self) -> None:
        resolves = self._outer_config.fd_config
        if resolves.get_dependent is not None and not self.is_fake and not self._is_resolved_by_fastapi:
            for call in self.calls:
                raise outside_of_the_router(call)
        super()._build_fastdepends_model()
        if resolves.get_dependent is None:
            for call in self.calls:
                refuse_what_fastapi_would_resolve(call)
                if resolves.use_fastdepends:
                    refuse_unresolved_annotations(call)

    @property
    def _is_resolved_by_fastapi(self) -> bool:
        return any(getattr(decorate, "resolves_for_fastapi", False) for decorate in self._call_decorators)

    def start_late(self) -> None:
        """Begin where the broker has started already, as soon as the code that declares this has ended.

        Raises:
            ConfigError: This is not the broker's event loop, or a handler cannot be called as it is declared.
        """
        config = self._outer_config
        if config.is_in_test and config.current_runtime is None:
            self._build_fastdepends_model()
            for call in self.calls:
                call.handler.set_test()
        if not (config.is_open and self.calls):
            return
        config.refuse_other_loops(f"subscriber of {', '.join(self.queues)}")
        # All of them anew, and the errors here.
        self._build_fastdepends_model()
        if self._consumer is None:
            # Publishers may stand over the handler, and are declared after this.
            self._starting = asyncio.create_task(self.start(), name=f"outbox-start-{self.queues[0]}")

    async def start(self) -> None:
        """Begin to claim rows; the broker calls it."""
        if self._consumer is not None:
            return
        await super().start()
        self._traces_itself = makes_spans(self._broker_middlewares)
        self._server = server_attributes([self._outer_config.extra_context["broker"].engine.url.render_as_string()])
        if self.calls and not (self._outer_config.is_in_test and self._outer_config.current_runtime is None):
            self._consumer = self._outer_config.runtime.consumer(
                self.specification.call_name,
                self.queues,
                self.execute,
                workers=self._config.max_workers,
                batch_size=self._config.fetch_batch_size,
                lease_seconds=self._config.lease_ttl_seconds,
                min_interval=self._config.min_fetch_interval,
                max_interval=self._config.max_fetch_interval,
            )
            self._consumer.start()
        self._post_start()

    async def stop(self) -> None:
        """Claim nothing more, let handlers finish for up to the graceful timeout, give all other rows back."""
        if (stopping := self._stopping) is not None and stopping is not asyncio.current_task():
            # One that a handler asked for is under way; the broker must not close before it has ended.
            await asyncio.wait([stopping])
        # Kept until the stop has returned: a second one that meets it waits for it too.
        if (consumer := self._consumer) is not None:
            await consumer.stop(self._outer_config.graceful_timeout)
            self._consumer = None
        await super().stop()

    async def execute(self, row: OutboxRow) -> Outcome:
        """Run the pipeline for one row and say how it ended. Only a cancelled task and Ctrl-C raise."""
        if self._stopping is not None and not self._stopping.done():
            # A handler has asked to stop, and this row was claimed before.
            return Released(started=False)
        if (dead := self._failure.before_attempt(row)) is not None:
            return self._logged(row, dead)
        delivery = Delivery(row)
        began = time.monotonic()
        span = None if self._traces_itself else HandlingSpan.begin(row, self._server)
        error: BaseException | None = None
        outcome: Outcome | None = None
        try:
            error = await self._process(delivery)
            outcome = self._outcome(delivery, error, time.monotonic() - began)
        finally:
            if span is not None:
                span.end(outcome, error)
        return self._logged(row, outcome)

    async def _process(self, delivery: Delivery) -> BaseException | None:
        """Run the pipeline; return what it raised, if anything."""
        try:
            await self.process_message(delivery)
            await take_back_what_nobody_commits(delivery)
        except KeyboardInterrupt:
            raise
        except asyncio.CancelledError as cancelled:
            # A handler may let out a cancellation of its own making; only our task's means that we stop.
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            return cancelled
        except (StopConsume, SystemExit) as request:
            self._stop_soon(request)
            return request
        except BaseException as failure:  # noqa: BLE001 - the handler's; a worker outlives all of them
            # CriticalLogMiddleware has logged it.
            return failure
        return None

    def _outcome(self, delivery: Delivery, error: BaseException | None, elapsed: float) -> Outcome:
        if isinstance(error, UncommittedResponseError):
            return self._failure.after_failure(delivery.row, error, elapsed=elapsed)
        match delivery.status:
            case AckStatus.ACKED:
                return Delivered()
            case _ if not self._config.retry_validation_errors and is_misfit(error):
                return self._failure.at_once(Reason.INVALID_BODY, error)
            case AckStatus.REJECTED:
                return self._failure.at_once(Reason.REJECTED, error)
            case None if error is None:
                error = RuntimeError("the handler ended without ack, nack or reject, which ack_policy=MANUAL asks for")
        return self._failure.after_failure(delivery.row, error, elapsed=elapsed)

    def _logged(self, row: OutboxRow, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Dead):
            self._log(
                logging.ERROR,
                f"row {row.id} goes to the dead letters: {outcome.reason}",
                extra=_log_context(row.queue, row.idempotency_key),
            )
        return outcome

    def _stop_soon(self, request: BaseException) -> None:
        # In a task of its own: a stop waits for the handlers, and this is one of them.
        if self._stopping is None or self._stopping.done():
            self._stopping = asyncio.create_task(self.stop(), name=f"outbox-stop-{self.specification.call_name}")
        app = self._outer_config.context.get("app")
        if isinstance(request, SystemExit) and hasattr(app, "exit"):
            app.exit()

    def _make_response_publisher(self, message: StreamMessage[Delivery]) -> Sequence[PublisherProto]:
        return ()

    def get_log_context(self, message: StreamMessage[Delivery] | None) -> dict[str, str]:
        """Name the queue and the message in each log line."""
        queue = message.queue if isinstance(message, OutboxMessage) else ",".join(self.queues)
        return _log_context(queue, getattr(message, "message_id", ""))

    async def get_one(self, *, timeout: float = 5.0) -> OutboxMessage | None:  # noqa: ASYNC109 - FastStream's signature
        """Not supported: a row taken without a handler would have no one to settle it."""
        msg = "The outbox hands rows to handlers only; use broker.fetch_unprocessed to look at them."
        raise FeatureNotSupportedException(msg)

    def __aiter__(self) -> AsyncIterator[StreamMessage[Delivery]]:
        msg = "The outbox hands rows to handlers only; use broker.fetch_unprocessed to look at them."
        raise FeatureNotSupportedException(msg)


def _log_context(queue: str, message_id: str) -> dict[str, str]:
    # A row that was written by SQL has whatever its writer chose.
    return {"queue": printable(queue), "message_id": printable(message_id)}
