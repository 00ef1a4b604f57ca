"""FastStream's context for FastAPI's dependencies, in subscribers and in HTTP routes alike.

In a subscriber, FastStream keeps the context of the message being handled. An HTTP request has none, so the broker of
the router that the route stands on lends its own.
"""

import logging
from typing import Annotated, Any

from fastapi import Depends
from faststream.exceptions import IncorrectState
from starlette.requests import HTTPConnection

from faststream_outbox._faststream import EMPTY, resolve_context_by_name
from faststream_outbox._faststream import ContextRepo as _ContextRepo
from faststream_outbox._faststream.fastapi import StreamMessage
from faststream_outbox.broker.broker import OutboxBroker as _OutboxBroker
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.message import OutboxMessage as _OutboxMessage
from faststream_outbox.publisher.producer import OutboxProducer as _OutboxProducer

_ROUTE_BROKER = "faststream_outbox.broker"
_APP_BROKERS = "faststream_outbox_brokers"


def Context(name: str, *, default: Any = EMPTY) -> Any:  # noqa: N802 - FastStream's name for it
    """Make a FastAPI dependency on something in FastStream's context.

    Args:
        name: A dotted path, as in ``"broker"`` or ``"message.headers"``.
        default: What to give where there is no such thing. Default: raise.

    Raises:
        ConfigError: While a request is served, if the path means nothing there.

    Example::

        @router.post("/orders")
        async def create(broker: Annotated[OutboxBroker, Context("broker")]) -> None: ...
    """

    async def resolve(connection: HTTPConnection) -> Any:
        if isinstance(connection, StreamMessage):
            context: Any = connection.headers["context__"]
            return resolve_context_by_name(name=name, default=default, initial=None, context=context)
        return _resolve_for_request(name, default, connection)

    return Depends(resolve)


def _resolve_for_request(name: str, default: Any, connection: HTTPConnection) -> Any:
    broker = _broker_for(connection)
    # A scope is the task's own, so that requests do not see each other's.
    with broker.context.scopes((("broker", broker), ("logger", _logger_of(broker)))):
        value = resolve_context_by_name(name=name, default=default, initial=None, context=broker.context)
    if value is EMPTY:
        hint = "a subscriber has a message, a request has none" if name.startswith("message") else "it is not set"
        msg = f"Context({name!r}) means nothing in an HTTP route: {hint}"
        raise ConfigError(msg)
    return value


def _broker_for(connection: HTTPConnection) -> _OutboxBroker:
    broker: _OutboxBroker | None = connection.scope.get(_ROUTE_BROKER)
    if broker is not None:
        return broker
    brokers = list(getattr(connection.app.state, _APP_BROKERS, ()))
    if len(brokers) == 1:
        only: _OutboxBroker = brokers[0]
        return only
    if not brokers:
        msg = "no OutboxRouter runs in this application: include one, and let the lifespan of the application run"
    else:
        msg = f"{len(brokers)} OutboxRouters run in this application: put the route on the router whose broker it needs"
    raise ConfigError(msg)


class RouteBroker:
    """A router's dependency that tells the router's own routes which broker is theirs."""

    def __init__(self, broker: _OutboxBroker) -> None:
        self._broker = broker

    async def __call__(self, connection: HTTPConnection) -> None:
        """Run as a dependency of each route."""
        connection.scope[_ROUTE_BROKER] = self._broker


def announce(app: Any, broker: _OutboxBroker) -> None:
    """Tell an application's other routes of a broker that runs in it."""
    brokers = [*getattr(app.state, _APP_BROKERS, ())]
    if broker not in brokers:
        setattr(app.state, _APP_BROKERS, [*brokers, broker])


def withdraw(app: Any, broker: _OutboxBroker) -> None:
    """Tell an application's other routes that a broker runs no more."""
    setattr(app.state, _APP_BROKERS, [other for other in getattr(app.state, _APP_BROKERS, ()) if other is not broker])


def _logger_of(broker: _OutboxBroker) -> Any:
    try:
        return broker.config.logger.logger.logger
    except IncorrectState:
        # Before the broker has started, FastStream has no logger for it.
        return logging.getLogger("faststream.access.outbox")


OutboxBroker = Annotated[_OutboxBroker, Context("broker")]
OutboxMessage = Annotated[_OutboxMessage, Context("message")]
OutboxProducer = Annotated[_OutboxProducer, Context("broker._producer")]
ContextRepo = Annotated[_ContextRepo, Context("context")]
Logger = Annotated[logging.Logger, Context("logger")]
