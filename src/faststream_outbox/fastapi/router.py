"""A FastAPI router with a broker inside."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends
from fastapi.datastructures import Default
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import Unpack, override

from faststream_outbox._faststream.fastapi import StreamRouter
from faststream_outbox.broker.broker import OutboxBroker
from faststream_outbox.fastapi.context import RouteBroker, announce, withdraw
from faststream_outbox.fastapi.options import RouterOptions, RouterSubscriberOptions
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from faststream_outbox.forwarders.options import ForwarderOptions
from faststream_outbox.message import Delivery
from faststream_outbox.publisher.options import PublisherOptions
from faststream_outbox.publisher.usecase import OutboxPublisher

_RESPONSE_DEFAULTS: Mapping[str, Any] = {
    "dependencies": (),
    "response_model": Default(None),
    "response_model_include": None,
    "response_model_exclude": None,
    "response_model_by_alias": True,
    "response_model_exclude_unset": False,
    "response_model_exclude_defaults": False,
    "response_model_exclude_none": False,
}

_NOT_EXPOSED: Mapping[str, str] = {
    "apply_types": "FastAPI resolves the handlers' arguments",
    "provider": "FastAPI resolves the handlers' arguments; use app.dependency_overrides in tests",
    "routers": "use include_router",
}


class OutboxRouter(StreamRouter[Delivery]):
    """HTTP routes, outbox subscribers and forwarders on one router. The broker starts and stops with the application.

    In a subscriber, ``Depends(get_session)`` gives what it gives in an HTTP route: a fresh session for each delivery,
    committed when the handler returns, rolled back when it raises. ``dependencies`` are FastAPI's.

    Args:
        engine: The caller's engine, ``postgresql+asyncpg``; it is used, and never disposed.
        outbox_table: Made by ``make_outbox_table``.
        dlq_table: Made by ``make_dlq_table``; None parks rows that failed for good in the outbox table.
        **options: See ``RouterOptions``.

    Raises:
        ConfigError: An option cannot work here.

    Example::

        router = OutboxRouter(engine, outbox_table=outbox_table)

        @router.subscriber("orders")
        async def handle(body: dict, session: AsyncSession = Depends(get_session)) -> None: ...

        app = FastAPI()
        app.include_router(router)
    """

    broker_class = OutboxBroker
    broker: OutboxBroker

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        outbox_table: Table,
        dlq_table: Table | None = None,
        **options: Unpack[RouterOptions],
    ) -> None:
        for option, reason in _NOT_EXPOSED.items():
            if option in options:
                msg = f"OutboxRouter does not take {option}: {reason}"
                raise TypeError(msg)
        arguments: dict[str, Any] = {"context": None, **options}
        super().__init__(engine, outbox_table=outbox_table, dlq_table=dlq_table, **arguments)
        # Last, so that a broker's own routes find it before any of their other dependencies is resolved.
        self.dependencies = [Depends(RouteBroker(self.broker)), *self.dependencies]

    @override
    def subscriber(  # type: ignore[override]  # FastStream's routers all narrow it
        self,
        queues: str | Sequence[str],
        /,
        **options: Unpack[RouterSubscriberOptions],
    ) -> Any:
        """Subscribe a handler to one or more queues; its dependencies are FastAPI's.

        Args:
            queues: A queue's name, or several; at most 255 bytes each.
            **options: See ``RouterSubscriberOptions``.

        Raises:
            ConfigError: An option cannot work, or another consumer has the queue.
        """
        # FastStream types it for one name, and passes on whatever it is given.
        names: Any = queues
        return super().subscriber(names, **{**_RESPONSE_DEFAULTS, **options})

    @override
    def publisher(  # type: ignore[override]  # FastStream's routers all narrow it
        self,
        queue: str,
        /,
        **options: Unpack[PublisherOptions],
    ) -> OutboxPublisher:
        """Declare a publisher for a queue; see ``OutboxBroker.publisher``."""
        return self.broker.publisher(queue, **options)

    def forwarder(
        self,
        queues: str | Sequence[str],
        *,
        to: Any,
        **options: Unpack[ForwarderOptions],
    ) -> OutboxForwarder:
        """Carry the messages of one or more queues on to another broker; see ``OutboxBroker.forwarder``."""
        return self.broker.forwarder(queues, to=to, **options)

    @override
    def _wrap_lifespan(self, lifespan: Any = None) -> Any:
        run_broker = super()._wrap_lifespan(lifespan)

        @asynccontextmanager
        async def run(app: Any) -> AsyncIterator[Any]:
            announce(app, self.broker)
            try:
                async with run_broker(app) as state:
                    yield state
            finally:
                withdraw(app, self.broker)
                # FastStream starts a router's broker once in its life; tests run one application's lifespan many times.
                self._lifespan_started = False

        return run
