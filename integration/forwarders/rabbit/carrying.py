"""Messages of a queue in the shape in which the checks of all destinations look at them."""

from collections.abc import Sequence
from typing import Any

from aio_pika.abc import AbstractIncomingMessage
from aiokafka import ConsumerRecord

from integration.forwarders.carrying import check_complete, check_order, row_id, without_repeats
from integration.servers.topics import Record

__all__ = ("as_records", "check_complete", "check_order", "row_id", "text_headers", "without_repeats")


def text_headers(message: AbstractIncomingMessage) -> dict[str, Any]:
    return dict(message.headers)


def as_records(messages: Sequence[AbstractIncomingMessage]) -> list[Record]:
    """The messages of one queue, as if it were a partition."""
    return [_as_record(offset, message) for offset, message in enumerate(messages)]


def _as_record(offset: int, message: AbstractIncomingMessage) -> Record:
    headers = [(name, str(value).encode()) for name, value in message.headers.items()]
    key = message.headers.get("outbox-key")
    return ConsumerRecord(
        topic="",
        partition=0,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=None if key is None else str(key).encode(),
        value=message.body,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=len(message.body),
        headers=headers,
    )
