"""Where every published message becomes a row."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from faststream.exceptions import FeatureNotSupportedException

from faststream_outbox._faststream import CodecProto, CustomCallable, ParserComposition, ProducerProto
from faststream_outbox._store.protocol import Writer
from faststream_outbox._values.draft import Draft
from faststream_outbox.exceptions import ConfigError, InvalidMessageError
from faststream_outbox.parser import OutboxParser
from faststream_outbox.publisher.tracing import current_trace_headers, with_trace
from faststream_outbox.response import OutboxPublishCommand, Outgoing, merge_headers

if TYPE_CHECKING:
    from fast_depends.library.serializer import SerializerProto

OWN_TRANSACTION: Any = object()
"""Stands for a session where a row is written on its own: what a handler with a stacked publisher returned."""


class OutboxProducer(ProducerProto[OutboxPublishCommand]):
    """Encodes bodies, checks messages, and writes rows in the caller's transaction.

    Args:
        writer: Writes rows.
        max_payload_bytes: The largest encoded body.
        begin: Opens a transaction for a row without a caller's session.
        codec: The broker's codec.
        serializer: Gives the broker's serializer, which an application may replace after the broker is made.
        parser: The broker's parser.
        decoder: The broker's decoder.
        copies: Names the queues that get a copy of what is published to a queue.
    """

    def __init__(
        self,
        *,
        writer: Writer,
        max_payload_bytes: int,
        begin: Callable[[], AbstractAsyncContextManager[Any]],
        codec: CodecProto,
        serializer: "Callable[[], SerializerProto | None]",
        parser: CustomCallable | None = None,
        decoder: CustomCallable | None = None,
        copies: Callable[[str], Sequence[str]] = lambda _queue: (),
    ) -> None:
        self.writer = writer
        self.codec = codec
        self._max_payload_bytes = max_payload_bytes
        self._begin = begin
        self._copies = copies
        self._serializer = serializer
        self._parser = ParserComposition(parser, OutboxParser.parse_message)
        self._decoder = ParserComposition(decoder, OutboxParser.decode_message)

    async def publish(self, cmd: OutboxPublishCommand) -> int | None:
        """Write one row; None where it is a live duplicate."""
        draft = self._draft(cmd, Outgoing(cmd.body), current_trace_headers(), *await self._encode(cmd.body))
        if cmd.session is OWN_TRANSACTION:
            async with self._begin() as session:
                return await self.writer.insert(session, draft)
        return await self.writer.insert(cmd.session, draft)

    def publish_sync(self, cmd: OutboxPublishCommand) -> int | None:
        """The same for a caller that cannot await."""
        draft = self._draft(cmd, Outgoing(cmd.body), current_trace_headers(), *self._encode_now(cmd.body))
        return self.writer.insert_sync(cmd.session, draft)

    async def publish_batch(self, cmd: OutboxPublishCommand) -> list[int]:
        """Write a row for each body, in their order; live duplicates are left out."""
        drafts, trace = [], current_trace_headers()
        for body in cmd.batch_bodies:
            message = body if isinstance(body, Outgoing) else Outgoing(body)
            drafts.append(self._draft(cmd, message, trace, *await self._encode(message.body)))
        if not drafts:
            return []
        return await self.writer.insert_many(cmd.session, drafts)

    async def cancel_timer(self, session: Any, *, queue: str, timer_id: str) -> bool:
        """Take a message back, with its copies, as far as no consumer has taken them; tell of the message itself."""
        return await self.writer.cancel_timer(session, queue=queue, timer_id=timer_id, copies=self._copies(queue))

    async def request(self, cmd: OutboxPublishCommand) -> Any:
        msg = "The outbox has no request and reply: the answer would come after the transaction that asked."
        raise FeatureNotSupportedException(msg)

    async def _encode(self, body: Any) -> tuple[bytes, str | None]:
        try:
            payload, content_type = await self.codec.encode(body, self._serializer())
        except Exception as error:
            problem = f"cannot be encoded: {type(error).__name__}: {error}"
            raise InvalidMessageError("body", problem) from error
        if not isinstance(payload, bytes):
            problem = f"cannot be encoded: {type(self.codec).__name__} gave {type(payload).__name__} instead of bytes"
            raise InvalidMessageError("body", problem)
        return payload, content_type

    def _encode_now(self, body: Any) -> tuple[bytes, str | None]:
        encoding = self._encode(body)
        try:
            encoding.send(None)
        except StopIteration as finished:
            encoded: tuple[bytes, str | None] = finished.value
            return encoded
        encoding.close()
        msg = f"publish_sync cannot wait for the broker's codec {type(self.codec).__name__}, whose encode awaits"
        raise ConfigError(msg)

    def _draft(
        self,
        cmd: OutboxPublishCommand,
        message: Outgoing,
        trace: Mapping[str, str],
        payload: bytes,
        content_type: str | None,
    ) -> Draft:
        headers = merge_headers(cmd.headers, message.headers)
        make = partial(
            Draft.make,
            payload,
            queue=cmd.destination,
            content_type=content_type,
            max_payload_bytes=self._max_payload_bytes,
            key=cmd.key if message.key is None else message.key,
            correlation_id=cmd.correlation_id,
            idempotency_key=cmd.idempotency_key if message.idempotency_key is None else message.idempotency_key,
            activate_in=cmd.activate_in,
            activate_at=cmd.activate_at,
            timer_id=cmd.timer_id,
        )
        try:
            draft = make(headers=with_trace(headers, trace))
        except InvalidMessageError:
            # Baggage may be too much for a message that is fine; if it is the message, that is told without the trace.
            draft = make(headers=headers)
        copies = self._copies(draft.queue)
        return replace(draft, copies=copies) if copies else draft
