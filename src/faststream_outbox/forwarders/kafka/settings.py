"""What a forwarder takes over from a Kafka publisher and its broker."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import codec
from aiokafka.partitioner import DefaultPartitioner
from faststream.kafka.publisher.usecase import BatchPublisher, LogicPublisher

from faststream_outbox._faststream import broker_of, connection_options
from faststream_outbox._values.wire import HeadersOf, beside, wire_headers
from faststream_outbox.exceptions import ConfigError

CLIENT_OPTIONS = (
    "bootstrap_servers",
    "client_id",
    "connections_max_idle_ms",
    "metadata_max_age_ms",
    "request_timeout_ms",
    "retry_backoff_ms",
    "sasl_kerberos_domain_name",
    "sasl_kerberos_service_name",
    "sasl_mechanism",
    "sasl_oauth_token_provider",
    "sasl_plain_password",
    "sasl_plain_username",
    "security_protocol",
    "ssl_context",
)

MIN_BATCH_BYTES = 128 * 1024
"""aiokafka's 16 KiB are for records that trickle in. A hand-over is all there, and each batch costs a round trip."""

COMPRESSION_CODES: Mapping[str | None, int] = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
"""Bits of a record batch's attributes: Kafka's documentation, "Record Batch"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """Where records go and how they are made."""

    topic: str
    partition: int | None
    """All records go there; None: by key."""
    key: bytes | None
    """The record key of rows without one."""
    headers: Mapping[str, bytes] = field(repr=False)
    """Of every record, beside the row's own."""
    partitioner: Callable[[bytes, list[int], list[int]], int]
    compression: int
    batch_bytes: int
    """A record batch is closed before it grows beyond that."""
    max_record_bytes: int
    """A larger record is not sent."""
    request_timeout: float
    """Seconds until a request without an answer has failed."""
    metadata_max_age: float
    """Seconds until it is asked again where the partitions are, without an error as a reason."""
    client_options: Mapping[str, Any] = field(repr=False)
    """With passwords."""
    headers_of: HeadersOf = wire_headers
    """Gives the row's own."""
    tombstones: bool = False
    """Whether a row that was published with the body None, and has a record key, is sent with a null value."""

    @classmethod
    def of(
        cls, publisher: LogicPublisher, headers_of: HeadersOf = wire_headers, *, tombstones: bool = False
    ) -> "KafkaSettings":
        """Read and check the settings of a publisher and its broker.

        Args:
            publisher: Of a topic.
            headers_of: Gives each row's headers.
            tombstones: Whether the body None is sent as a null value.

        Raises:
            ConfigError: One of them is not safe or cannot work; the message says what to write instead.
        """
        if isinstance(publisher, BatchPublisher):
            msg = "to: a forwarder makes its own batches; give a publisher without batch=True"
            raise ConfigError(msg)
        options = connection_options(broker_of(publisher))
        _check_acks(options)
        max_request_size = options["max_request_size"]
        return cls(
            topic=publisher.topic,
            partition=publisher.partition,
            key=_check_key(getattr(publisher, "key", None)),
            headers=_encode_headers(publisher),
            partitioner=options.get("partitioner") or DefaultPartitioner(),
            compression=_compression(options.get("compression_type")),
            batch_bytes=min(max(options["max_batch_size"], MIN_BATCH_BYTES), max_request_size),
            max_record_bytes=max_request_size,
            request_timeout=options["request_timeout_ms"] / 1000,
            metadata_max_age=options["metadata_max_age_ms"] / 1000,
            headers_of=beside(publisher.headers, headers_of),
            tombstones=tombstones,
            client_options={name: options[name] for name in CLIENT_OPTIONS if name in options},
        )


def _check_acks(options: Mapping[str, Any]) -> None:
    acks = options.get("acks")
    # If acks is not given, idempotence means all of them.
    if acks in ("all", -1) or (options.get("enable_idempotence") and not isinstance(acks, int | str)):
        return
    shown = f"acks={acks!r}" if isinstance(acks, int | str) else "the default of acks=1"
    msg = f"to: {shown} can lose acknowledged records; write KafkaBroker(..., acks='all')"
    raise ConfigError(msg)


def _check_key(key: Any) -> bytes | None:
    if key is None or isinstance(key, bytes):
        return key
    msg = f"to: the publisher's key must be bytes, got {type(key).__name__}; write key={str(key).encode()!r}"
    raise ConfigError(msg)


def _encode_headers(publisher: LogicPublisher) -> dict[str, bytes]:
    headers: dict[Any, Any] = dict(publisher.headers)
    if publisher.reply_to:
        headers["reply_to"] = publisher.reply_to
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            msg = f"to: the publisher's headers must be a mapping of str to str, got {name!r}: {value!r}"
            raise ConfigError(msg)
    return {name: value.encode() for name, value in headers.items()}


def _compression(name: str | None) -> int:
    available: Sequence[tuple[str | None, Callable[[], bool]]] = (
        (None, lambda: True),
        ("gzip", codec.has_gzip),
        ("snappy", codec.has_snappy),
        ("lz4", codec.has_lz4),
        ("zstd", codec.has_zstd),
    )
    if name not in COMPRESSION_CODES or not dict(available)[name]():
        msg = f"to: compression_type={name!r} is unknown, or its library is not installed; write pip install cramjam"
        raise ConfigError(msg)
    return COMPRESSION_CODES[name]
