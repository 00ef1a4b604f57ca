"""The options of a subscriber, each once, with its type and its meaning."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from faststream.middlewares import AckPolicy
from tenacity.stop import stop_base
from tenacity.wait import wait_base
from typing_extensions import TypedDict

from faststream_outbox._faststream import CodecProto, CustomCallable
from faststream_outbox.retry import RetryStrategy

if TYPE_CHECKING:
    from fast_depends.dependencies import Dependant


class ConsumingOptions(TypedDict, total=False):
    """Options of a subscriber, whatever it stands on."""

    max_workers: int
    """How many messages are handled at a time. Default: 1."""

    retry_strategy: RetryStrategy | tuple[wait_base, stop_base] | None
    """When a failed message is tried again. Default: ``ExponentialRetry()``."""

    retry_validation_errors: bool
    """Whether a message that cannot be decoded, or does not fit the handler's annotations, is tried again by
    ``retry_strategy``. Set it where the next release of a publisher may run before the next release of this consumer.
    False: such a message is a dead letter after one attempt, ``invalid_body``. An error that the handler or a
    dependency raises is retried in any case. Default: False."""

    fetch_batch_size: int
    """The most rows of one claim. Rows are claimed ahead of free workers only while handlers are quick. Default: 10."""

    min_fetch_interval: float
    """Seconds until the first look without a wake-up. Default: 1.0."""

    max_fetch_interval: float
    """Seconds at which the interval stops growing while nothing is found. Default: 10.0."""

    lease_ttl_seconds: float
    """How long a lease lasts without being renewed. It is renewed while the handler runs, so its length matters only
    if a process hangs, or dies while LISTEN is off. Default: 60.0."""

    max_deliveries: int | None
    """A message that is claimed more often becomes a dead letter unhandled: it kills its process. Default: no limit."""

    ack_policy: AckPolicy | None
    """What becomes of a message whose handler raised. ``NACK_ON_ERROR``: the attempt has failed, and ``retry_strategy``
    decides. ``REJECT_ON_ERROR``: a dead letter at once. ``ACK``: it counts as handled, and is gone. ``MANUAL``: the
    handler calls ``ack``, ``nack`` or ``reject`` of its message itself; if it calls none, the attempt has failed.
    ``ACK_FIRST`` is refused, since it would lose messages. Default: the broker's, ``NACK_ON_ERROR``."""

    propagate_inbound_headers: bool
    """Whether a message that the handler returns carries the inbound message's headers. Default: False."""

    no_reply: bool
    """Accepted because FastStream has it; the outbox has no replies."""

    parser: CustomCallable | None
    """Makes a message of a delivery; see FastStream's custom parsers."""

    decoder: CustomCallable | None
    """Decodes a message's body; see FastStream's custom decoders."""

    codec: CodecProto | None
    """Decodes a message's body; replaces ``decoder``."""

    persistent: bool
    """Whether the broker keeps the subscriber alive. Default: True."""

    title: str | None
    """The subscriber's name in AsyncAPI. Default: made of queue and handler."""

    description: str | None
    """The subscriber's description in AsyncAPI. Default: the handler's docstring."""

    include_in_schema: bool
    """Whether AsyncAPI lists it. Default: True."""


class SubscriberOptions(ConsumingOptions, total=False):
    """Options of ``broker.subscriber(queues, ...)``."""

    dependencies: "Sequence[Dependant]"
    """FastStream dependencies to resolve for each message."""
