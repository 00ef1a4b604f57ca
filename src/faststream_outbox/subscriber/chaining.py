"""Writes what a handler returns while the handler's own transaction is still open."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

from faststream.response import Response

from faststream_outbox._faststream import BrokerConfig, to_async
from faststream_outbox._values.draft import RESERVED_HEADERS
from faststream_outbox.message import OutboxMessage
from faststream_outbox.response import OutboxResponse


def publish_in_scope(
    config: BrokerConfig,
    *,
    propagate_headers: bool,
) -> Callable[[Callable[..., Any]], Callable[..., Awaitable[Any]]]:
    """Make the decorator that goes around a handler, inside of everything that resolves its dependencies.

    FastStream publishes a response after the dependencies are closed. By then the session has committed, and the row
    would no longer be part of its transaction.

    Args:
        config: The configuration of the broker or router that the subscriber stands on.
        propagate_headers: Whether responses carry the inbound message's headers.
    """

    def decorate(handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        call = to_async(handler)

        @wraps(handler)
        async def handle(*args: Any, **kwargs: Any) -> Any:
            result = await call(*args, **kwargs)
            message: OutboxMessage | None = config.context.get_local("message")
            if propagate_headers and message is not None:
                result = _with_headers(result, message)
            if isinstance(result, OutboxResponse) and message is not None:
                await _publish(config, result, message)
            return result

        return handle

    return decorate


async def _publish(config: BrokerConfig, response: OutboxResponse, message: OutboxMessage) -> None:
    if response.correlation_id is None:
        response.correlation_id = message.correlation_id
    publish = config.producer.publish
    for middleware in reversed(config.broker_middlewares):
        publish = partial(middleware(None, context=config.context).publish_scope, publish)
    await publish(response.as_publish_command())


def _with_headers(result: Any, message: OutboxMessage) -> Any:
    """Add the caller's headers of the inbound message; those that say who the message is are its own."""
    inbound = {name: value for name, value in message.row.headers.items() if name not in _OWN_HEADERS}
    if result is None or not inbound:
        return result
    response = result if isinstance(result, Response) else Response(result)
    response.headers = {**inbound, **response.headers}
    return response


_OWN_HEADERS = RESERVED_HEADERS | {"content-type"}
