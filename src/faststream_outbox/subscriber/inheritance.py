"""What the messages that a handler's result becomes inherit from the row that was handled."""

from collections.abc import Awaitable, Callable
from typing import Any

from faststream import BaseMiddleware, PublishCommand

from faststream_outbox._values.draft import CONTENT_TYPE, is_reserved
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import IDEMPOTENCY_KEY
from faststream_outbox.message import Delivery
from faststream_outbox.response import OutboxPublishCommand


class Inheritance(BaseMiddleware[PublishCommand]):
    """Sets headers of what publishers over a handler publish; what is set already stays.

    To Kafka, RabbitMQ, Redis or another broker goes the row's idempotency key: the row is handled again after a crash,
    and its result published again, and so whoever consumes it can tell. A message to an outbox has an identity of its
    own, and so have the messages of a batch, which one key would make one. The caller's headers of the row go along if
    the subscriber has ``propagate_inbound_headers=True``.

    It is done when the result is published, since a handler's result must be what its annotation says until then.
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
