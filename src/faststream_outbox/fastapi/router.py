"""A FastAPI router with a broker inside."""

import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, cast
from weakref import WeakSet

from fastapi import APIRouter, Depends, params
from fastapi.datastructures import Default
from fastapi.dependencies.utils import get_typed_signature
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import Unpack, override

from faststream_outbox._faststream import PublisherUsecase
from faststream_outbox._faststream.fastapi import DefaultLifespan, StreamRouter
from faststream_outbox.broker.broker import OutboxBroker
from faststream_outbox.checks import check_options
from faststream_outbox.fastapi.context import RouteBroker, announced
from faststream_outbox.fastapi.declarations import check_handler, check_route
from faststream_outbox.fastapi.lifespan import Applications
from faststream_outbox.fastapi.options import RouterOptions, RouterSubscriberOptions
from faststream_outbox.forwarders.forwarder import OutboxForwarder
from faststream_outbox.forwarders.options import ForwarderOptions
from faststream_outbox.message import Delivery
from faststream_outbox.publisher.options import PublisherOptions
from faststream_outbox.publisher.usecase import OutboxPublisher
from faststream_outbox.subscriber.usecase import OutboxSubscriber

_RESPONSE_DEFAULTS: Mapping[str, Any] = {
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
        position_table: Made by ``make_position_table``; forwarders with ``exactly_once=True`` need it.
        control_table: Made by ``make_outbox_control_table``; pauses that are stored, and the audit log, need it.
        dlq_table: Made by ``make_dlq_table``; None parks rows that failed for good in the outbox table.
        **options: See ``RouterOptions``.

    Raises:
        ConfigError: An option cannot work.
        TypeError: There is no such option, or not for this router, or ``dependencies`` are not FastAPI's.

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
        position_table: Table | None = None,
        control_table: Table | None = None,
        **options: Unpack[RouterOptions],
    ) -> None:
        for option, reason in _NOT_EXPOSED.items():
            if option in options:
                msg = f"OutboxRouter does not take {option}: {reason}"
                raise TypeError(msg)
        check_options("OutboxRouter", options, RouterOptions)
        arguments: dict[str, Any] = {"context": None, **options}
        arguments["dependencies"] = _fastapi_dependencies(options.get("dependencies"))
        super().__init__(
            engine,
            outbox_table=outbox_table,
            dlq_table=dlq_table,
            position_table=position_table,
            control_table=control_table,
            **arguments,
        )
        self.dependencies = [Depends(RouteBroker(self.broker)), *self.dependencies]
        self._applications = Applications(self.fastapi_config, start=self._start_broker, stop=self._stop_broker)

    @override
    def subscriber(  # type: ignore[override]  # FastStream's routers all narrow it
        self,
        queues: str | Sequence[str],
        /,
        **options: Unpack[RouterSubscriberOptions],
    ) -> OutboxSubscriber:
        """Subscribe a handler to one or more queues; its dependencies are FastAPI's.

        Args:
            queues: A queue's name, or several; at most 255 bytes each.
            **options: See ``RouterSubscriberOptions``.

        Returns:
            The subscriber; call it with the handler, or use it as a decorator.

        Raises:
            ConfigError: An option cannot work, or another consumer has the queue.
            TypeError: There is no such option, or ``dependencies`` are not FastAPI's.
        """
        check_options("subscriber", options, RouterSubscriberOptions)
        arguments: dict[str, Any] = {**_RESPONSE_DEFAULTS, **options}
        arguments["dependencies"] = _fastapi_dependencies(options.get("dependencies"))
        # FastStream types it as a decorator, for one name; it passes names on, and gives what the broker returns.
        names: Any = queues
        subscriber: Any = super().subscriber(names, **arguments)
        return cast("OutboxSubscriber", subscriber)

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
        to: PublisherUsecase,
        **options: Unpack[ForwarderOptions],
    ) -> OutboxForwarder:
        """Carry the messages of one or more queues on to another broker; see ``OutboxBroker.forwarder``."""
        return self.broker.forwarder(queues, to=to, **options)

    async def _stop_broker(self) -> None:
        await self.broker.stop()

    @override
    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Declare the route as FastAPI does; refuse first what FastAPI would accept silently or refuse unhelpfully."""
        check_route(endpoint)
        super().add_api_route(path, endpoint, **options)

    @override
    def add_api_websocket_route(self, path: str, endpoint: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Declare the route as FastAPI does; refuse first what FastAPI would accept silently or refuse unhelpfully."""
        check_route(endpoint)
        super().add_api_websocket_route(path, endpoint, *args, **options)

    @override
    def _subscriber_compatibility_wrapper(self, *args: Any, **kwargs: Any) -> Any:
        make_consumer = super()._subscriber_compatibility_wrapper(*args, **kwargs)

        def wrap(handler: Any) -> Any:
            # What FastAPI gets is a wrapper around the user's handler. FastAPI of old looks for the names in
            # annotations that are strings where that wrapper was written.
            written = inspect.unwrap(handler, stop=lambda function: hasattr(function, "__signature__"))
            handler.__signature__ = get_typed_signature(written)
            check_handler(handler)
            return make_consumer(handler)

        wrap.resolves_for_fastapi = True  # type: ignore[attr-defined]
        return wrap

    @override
    def _asyncapi_router(self, schema_url: str | None) -> APIRouter | None:
        pages = super()._asyncapi_router(schema_url)
        if pages is not None:
            # Trying out would let everyone publish to the live broker; and YAML needs a package that nobody may have.
            dropped = {f"{pages.prefix}{schema_url}/try"}
            if find_spec("yaml") is None:
                dropped.add(f"{pages.prefix}{schema_url}.yaml")
            pages.routes[:] = [route for route in pages.routes if getattr(route, "path", None) not in dropped]
        return pages

    @override
    def _wrap_lifespan(self, lifespan: Any = None) -> Any:
        own = DefaultLifespan(self) if lifespan is None else lifespan
        documented: WeakSet[Any] = WeakSet()

        # Not FastStream's: that starts the broker once in the life of the router, and stops it for all of its
        # applications when one ends, but not where a hook fails.
        @asynccontextmanager
        async def run(app: Any) -> AsyncIterator[Mapping[str, Any] | None]:
            if app in self._applications:
                warnings.warn(
                    "FastAPI runs the router's lifespan_context by itself: do not give it to the application too",
                    category=RuntimeWarning,
                    stacklevel=2,
                )
            # Tests run the lifespan of one application many times.
            self._document(app, with_page=app not in documented)
            documented.add(app)
            with announced(app, self.broker):
                async with own(app) as extra, self._applications.running(app):
                    state = {"broker": self.broker, **(extra or {})}
                    for after_startup in self._after_startup_hooks:
                        state.update(await after_startup(app) or {})
                    yield state if self.setup_state else None
                    for on_shutdown in self._on_shutdown_hooks:
                        await on_shutdown(app)

        return run

    def _document(self, app: Any, *, with_page: bool) -> None:
        if self.docs_router is None:
            return
        for name in ("title", "description", "version", "contact"):
            setattr(self.schema, name, getattr(app, name))
        self.schema.license = app.license_info
        if with_page:
            app.include_router(self.docs_router)


def _fastapi_dependencies(dependencies: Iterable[Any] | None) -> list[params.Depends]:
    checked = list(dependencies or ())
    for dependency in checked:
        if not isinstance(dependency, params.Depends):
            msg = f"dependencies: must be FastAPI's Depends(...), got {dependency!r}"
            raise TypeError(msg)
    return checked
