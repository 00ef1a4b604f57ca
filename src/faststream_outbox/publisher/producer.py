"""Where every published message becomes a row."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from faststream.exceptions import FeatureNotSupportedException

from faststream_outbox._engine.meter import NO_METER, Meter
from faststream_outbox._faststream import CodecProto, CustomCallable, ParserComposition, ProducerProto
from faststream_outbox._store.protocol import Writer
from faststream_outbox._values.staged import StagedMessage
from faststream_outbox.exceptions import InvalidMessageError
from faststream_outbox.parser import OutboxParser
from faststream_outbox.publisher.at_once import finish
from faststream_outbox.publisher.drafter import Drafter
from faststream_outbox.publisher.finite import check_finite
from faststream_outbox.response import OutboxPublishCommand, Outgoing

if TYPE_CHECKING:
    from fast_depends.library.serializer import SerializerProto

_JSON = "application/json"
"""What the default codec says of all that is no bytes, str or None."""

OWN_TRANSACTION: Any = object()
"""Stands for a session where a row is written on its own: what a handler with a stacked publisher returned."""


class OutboxProducer(ProducerProto[OutboxPublishCommand]):
    """Encodes bodies, checks messages, and writes rows in the caller's transaction.

    Args:
        writer: Returns what writes rows; a test may have put another in its place since.
        max_payload_bytes: The largest encoded body.
        codec: The broker's codec.
        serializer: Gives the broker's serializer, which an application may replace after the broker is made.
        parser: The broker's parser.
        decoder: The broker's decoder.
        copies: Names the queues that get a copy of what is published to a queue.
        meter: Told what was written.
    """

    def __init__(
        self,
        *,
        writer: Callable[[], Writer],
        max_payload_bytes: int,
        codec: CodecProto,
        serializer: "Callable[[], SerializerProto | None]",
        parser: CustomCallable | None = None,
        decoder: CustomCallable | None = None,
        copies: Callable[[str], Sequence[str]] = lambda _queue: (),
        meter: Meter = NO_METER,
    ) -> None:
        self._writer = writer
        self.codec = codec
        self._max_payload_bytes = max_payload_bytes
        self._copies = copies
        self._meter = meter
        self.duplicates = 0
        """Messages that were left out, since a live row has their idempotency key or timer id."""
        self._serializer = serializer
        self._parser = ParserComposition(parser, OutboxParser.parse_message)
        self._decoder = ParserComposition(decoder, OutboxParser.decode_message)

    @property
    def writer(self) -> Writer:
        """What writes rows."""
        return self._writer()

    async def publish(self, cmd: OutboxPublishCommand) -> int | None:
        """Write one row; None where it is a live duplicate."""
        began = time.monotonic()
        encoded = await self._encode(cmd.body, self._serializer())
        draft = self._drafter(cmd).draft(*encoded)
        if cmd.session is OWN_TRANSACTION:
            return self._noted(cmd, began, await self.writer.insert_alone(draft))
        return self._noted(cmd, began, await self.writer.insert(cmd.session, draft))

    def publish_sync(self, cmd: OutboxPublishCommand) -> int | None:
        """Write one row as ``publish`` does, for a caller that cannot await."""
        began = time.monotonic()
        encoded = self._encode_now(cmd.body)
        draft = self._drafter(cmd).draft(*encoded)
        return self._noted(cmd, began, self.writer.insert_sync(cmd.session, draft))

    async def stage(self, cmd: OutboxPublishCommand) -> StagedMessage:
        """Encode and check one message, and put it into the caller's session; awaits the codec alone."""
        encoded = await self._encode(cmd.body, self._serializer())
        draft = self._drafter(cmd).draft(*encoded)
        message = StagedMessage(draft.queue, draft.idempotency_key)
        self.writer.stage(cmd.session, draft, message, self._note)
        return message

    def _noted(self, cmd: OutboxPublishCommand, began: float, row_id: int | None) -> int | None:
        duplicates = int(row_id is None)
        self._note(cmd.destination, rows=1 - duplicates, duplicates=duplicates, seconds=time.monotonic() - began)
        return row_id

    def _note(self, queue: str, *, rows: int, duplicates: int, seconds: float) -> None:
        self.duplicates += duplicates
        self._meter.published(queue, rows=rows, duplicates=duplicates, seconds=seconds)

    async def publish_batch(self, cmd: OutboxPublishCommand) -> list[int]:
        """Write a row for each body, in their order; live duplicates are left out."""
        bodies = cmd.batch_bodies
        if not bodies:
            return []
        began = time.monotonic()
        drafter, serializer = self._drafter(cmd, expected=len(bodies)), self._serializer()
        drafts = []
        for body in bodies:
            message = body if isinstance(body, Outgoing) else Outgoing(body)
            encoded = await self._encode(message.body, serializer)
            draft = drafter.draft(
                *encoded, headers=message.headers, key=message.key, idempotency_key=message.idempotency_key
            )
            drafts.append(draft)
        ids = await self.writer.insert_many(cmd.session, drafts)
        duplicates = len(drafts) - len(ids)
        self._note(cmd.destination, rows=len(ids), duplicates=duplicates, seconds=time.monotonic() - began)
        return ids

    async def cancel_timer(self, session: Any, *, queue: str, timer_id: str) -> bool:
        """Take a message back, with its copies, as far as no consumer has taken them; tell of the message itself."""
        return await self.writer.cancel_timer(session, queue=queue, timer_id=timer_id, copies=self._copies(queue))

    async def request(self, cmd: OutboxPublishCommand) -> Any:
        msg = "The outbox has no request and reply: the answer would come after the transaction that asked."
        raise FeatureNotSupportedException(msg)

    async def _encode(self, body: Any, serializer: "SerializerProto | None") -> tuple[bytes, str | None]:
        try:
            payload, content_type = await self.codec.encode(body, serializer)
        except Exception as error:
            problem = f"cannot be encoded: {type(error).__name__}: {error}"
            raise InvalidMessageError("body", problem) from error
        if not isinstance(payload, bytes):
            problem = f"cannot be encoded: {type(self.codec).__name__} gave {type(payload).__name__} instead of bytes"
            raise InvalidMessageError("body", problem)
        if content_type == _JSON:
            check_finite(body, payload)
        return payload, content_type

    def _encode_now(self, body: Any) -> tuple[bytes, str | None]:
        refusal = f"publish_sync cannot wait for the broker's codec {type(self.codec).__name__}, whose encode awaits"
        return finish(self._encode(body, self._serializer()), refusal=refusal)

    def _drafter(self, cmd: OutboxPublishCommand, *, expected: int = 1) -> Drafter:
        return Drafter(
            queue=cmd.destination,
            max_payload_bytes=self._max_payload_bytes,
            headers=cmd.headers,
            key=cmd.key,
            idempotency_key=cmd.idempotency_key,
            correlation_id=cmd.correlation_id,
            activate_in=cmd.activate_in,
            activate_at=cmd.activate_at,
            timer_id=cmd.timer_id,
            timer_conflict=cmd.timer_conflict,
            copies=self._copies,
            expected=expected,
        )
