from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from aiokafka.partitioner import DefaultPartitioner

from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.kafka.settings import KafkaSettings

PUBLISHED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def row(number: int, *, key: str | None = None, payload: bytes = b"", **headers: str) -> OutboxRow:
    return OutboxRow(
        id=number,
        queue="orders",
        key=key,
        idempotency_key=f"i-{number}",
        payload=payload,
        headers=headers,
        attempts_count=0,
        deliveries_count=0,
        created_at=PUBLISHED,
    )


def settings(**options: Any) -> KafkaSettings:
    defaults: dict[str, Any] = {
        "topic": "topic",
        "partition": None,
        "key": None,
        "headers": MappingProxyType({}),
        "partitioner": DefaultPartitioner(),
        "compression": 0,
        "batch_bytes": 2000,
        "max_record_bytes": 5000,
        "request_timeout": 40.0,
        "metadata_max_age": 300.0,
        "client_options": MappingProxyType({}),
    }
    return KafkaSettings(**(defaults | options))
