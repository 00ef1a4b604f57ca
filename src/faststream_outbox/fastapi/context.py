"""FastStream's context for FastAPI's dependencies, in subscribers and in HTTP routes alike.

In a subscriber, FastStream keeps the context of the message being handled. An HTTP request has none, so the broker of
the router that the route stands on lends its own.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from faststream_outbox._faststream import EMPTY, resolve_context_by_name
from faststream_outbox._faststream import ContextRepo as _ContextRepo
from faststream_outbox._faststream.fastapi import StreamMessage
from faststream_outbox.broker.broker import OutboxBroker as _OutboxBroker
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.message import OutboxMessage as _OutboxMessage
from faststream_outbox.publisher.producer import OutboxProducer as _OutboxProducer

_APP_BROKERS = "faststream_outbox_brokers"

_NOT_STARTED = (
    "OutboxRouter: a request has come, but the broker was not started, and nothing consumes {} in this process. It "
    "starts in the lifespan of the application that includes the router. An application that is mounted in another has "
    "none: include the router in the outer one. A lifespan that is set after include_router takes the place of the "
    "router's: give it to FastAPI(lifespan=...) or OutboxRouter(lifespan=...). A server or a test's client may run "
    "none: uvicorn --lifespan on, LifespanManager, TestOutboxBroker. Or await router.broker.start() and stop() yourself"
)


def Context(  # noqa: N802 - FastStream's name for it
    name: str,
    *,
    default: Any = EMPTY,
    initial: Callable[[], Any] | None = None,
) -> Any:
    """Return a FastAPI dependency on something in FastStream's context.

    Args:
        name: A dotted path, as in ``"broker"`` or ``"message.headers"``.
        default: What to give where there is no such thing. Default: raise.
        initial: Makes what is given, and kept for later, where there is no such thing.

    Raises:
        ConfigError: When the dependency is resolved, if the path means nothing there.

    Example::

        @router.post("/orders")
        async def create(broker: Annotated[OutboxBroker, Context("broker")]) -> None: ...
    """

    async def resolve(connection: HTTPConnection) -> Any:
        if isinstance(connection, StreamMessage):
            context: Any = connection.headers["context__"]
            value = resolve_context_by_name(name=name, default=default, initial=initial, context=context)
        elif name.partition(".")[0] == "message":
            value = default
        else:
            broker = _broker_for(connection)
            # A scope is the task's own, so that requests do not see each other's.
            with broker.context.scopes((("broker", broker), ("logger", _logger_of(broker)))):
                value = resolve_context_by_name(name=name, default=default, initial=initial, context=broker.context)
        if value is EMPTY:
            raise _meaningless(name, connection)
        return value

    return Depends(resolve)


def _meaningless(name: str, connection: HTTPConnection) -> ConfigError:
    if isinstance(connection, StreamMessage):
        return ConfigError(f"Context({name!r}) has no value in a subscriber: it is not set")
    reason = "a subscriber has a message, a request has none" if name.startswith("message") else "it is not set"
    return ConfigError(f"Context({name!r}) has no value in an HTTP route: {reason}")


class RouteBroker:
    """Marks a router's routes with the router's broker. As a dependency, it goes wherever FastAPI takes the routes."""

    def __init__(self, broker: _OutboxBroker) -> None:
        self.broker = broker
        self._has_told = False

    async def __call__(self) -> None:
        """Log once that a request came while the broker does not run, because nothing has started it.

        Dependencies of an application or an inclusion run earlier, and look for this one on the route.
        """
        if self.broker.running or self._has_told or not self.broker.is_idle:
            return
        self._has_told = True
        queues = sorted({queue for consumer in self.broker.consumers for queue in consumer.queues})
        _first_logger_of(self.broker).log(logging.ERROR, _NOT_STARTED.format(", ".join(map(repr, queues))))


def _broker_for(connection: HTTPConnection) -> _OutboxBroker:
    for dependency in getattr(connection.scope.get("route"), "dependencies", ()):
        if isinstance(dependency.dependency, RouteBroker):
            return dependency.dependency.broker
    brokers: Sequence[_OutboxBroker] = getattr(connection.app.state, _APP_BROKERS, ())
    if len(brokers) == 1:
        return brokers[0]
    if not brokers:
        msg = "no OutboxRouter runs in this application: include one, and let the lifespan of the application run"
    else:
        msg = f"{len(brokers)} OutboxRouters run in this application: put the route on the router whose broker it needs"
    raise ConfigError(msg)


@contextmanager
def announced(app: Any, broker: _OutboxBroker) -> Iterator[None]:
    """Provide a broker to the application's routes on foreign routers, as long as the broker runs."""
    others = [other for other in getattr(app.state, _APP_BROKERS, ()) if other is not broker]
    setattr(app.state, _APP_BROKERS, [*others, broker])
    try:
        yield
    finally:
        others = [other for other in getattr(app.state, _APP_BROKERS) if other is not broker]
        setattr(app.state, _APP_BROKERS, others)


def _logger_of(broker: _OutboxBroker) -> Any:
    # FastStream has none before the broker has started, and none with logger=None.
    return broker.config.logger.logger.logger or logging.getLogger("faststream.access.outbox")


def _first_logger_of(broker: _OutboxBroker) -> Any:
    # The one that it would get when it starts.
    storage = broker.config.logger.params_storage
    return storage.get_logger(context=broker.context) or logging.getLogger("faststream_outbox")


OutboxBroker = Annotated[_OutboxBroker, Context("broker")]
OutboxMessage = Annotated[_OutboxMessage, Context("message")]
OutboxProducer = Annotated[_OutboxProducer, Context("broker.config.producer")]
ContextRepo = Annotated[_ContextRepo, Context("context")]
Logger = Annotated[logging.Logger, Context("logger")]
