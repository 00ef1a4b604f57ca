"""Makes the drafts of what one command publishes."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

from faststream_outbox._values.draft import Draft
from faststream_outbox._values.limits import (
    EXTEND,
    MAX_IDEMPOTENCY_KEY_BYTES,
    MAX_KEY_BYTES,
    check_activation,
    check_headers,
    check_optional_name,
    check_queue,
    check_timer_conflict,
)
from faststream_outbox._values.texts import check_name
from faststream_outbox._values.uuid7 import uuid7s
from faststream_outbox._values.wire import CONTENT_TYPE, CORRELATION_ID
from faststream_outbox.exceptions import InvalidMessageError
from faststream_outbox.publisher.tracing import current_trace_headers, with_trace
from faststream_outbox.response import merge_headers


class Drafter:
    """Checks what the messages of one command have in common, once, and makes a draft of each.

    Args:
        queue: Of every message.
        max_payload_bytes: The largest encoded body.
        headers: Of every message.
        key: Of every message that has none of its own.
        idempotency_key: Of the message, if it has none of its own.
        correlation_id: Of every message.
        activate_in: Of every message.
        activate_at: Of every message.
        timer_id: Of every message.
        timer_conflict: Of every message.
        copies: Names the queues that get a copy of what is published to a queue.
        expected: How many messages there probably are.

    Raises:
        InvalidMessageError: The first part that is refused, with its limit.
    """

    def __init__(
        self,
        *,
        queue: str,
        max_payload_bytes: int,
        headers: Mapping[str, str] = MappingProxyType({}),
        key: str | None = None,
        idempotency_key: str | None = None,
        correlation_id: str | None = None,
        activate_in: timedelta | None = None,
        activate_at: datetime | None = None,
        timer_id: str | None = None,
        timer_conflict: str = "keep",
        copies: Callable[[str], Sequence[str]] = lambda _queue: (),
        expected: int = 1,
    ) -> None:
        check_queue(queue)
        check_optional_name("timer_id", timer_id, MAX_IDEMPOTENCY_KEY_BYTES)
        check_optional_name("correlation_id", correlation_id, MAX_IDEMPOTENCY_KEY_BYTES)
        check_activation(activate_in, activate_at)
        check_timer_conflict(timer_conflict, timer_id, idempotency_key)
        self._queue = queue
        self._max_payload_bytes = max_payload_bytes
        self._headers = headers
        self._key = key
        self._idempotency_key = idempotency_key
        self._correlation_id = correlation_id
        self._activate_in = activate_in
        self._activate_at = activate_at
        self._timer_id = timer_id
        self._moves_timer = timer_conflict == EXTEND
        self._copies = copies(queue)
        self._uuids = uuid7s(expected)
        self._trace = current_trace_headers()
        # Those of messages without headers of their own, by content type.
        self._shared: dict[str | None, Mapping[str, str]] = {}

    def draft(
        self,
        payload: bytes,
        content_type: str | None,
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Draft:
        """Return the draft of one message, whose own properties come before those of all.

        Args:
            payload: The encoded body.
            content_type: What its codec says of it.
            headers: Its own, beside those of all; drafts without any share one mapping.
            key: What its order depends on.
            idempotency_key: Default: a new UUIDv7.

        Raises:
            InvalidMessageError: The first part that is refused, with its limit.
        """
        if headers is None:
            made = self._shared.get(content_type)
            if made is None:
                made = self._shared[content_type] = self._make_headers(self._headers, content_type)
        else:
            made = self._make_headers(merge_headers(self._headers, headers), content_type)
        if key is None:
            key = self._key
        if key is not None:
            check_name("key", key, MAX_KEY_BYTES)
        if idempotency_key is None:
            idempotency_key = self._idempotency_key
        if idempotency_key is not None:
            check_name("idempotency_key", idempotency_key, MAX_IDEMPOTENCY_KEY_BYTES)
        if len(payload) > self._max_payload_bytes:
            problem = f"is {len(payload)} bytes encoded, the broker's max_payload_bytes is {self._max_payload_bytes}"
            raise InvalidMessageError("body", problem)
        # By position: names would cost as much again, a thousand times in a batch.
        return Draft(
            self._queue,
            key,
            next(self._uuids) if idempotency_key is None else idempotency_key,
            idempotency_key is not None,
            payload,
            made,
            self._activate_in,
            self._activate_at,
            self._timer_id,
            self._copies,
            self._moves_timer,
        )

    def _make_headers(self, headers: Mapping[str, str], content_type: str | None) -> Mapping[str, str]:
        traced = with_trace(headers, self._trace)
        try:
            return self._checked(traced, content_type)
        except InvalidMessageError:
            # Baggage may be too much for a message that is fine; if it is the message, that is told without the trace.
            return self._checked(headers, content_type)

    def _checked(self, headers: Mapping[str, str], content_type: str | None) -> Mapping[str, str]:
        check_headers(headers)
        made: dict[str, str] = {}
        if content_type is not None:
            made[CONTENT_TYPE] = content_type
        made.update(headers)
        if self._correlation_id is not None:
            made[CORRELATION_ID] = self._correlation_id
        return made
