"""The options of a broker, each once, with its type and its meaning."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from faststream.middlewares import AckPolicy
from faststream.specification.schema import Tag, TagDict
from sqlalchemy.ext.asyncio import AsyncEngine
from typing_extensions import TypedDict

from faststream_outbox._faststream import (
    BrokerMiddleware,
    CodecProto,
    ContextRepo,
    CustomCallable,
    IdGenerator,
    LoggerProto,
)
from faststream_outbox.metrics.metrics import Metrics

if TYPE_CHECKING:
    from fast_depends import Provider
    from fast_depends.dependencies import Dependant
    from fast_depends.library.serializer import SerializerProto

    from faststream_outbox.broker.registrator import OutboxRegistrator


class OutboxOptions(TypedDict, total=False):
    """Options of the outbox itself."""

    notify: bool
    """Whether publishing wakes consumers with NOTIFY, which takes a lock of the whole server at commit. Very many
    publishers at once may be faster without it. Then a session's commit wakes this broker's consumers in its own
    process, and all others poll. Default: True."""

    listen: bool
    """Whether to hold a LISTEN connection. It brings wake-ups, and its loss shows other processes that this one is
    gone. Default: True."""

    listen_engine: AsyncEngine | None
    """An engine to listen on, if not the broker's: behind a pooler in transaction mode, one that connects directly to
    the server. See ``docs/operating.md``."""

    max_payload_bytes: int
    """The largest encoded body. Default: 1 MiB. Kafka's own limit of 1 MiB by default includes the key, the headers and
    some overhead, so a body just below it may still become a dead letter there."""

    metrics: Metrics | None
    """Where to show what happens: ``OutboxMetrics()`` of ``faststream_outbox.prometheus`` or ``.opentelemetry``. See
    ``docs/observing.md``. Default: nowhere."""

    publish_only: bool
    """Whether this process only publishes, beside others that consume: a web process beside a relay. Then a start opens
    no connection and runs no loop, and ``publish`` works without one. Subscribers and forwarders are refused, except
    forwarders with ``tee=True``, for which ``publish`` writes copies; they are not started. Default: False."""

    exception_renderer: Callable[[BaseException], str] | None
    """Returns what the column ``last_exception`` keeps of an exception, in the table and of dead letters. Personal data
    that stands in messages of errors stays out with ``lambda error: type(error).__name__``. Where it raises, the name
    of the exception's class is stored, and the log says so. The log itself, spans and ``status()`` are not changed by
    it. Default: the class and the message, up to 2,000 characters."""

    graceful_timeout: float | None
    """Seconds that a stop waits for what is in flight; None waits for ever. Default: 15.0."""


class EndpointOptions(TypedDict, total=False):
    """Options that FastStream's brokers share, without those that a FastAPI router must not take."""

    parser: CustomCallable | None
    """Makes a message of a delivery; see FastStream's custom parsers."""

    decoder: CustomCallable | None
    """Decodes a message's body; see FastStream's custom decoders."""

    codec: CodecProto | None
    """Encodes and decodes bodies; replaces ``decoder``."""

    middlewares: Sequence[BrokerMiddleware[Any, Any]]
    """FastStream middlewares around consuming and publishing."""

    ack_policy: AckPolicy | None
    """What becomes of a message whose handler raised; see ``ConsumingOptions``. Default: ``NACK_ON_ERROR``."""

    id_generator: IdGenerator
    """Makes correlation ids. Default: random UUIDs."""

    serializer: "SerializerProto | None"
    """Turns models into bytes. Default: Pydantic's."""

    logger: LoggerProto | None
    """The logger; None logs nothing. Default: FastStream's logger for this broker."""

    log_level: int
    """The level of lines about single messages. Default: ``logging.INFO``."""

    specification_url: str | None
    """The server's address in AsyncAPI. Default: the engine's, without user and password."""

    protocol: str | None
    """The server's protocol in AsyncAPI. Default: ``postgresql``."""

    protocol_version: str | None
    """The protocol's version in AsyncAPI."""

    description: str | None
    """The server's description in AsyncAPI."""


class BrokerOptions(OutboxOptions, EndpointOptions, total=False):
    """Options of ``OutboxBroker(engine, outbox_table=..., ...)``."""

    dependencies: "Sequence[Dependant]"
    """FastStream dependencies to resolve for each message."""

    routers: "Iterable[OutboxRegistrator]"
    """Routers to include."""

    tags: Iterable[Tag | TagDict]
    """The server's tags in AsyncAPI."""

    apply_types: bool
    """Whether the arguments of handlers are resolved and validated. Default: True."""

    provider: "Provider | None"
    """FastDepends' provider, which tests override dependencies with."""

    context: ContextRepo | None
    """FastStream's context. Default: a new one."""
