"""What is published: a response, a message of a batch, and the command that carries both to the producer."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from faststream.response import PublishCommand, PublishType, Response
from faststream.response.response import BatchPublishCommand
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from faststream_outbox._faststream import SendableMessage
from faststream_outbox.exceptions import InvalidMessageError


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message of ``publish_batch`` that differs from the others in more than its body.

    Example::

        messages = [Outgoing({"id": 1}, key="a"), Outgoing({"id": 2}, key="b")]
        await broker.publish_batch(*messages, queue="orders", session=session)
    """

    body: Any
    _: KW_ONLY
    key: str | None = None
    headers: Mapping[str, str] | None = None
    idempotency_key: str | None = None


class OutboxResponse(Response):
    """A handler's answer that is published in the handler's own transaction.

    The row is written while the handler's dependencies are still open, so it commits with the handler's domain writes,
    or not at all.

    Args:
        body: What to publish.
        queue: The queue that it goes to.
        session: The session that the handler's own writes are in.
        headers: Headers of the message.
        correlation_id: Default: that of the message being handled.
        activate_in: Hold the message back for so long.
        activate_at: Hold the message back until then; timezone-aware.
        timer_id: Names the message, so that it can be cancelled; a live one of that name makes this a no-op.
        timer_conflict: ``extend``: this message takes the place of a live one of that name; see ``MessageOptions``.
        key: Orders the message behind earlier ones of that key.
        idempotency_key: Default: a new one.

    Example::

        @router.subscriber("orders")
        async def handle(order: Order, session: AsyncSession = Depends(get_session)) -> OutboxResponse:
            session.add(Invoice(order_id=order.id))
            return OutboxResponse({"order_id": order.id}, queue="invoices", session=session)
    """

    def __init__(
        self,
        body: SendableMessage,
        *,
        queue: str,
        session: AsyncSession | AsyncConnection,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        activate_in: timedelta | None = None,
        activate_at: datetime | None = None,
        timer_id: str | None = None,
        timer_conflict: Literal["keep", "extend"] = "keep",
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        super().__init__(body, headers=merge_headers(headers), correlation_id=correlation_id)
        self.queue = queue
        self.session = session
        self.activate_in = activate_in
        self.activate_at = activate_at
        self.timer_id = timer_id
        self.timer_conflict = timer_conflict
        self.key = key
        self.idempotency_key = idempotency_key

    def as_publish_command(self) -> "OutboxPublishCommand":
        """Return the command that writes the row."""
        return OutboxPublishCommand(
            self.body,
            queue=self.queue,
            session=self.session,
            headers=self.headers,
            correlation_id=self.correlation_id,
            activate_in=self.activate_in,
            activate_at=self.activate_at,
            timer_id=self.timer_id,
            timer_conflict=self.timer_conflict,
            key=self.key,
            idempotency_key=self.idempotency_key,
        )


class OutboxPublishCommand(BatchPublishCommand):
    """What FastStream's publish middlewares see on the way to the table."""

    def __init__(
        self,
        body: Any,
        /,
        *bodies: Any,
        queue: str,
        session: Any,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        activate_in: timedelta | None = None,
        activate_at: datetime | None = None,
        timer_id: str | None = None,
        timer_conflict: Literal["keep", "extend"] = "keep",
        key: str | None = None,
        idempotency_key: str | None = None,
        reply_to: str = "",
        publish_type: PublishType = PublishType.PUBLISH,
    ) -> None:
        super().__init__(
            body,
            *bodies,
            destination=queue,
            headers=merge_headers(headers),
            correlation_id=correlation_id,
            reply_to=reply_to,
            _publish_type=publish_type,
        )
        self.session = session
        self.activate_in = activate_in
        self.activate_at = activate_at
        self.timer_id = timer_id
        self.timer_conflict = timer_conflict
        self.key = key
        self.idempotency_key = idempotency_key

    @classmethod
    def from_cmd(cls, cmd: PublishCommand, *, batch: bool = False) -> "OutboxPublishCommand":
        """Take over what another broker's response asks for; the row is then written in a transaction of its own."""
        if isinstance(cmd, OutboxPublishCommand):
            return cmd
        body, bodies = cls._parse_bodies(cmd.body, batch=batch)
        return cls(
            body,
            *bodies,
            queue=cmd.destination,
            session=None,
            headers=cmd.headers,
            correlation_id=cmd.correlation_id,
            reply_to=cmd.reply_to,
            publish_type=cmd.publish_type,
        )


def merge_headers(*mappings: Mapping[str, str] | None) -> dict[str, str]:
    """Put headers together; later ones replace earlier ones of their name.

    Raises:
        InvalidMessageError: One of them is not a mapping. Names and values are checked when a row is made of them.
    """
    merged: dict[str, str] = {}
    for headers in mappings:
        if headers is None:
            continue
        if type(headers) is not dict and not isinstance(headers, Mapping):
            raise InvalidMessageError("headers", f"must be a mapping of str to str, got {type(headers).__name__}")
        merged.update(headers)
    return merged
