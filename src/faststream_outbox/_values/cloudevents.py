"""A row as a CloudEvent in binary mode: its attributes beside the payload, which stays as it is.

Attributes and their meaning: CloudEvents 1.0.2, "Context Attributes", and its "Partitioning" extension.
"""

import re
from urllib.parse import quote

from faststream_outbox._values.copies import origin_of
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import rfc3339, wire_headers

SPEC_VERSION = "1.0"

KAFKA_PREFIX = "ce_"
"""CloudEvents' Kafka protocol binding, "Binary Content Mode". So callers name attributes, whatever the destination."""

RABBIT_PREFIXES = ("ce-", "cloudEvents_")
"""There are two bindings that RabbitMQ's consumers read: Knative's RabbitMQ protocol binding, and CloudEvents' own for
AMQP 1.0, in which RabbitMQ shows headers as application properties."""

_ATTRIBUTE = re.compile(rf"{KAFKA_PREFIX}([a-z0-9]{{1,100}})", re.IGNORECASE | re.ASCII)
"""A header of the caller that names an attribute: CloudEvents 1.0.2, "Attribute Naming Convention"."""


def kafka_headers(row: OutboxRow) -> dict[str, str]:
    """Return a row's headers as ``wire_headers`` does, with the attributes of the event among them."""
    return _headers(row, (KAFKA_PREFIX,))


def rabbit_headers(row: OutboxRow) -> dict[str, str]:
    """Return a row's headers as ``wire_headers`` does, with the attributes of the event among them."""
    return _headers(row, RABBIT_PREFIXES)


def attributes(row: OutboxRow) -> dict[str, str]:
    """Return the attributes of a row's event, without ``datacontenttype``, the content type of each binding.

    ``id`` is the idempotency key, ``type`` the queue that was published to, ``source`` ``/outbox/<queue>``, ``time``
    the time of publishing, ``partitionkey`` the row's key, if it has one. The caller's headers win, but for ``id`` and
    ``specversion``:
    ``publish(..., headers={"ce_type": "order.placed", "ce_subject": "17"})``.
    """
    queue = origin_of(row.queue)
    made = {"type": queue, "source": f"/outbox/{quote(queue, safe='')}", "time": rfc3339(row.created_at)}
    if row.key is not None:
        made["partitionkey"] = row.key
    for header, value in row.headers.items():
        # An attribute cannot be empty.
        if value and (found := _ATTRIBUTE.fullmatch(header)):
            made[found[1].lower()] = value
    made.update(id=row.idempotency_key, specversion=SPEC_VERSION)
    return made


def _headers(row: OutboxRow, prefixes: tuple[str, ...]) -> dict[str, str]:
    headers = {name: value for name, value in wire_headers(row).items() if not _ATTRIBUTE.fullmatch(name)}
    its_attributes = attributes(row)
    for prefix in prefixes:
        headers.update((f"{prefix}{name}", value) for name, value in its_attributes.items())
    return headers
