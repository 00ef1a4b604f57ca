"""Messages of a queue in the shape in which the checks of all destinations look at them."""

from collections.abc import Sequence

from aio_pika.abc import AbstractIncomingMessage

from integration.forwarders.boxes import Received
from integration.forwarders.boxes.rabbit import as_received
from integration.forwarders.carrying import check_complete, check_order, without_repeats

__all__ = ("as_records", "check_complete", "check_order", "row_id", "without_repeats")


def as_records(messages: Sequence[AbstractIncomingMessage]) -> list[Received]:
    return [as_received(message) for message in messages]


def row_id(record: Received) -> int:
    return record.row_id
