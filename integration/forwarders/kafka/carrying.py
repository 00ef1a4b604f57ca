"""A topic as a plain consumer sees it, and the checks of the suite on its records."""

from collections.abc import Iterable, Sequence

from integration.forwarders import carrying
from integration.forwarders.boxes.kafka import as_received
from integration.forwarders.carrying import HAND_OVERS, Publishing, connections_to
from integration.servers.topics import Record, read_topic

__all__ = (
    "HAND_OVERS",
    "Publishing",
    "Topic",
    "check_complete",
    "check_order",
    "connections_to",
    "headers_of",
    "row_id",
)


class Topic:
    """A topic seen by a plain consumer."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.bootstrap = bootstrap
        self.name = name

    async def records(self, expected: int) -> list[Record]:
        """All records there are, once they are as many as expected."""
        return await read_topic(self.bootstrap, self.name, expected)


def headers_of(record: Record) -> dict[str, str]:
    return as_received(record).headers


def row_id(record: Record) -> int:
    return as_received(record).row_id


def check_order(records: Sequence[Record]) -> None:
    carrying.check_order([as_received(record) for record in records])


def check_complete(records: Sequence[Record], ids: Iterable[int]) -> None:
    carrying.check_complete([as_received(record) for record in records], ids)
