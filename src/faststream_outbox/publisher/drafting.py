"""Makes the drafts of what one command publishes."""

from collections.abc import Callable, Mapping, Sequence

from faststream_outbox._values.draft import Draft, DraftMaker
from faststream_outbox.exceptions import InvalidMessageError
from faststream_outbox.publisher.tracing import current_trace_headers, with_trace
from faststream_outbox.response import OutboxPublishCommand, Outgoing, merge_headers


class Drafting:
    """What the messages of a command have in common, checked and put together once.

    Args:
        cmd: What the middlewares left of it.
        max_payload_bytes: The largest encoded body.
        copies: Names the queues that get a copy of what is published to a queue.
        expected: How many messages there are.

    Raises:
        InvalidMessageError: Something of the command itself is refused.
    """

    def __init__(
        self,
        cmd: OutboxPublishCommand,
        *,
        max_payload_bytes: int,
        copies: Callable[[str], Sequence[str]],
        expected: int = 1,
    ) -> None:
        self._maker = DraftMaker(
            queue=cmd.destination,
            max_payload_bytes=max_payload_bytes,
            correlation_id=cmd.correlation_id,
            activate_in=cmd.activate_in,
            activate_at=cmd.activate_at,
            timer_id=cmd.timer_id,
            copies=copies,
            expected=expected,
        )
        self._key = cmd.key
        self._idempotency_key = cmd.idempotency_key
        self._headers = cmd.headers
        self._trace = current_trace_headers()
        # Those of messages without headers of their own, by content type.
        self._shared: dict[str | None, Mapping[str, str]] = {}

    def draft(self, message: Outgoing, payload: bytes, content_type: str | None) -> Draft:
        """Return the draft of one message, whose own properties come before the command's.

        Raises:
            InvalidMessageError: Something of the message is refused.
        """
        if message.headers is None:
            headers = self._shared.get(content_type)
            if headers is None:
                headers = self._shared[content_type] = self._make_headers(self._headers, content_type)
        else:
            headers = self._make_headers(merge_headers(self._headers, message.headers), content_type)
        key, idempotency_key = message.key, message.idempotency_key
        return self._maker.make(
            payload,
            headers,
            key=self._key if key is None else key,
            idempotency_key=self._idempotency_key if idempotency_key is None else idempotency_key,
        )

    def _make_headers(self, headers: Mapping[str, str], content_type: str | None) -> Mapping[str, str]:
        traced = with_trace(headers, self._trace)
        try:
            return self._maker.make_headers(traced, content_type)
        except InvalidMessageError:
            # Baggage may be too much for a message that is fine; if it is the message, that is told without the trace.
            return self._maker.make_headers(headers, content_type)
