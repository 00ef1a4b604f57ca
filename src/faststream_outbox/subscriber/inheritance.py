"""What the messages that a handler's result becomes inherit from the row that was handled."""

from collections.abc import Awaitable, Callable
from typing import Any

from faststream import BaseMiddleware, PublishCommand

from faststream_outbox._values.limits import is_reserved
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import CONTENT_TYPE, IDEMPOTENCY_KEY
from faststream_outbox.message import Delivery
from faststream_outbox.response import OutboxPublishCommand


class Inheritance(BaseMiddleware[PublishCommand]):
    """Sets headers of the messages that publishers over a handler publish; headers that are set already stay.

    A message to Kafka, RabbitMQ, Redis or another broker gets the row's idempotency key. After a crash the row is
    handled again and its result is published again, and by the key a consumer recognises it. A message to an outbox
    has an identity of its own. So has each message of a batch: with one key for all they would count as one message.
    The caller's headers of the row are added if the subscriber has ``propagate_inbound_headers=True``.

    The headers are set when the result is published, since until then a handler's result must fit its annotation.
    """

    async def publish_scope(self, call_next: Callable[[PublishCommand], Awaitable[Any]], cmd: PublishCommand) -> Any:
        if isinstance(self.msg, Delivery):
            row = self.msg.row
            if getattr(self.context.get_local("handler_"), "propagates_headers", False):
                cmd.add_headers(inherited_headers(row), override=False)
            if not isinstance(cmd, OutboxPublishCommand) and len(cmd.batch_bodies) <= 1:
                _set_identity(cmd, row.idempotency_key)
        return await call_next(cmd)


def inherited_headers(row: OutboxRow) -> dict[str, Any]:
    """Return the caller's headers of a row, without those that identify the message or say where to reply."""
    return {name: value for name, value in row.headers.items() if name != CONTENT_TYPE and not is_reserved(name)}


def _set_identity(cmd: PublishCommand, idempotency_key: str) -> None:
    cmd.add_headers({IDEMPOTENCY_KEY: idempotency_key}, override=False)
    options: Any = getattr(cmd, "message_options", None)
    if isinstance(options, dict) and options.get("message_id") is None:
        # RabbitMQ's own property; a forwarder sets both too.
        cmd.message_options = {**options, "message_id": cmd.headers[IDEMPOTENCY_KEY]}  # type: ignore[attr-defined]
