"""A publisher with a queue of its own."""

from collections.abc import Iterable, Mapping
from typing import Any

from faststream.response import PublishCommand
from typing_extensions import Unpack

from faststream_outbox._faststream import PublisherMiddleware, PublisherSpecification, PublisherUsecase, SendableMessage
from faststream_outbox.checks import check_options
from faststream_outbox.publisher.config import OutboxPublisherConfig
from faststream_outbox.publisher.message_options import MessageOptions
from faststream_outbox.publisher.producer import OWN_TRANSACTION
from faststream_outbox.response import OutboxPublishCommand, merge_headers


class OutboxPublisher(PublisherUsecase):
    """Publishes to one queue, by ``publish`` or as a decorator over a handler.

    Stacked over a handler, what the handler returns is written after the handler has ended, in a transaction of its
    own: at least once, but not with the handler's writes. To commit both together, return an ``OutboxResponse``.
    """

    def __init__(self, config: OutboxPublisherConfig, specification: PublisherSpecification[Any, Any]) -> None:
        super().__init__(config, specification)
        self._queue = config.queue
        self.headers: Mapping[str, str] = config.headers

    @property
    def queue(self) -> str:
        """The queue's name, with the prefixes of the routers that the publisher stands on."""
        return f"{self._outer_config.prefix}{self._queue}"

    async def publish(  # type: ignore[override]  # a session is what the outbox is about
        self,
        message: SendableMessage,
        *,
        session: Any,
        headers: Mapping[str, str] | None = None,
        correlation_id: str | None = None,
        **options: Unpack[MessageOptions],
    ) -> int | None:
        """Write one message in the caller's transaction; see ``OutboxBroker.publish``."""
        check_options("publish", options, MessageOptions)
        cmd = OutboxPublishCommand(
            message,
            queue=self.queue,
            session=session,
            headers=merge_headers(self.headers, headers),
            correlation_id=correlation_id or self._outer_config.id_generator(),
            **options,
        )
        row_id: int | None = await self._basic_publish(cmd, producer=self._outer_config.producer, _extra_middlewares=())
        return row_id

    async def _publish(self, cmd: PublishCommand, *, _extra_middlewares: Iterable[PublisherMiddleware]) -> None:
        """Publish what a handler returned."""
        cmd = OutboxPublishCommand.from_cmd(cmd)
        # The handler's own session is closed by now.
        cmd.session = OWN_TRANSACTION
        cmd.destination = self.queue
        cmd.add_headers(dict(self.headers), override=False)
        await self._basic_publish(cmd, producer=self._outer_config.producer, _extra_middlewares=_extra_middlewares)

    async def request(self, message: SendableMessage, /, **options: Any) -> Any:
        """Not supported: the answer would come after the transaction that asked."""
        cmd = OutboxPublishCommand(message, queue=self.queue, session=None)
        return await self._basic_request(cmd, producer=self._outer_config.producer)
