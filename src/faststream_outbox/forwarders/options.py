"""What can be said of a forwarder: each option once, with its type and its meaning."""

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
    ``orders=>kafka:orders.v1``: under that name its dead letters are found. What another broker object publishes has no
    copy. Under another name it is another consumer, and the copies under the old one stay. Default: False."""

    transform: Transform | None
    """Called with each message before it is sent: returns a ``Forward``, which says what is to be other than published,
    or None to drop the message, which counts as delivered. A plain function, quick, and always with the same result for
    the same message, since it is called again for each attempt. When it raises, that message alone has failed: it is
    retried by ``retry_strategy``, and holds back the later ones of its key. Default: messages are sent as they are."""

    batch_size: int
    """The most rows of one hand-over. Default: 500."""

    batch_bytes: int
    """The most bytes of payloads and headers of one hand-over; a message that has more by itself is sent alone. It
    bounds what a lane holds in memory, to about twice as much. Headers count as they are stored, which may be
    compressed. Default: 8 MiB."""

    lanes: int
    """Hand-overs in parallel in this process, each with a connection to PostgreSQL while it lasts. Over all processes
    16 can be at work for each queue. The order of a key holds with any number. Default: 2."""

    send_timeout: float | None
    """Seconds after which a hand-over is given up and its rows are sent again later. What has not left this process by
    then is not sent any more; what the network, the server or a connection of the application's own has may still
    arrive, with the same idempotency key. Default: 5 seconds more than the destination client's own time-out, in all
    45 seconds for Kafka, 10 for Redis and NATS, 35 for RabbitMQ, Confluent Kafka and all others."""

    allow_lossy: bool
    """True: a Redis channel, NATS without a stream, MQTT with QoS 0 or RabbitMQ with ``expiration=0`` will do, where a
    message is lost when nobody listens at that moment. Default: False."""

    envelope: Literal["cloudevents"] | None
    """``"cloudevents"``: to Kafka and RabbitMQ, rows travel as CloudEvents 1.0 in binary mode. The payload stays as it
    is, and so do the bridge's own headers. Beside them stand the attributes: ``ce_id`` is the idempotency key,
    ``ce_type`` the queue, ``ce_source`` ``/outbox/<queue>``, ``ce_time`` the time of publishing, ``ce_partitionkey``
    the row's key. Headers of the caller win (``ce_type``, ``ce_source``, ``ce_subject``, ...), but for ``ce_id`` and
    ``ce_specversion``. RabbitMQ has two bindings, so there each stands twice, as ``ce-id`` and ``cloudEvents_id``.
    Default: None, the bridge's own headers alone."""

    tombstones: bool
    """True: to Kafka, a message whose body is None is sent with a null value if its record has a key. A compacted topic
    then deletes what it has under that key. The body ``b""`` is the same to the table and is sent so too. False: it is
    sent with an empty value, which deletes nothing. Default: False."""

    retry_strategy: RetryStrategy | tuple[wait_base, stop_base] | None
    """When a row that the destination refused is sent again; outages do not count. Default: ``ExponentialRetry()``."""

    count_nacks: bool
    """What RabbitMQ's basic.nack means, which speaks of a queue and not of the message: it is full and rejects
    (``x-overflow: reject-publish``), or the node that has it is down. False: an outage of that routing key. Its
    messages wait for as long as it lasts, and no attempt is counted; one message tries now and then, at most a minute
    apart; other routing keys go on, and ``status().parts_down`` tells how many have tried. True: it refuses the
    message, which counts as an attempt and becomes a dead letter when ``retry_strategy`` gives up: for an exchange that
    binds several queues, where each try of a message that one of them rejects gives the others a copy. Default:
    False."""

    hold_key: bool
    """True: where a message with a key becomes a dead letter, the later messages of that key wait until it is replayed
    or discarded (``broker.dead_letters``). It is parked in the outbox table, even if there is a dead-letter table. Of
    each key one message is sent at a time, so that none has gone ahead when an earlier one fails for good: with few
    keys this is slower. False: its key goes on without it. Default: False."""

    min_fetch_interval: float
    """Seconds until the first look without a wake-up. Default: 1.0."""

    max_fetch_interval: float
    """Seconds at which the interval stops growing while nothing is found. So long may rows wait that a killed process
    had in hand: nothing rings for them. Default: 1.5."""
