"""The options of a forwarder, each once, with its type and its meaning."""

from typing import Literal

from tenacity.stop import stop_base
from tenacity.wait import wait_base
from typing_extensions import TypedDict

from faststream_outbox.forwarders.transform import Transform
from faststream_outbox.retry import RetryStrategy


class ForwarderOptions(TypedDict, total=False):
    """Options of ``broker.forwarder(queues, to=..., ...)``."""

    name: str | None
    """A stable name for logs and for the queue of copies. Default: kind and address of the destination, as in
    ``kafka:orders.v1``."""

    tee: bool
    """True: a consumer of its own copy of each message, beside the queue's other consumers. Publishing on this broker
    writes one more row for it in the same statement, with the same idempotency key, into a queue named as in
    ``orders=>kafka:orders.v1``; its dead letters are found under that name. A message that another broker object
    publishes has no copy. A forwarder with another name is another consumer, and copies under the old name stay.
    Default: False."""

    transform: Transform | None
    """Called with each message before it is sent. It returns a ``Forward`` with the changes, or None to drop the
    message, which counts as delivered. A plain function, quick, and with the same result each time for the same
    message, since it is called again for each attempt. If it raises, only that message has failed: it is retried by
    ``retry_strategy``, and holds back the later ones of its key. Default: messages are sent as they are."""

    batch_size: int
    """The most rows of one hand-over. Default: 500."""

    batch_bytes: int
    """The most bytes of payloads and headers of one hand-over; a larger message is sent alone. A lane holds about twice
    as much in memory. Headers count as they are stored, which may be compressed. Default: 8 MiB."""

    lanes: int
    """Hand-overs in parallel in this process, each with a connection to PostgreSQL while it lasts. Over all processes
    16 can be at work for each queue. The order of a key holds with any number. Default: 2."""

    send_timeout: float | None
    """Seconds after which a hand-over is given up and its rows are sent again later. A message that has not left this
    process by then is not sent any more. A message that the network, the server or a connection of the application
    has may still arrive, with the same idempotency key. Default: 5 seconds more than the client's own time-out. That
    is 45 seconds for Kafka, 10 for Redis and NATS, 35 for RabbitMQ, Confluent Kafka and all others."""

    allow_lossy: bool
    """True: accept a Redis channel, NATS without a stream, MQTT with QoS 0 or RabbitMQ with ``expiration=0``. They lose
    a message if no consumer listens at that moment. Default: False."""

    envelope: Literal["cloudevents", "plain"] | None
    """How a message and its headers are put together. Default: None, as FastStream's consumers read them.

    ``"plain"``: an entry of a Redis stream has the payload in the field ``body`` and each header in a field of its own,
    so that any client reads it. FastStream's own subscribers do not. A message with a header ``body`` is a dead letter.

    ``"cloudevents"``: rows to Kafka and RabbitMQ are CloudEvents 1.0 in binary mode. The payload and the package's
    own headers stay as they are. These attributes are added: ``ce_id`` is the idempotency key,
    ``ce_type`` the queue, ``ce_source`` ``/outbox/<queue>``, ``ce_time`` the time of publishing, ``ce_partitionkey``
    the row's key. Headers of the caller replace them (``ce_type``, ``ce_source``, ``ce_subject``, ...), except
    ``ce_id`` and ``ce_specversion``. RabbitMQ has two bindings, so each attribute is there twice, as ``ce-id`` and
    ``cloudEvents_id``."""

    tombstones: bool
    """True: a message to Kafka whose body is None is sent with a null value if its record has a key. A compacted topic
    then deletes the values of that key. The table does not distinguish the body ``b""`` from None. False: the message
    is sent with an empty value, which deletes nothing. Default: False."""

    retry_strategy: RetryStrategy | tuple[wait_base, stop_base] | None
    """When a row that the destination refused is sent again; outages do not count. Default: ``ExponentialRetry()``."""

    count_nacks: bool
    """The meaning of RabbitMQ's basic.nack, which is about a queue and not about the message: the queue is full and
    rejects (``x-overflow: reject-publish``), or its node is down. False: an outage of that routing key. Its messages
    wait, and no attempt is counted. One message tries now and then, at most a minute apart. Other routing keys go on,
    and ``status().parts_down`` counts the tries. True: basic.nack refuses the message. That counts as an attempt, and
    the message becomes a dead letter when ``retry_strategy`` gives up. Use it for an exchange that binds several
    queues: each try of a message that one queue rejects gives the other queues a copy. Default: False."""

    exactly_once: bool
    """True: each message is in the Kafka topic, or in the Redis stream or list, once, also after crashes, time-outs and
    changes of leaders, for every reader: see docs/exactly-once.md. It needs ``OutboxBroker(..., position_table=...)``;
    to Kafka the right to read the topic beside that to write to it, to Redis the right to scripts. To Kafka, the
    partition of a message without a key goes by its id. Where it cannot be known whether a message was sent, as after a
    topic was made anew, it is sent, and ``status().maybe_repeated`` counts that. ``status().maybe_lost`` counts how
    often Redis lacked what it had acknowledged. What is kept goes by the forwarder's name: under another ``name`` it
    begins anew. Default: False, a crash may repeat what was on its way."""

    hold_key: bool
    """True: if a message with a key becomes a dead letter, the later messages of that key wait until it is replayed or
    discarded (``broker.dead_letters``). It is parked in the outbox table, even if there is a dead-letter table. One
    message of each key is sent at a time, so that none is ahead when an earlier one fails for good. With few keys this
    is slower. False: the key goes on without the dead letter. Default: False."""

    min_fetch_interval: float
    """Seconds until the first look without a wake-up. Default: 1.0."""

    max_fetch_interval: float
    """Seconds at which the interval stops growing while nothing is found. Rows of a killed process may wait so long,
    because no notification comes for them. Default: 1.5."""
