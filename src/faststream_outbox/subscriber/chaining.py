"""Writes what a handler returns while the handler's own transaction is still open."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

from faststream.message import StreamMessage
from sqlalchemy import Transaction
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import SessionTransaction

from faststream_outbox._faststream import BrokerConfig, to_async
from faststream_outbox.message import Delivery, OutboxMessage
from faststream_outbox.response import OutboxResponse
from faststream_outbox.subscriber.inheritance import inherited_headers


class UncommittedResponseError(RuntimeError):
    """A handler's response was written where no one commits it."""


def publish_in_scope(config: BrokerConfig) -> Callable[[Callable[..., Any]], Callable[..., Awaitable[Any]]]:
    """Return the decorator around a handler, inside everything that resolves the handler's dependencies.

    FastStream publishes a response after the dependencies are closed. By then the session has committed, and the row
    would no longer be part of its transaction.

    Args:
        config: The configuration of the broker or router that the subscriber stands on.
    """

    def decorate(handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        call = to_async(handler)

        @wraps(handler)
        async def handle(*args: Any, **kwargs: Any) -> Any:
            result = await call(*args, **kwargs)
            message: StreamMessage[Any] | None = config.context.get_local("message")
            if isinstance(result, OutboxResponse) and message is not None:
                await _publish(config, result, message)
            return result

        return handle

    return decorate


async def _publish(config: BrokerConfig, response: OutboxResponse, message: StreamMessage[Any]) -> None:
    if response.correlation_id is None:
        response.correlation_id = message.correlation_id
    # Asked at run time: a handler with several subscribers is wrapped once for all of them.
    subscriber = config.context.get_local("handler_")
    if isinstance(message, OutboxMessage) and getattr(subscriber, "propagates_headers", False):
        response.headers = {**inherited_headers(message.row), **response.headers}
    publish = config.producer.publish
    for middleware in reversed(config.broker_middlewares):
        publish = partial(middleware(None, context=config.context).publish_scope, publish)
    await publish(response.as_publish_command())
    if isinstance(message, OutboxMessage) and isinstance(response.session, AsyncSession | AsyncConnection):
        message.raw_message.written_in.append((response.session, _transaction_of(response.session)))


async def take_back_what_nobody_commits(delivery: Delivery) -> None:
    """Look after a handler's responses once everything around the handler is closed.

    Where a transaction is still open then, its session was no dependency, or its block had ended before the response
    was written into a new transaction. The row would vanish, and the message with it.

    Raises:
        UncommittedResponseError: Such a transaction was rolled back.
    """
    for session, transaction in delivery.written_in:
        if transaction is not None and transaction.is_active:
            await session.rollback()
            msg = (
                "the OutboxResponse's session was not committed: give it one that is a dependency of the handler, "
                "or publish inside of the session's own block"
            )
            raise UncommittedResponseError(msg)


def _transaction_of(session: AsyncSession | AsyncConnection) -> Transaction | SessionTransaction | None:
    if isinstance(session, AsyncSession):
        return session.sync_session.get_transaction()
    return session.sync_connection.get_transaction() if session.sync_connection else None
