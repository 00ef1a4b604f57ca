"""What may stand in a relay's file: each key once, with its type and its meaning."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

PREFIX = "OUTBOX_RELAY__"
"""What the names of environment variables begin with; between the keys of a path stands the same ``__``."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_as_list)]
"""A name, or several."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)


class RetrySettings(_Section):
    """When a message that its destination has refused is sent again: ``retry_strategy = {kind = "exponential"}``.

    The other keys are those of ``ExponentialRetry``, ``LinearRetry``, ``ConstantRetry`` and ``NoRetry``.
    """

    kind: Literal["exponential", "linear", "constant", "none"] = "exponential"
    """How the delay grows from attempt to attempt; ``none``: one attempt."""
    max_attempts: int | None = None
    """Attempts in all; 0: without a limit."""
    max_total_delay_seconds: float | None = None
    """No further attempt is made when it would come later than this after the first one."""
    jitter: float | None = None
    """By what part of itself a delay may turn out shorter or longer."""
    initial_delay_seconds: float | None = None
    """Exponential and linear: the first delay."""
    max_delay_seconds: float | None = None
    """Exponential and linear: the longest delay."""
    multiplier: float | None = None
    """Exponential: growth by this factor."""
    step_seconds: float | None = None
    """Linear: growth by this step."""
    delay_seconds: float | None = None
    """Constant: the delay."""


class ForwarderSettings(_Section):
    """A forwarder: from some queues of a database to one destination."""

    queues: Names
    """A queue's name, or several."""
    to: SecretStr | None = None
    """The destination's server: ``kafka://host:9092,host:9092``, ``amqp://host/vhost``, ``redis://host/0``,
    ``nats://host``, ``mqtt://host``; with TLS ``kafkas``, ``amqps``, ``rediss``, ``tls`` (NATS) and ``mqtts``."""
    to_file: Path | None = None
    """A file that holds this URL, as secrets are mounted."""
    password_file: Path | None = None
    """A file that holds the password of the URL's user."""
    ca_file: Path | None = None
    """Certificates that TLS trusts, instead of the system's."""
    sasl: Literal["plain", "scram-sha-256", "scram-sha-512"] = "plain"
    """Kafka: how the URL's user logs in."""
    client: dict[str, Any] = Field(default={}, repr=False)
    """Further options of FastStream's broker of this kind, as ``{compression_type = "gzip"}`` for Kafka."""

    topic: str | None = None
    """Kafka, MQTT: the topic."""
    exchange: str | None = None
    """RabbitMQ: the exchange; without it, the default one."""
    exchange_type: Literal["direct", "fanout", "topic", "headers"] = "direct"
    """RabbitMQ: its type."""
    exchange_declare: bool = True
    """RabbitMQ: declare the exchange; false: it must be there."""
    exchange_durable: bool = True
    """RabbitMQ: whether the exchange survives a restart of the server."""
    routing_key: str | None = None
    """RabbitMQ: the routing key; on the default exchange the queue's name."""
    stream: str | None = None
    """Redis: the stream. NATS: the JetStream stream that has the subject."""
    maxlen: int | None = None
    """Redis: about how many entries the stream keeps."""
    list: str | None = None
    """Redis: the list."""
    channel: str | None = None
    """Redis: the channel; needs ``allow_lossy = true``."""
    subject: str | None = None
    """NATS: the subject."""
    qos: Literal[0, 1, 2] = 1
    """MQTT: the quality of service; 0 needs ``allow_lossy = true``."""

    name: str | None = None
    """See ``faststream_outbox.forwarders.options``, as for all keys below."""
    tee: bool | None = None
    """Carry copies, beside the queue's other consumers. Its publisher must declare the same forwarder."""
    transform: str | None = None
    """``package.module:function``, for those who have some code after all."""
    batch_size: int | None = None
    """The most rows of one hand-over."""
    batch_bytes: int | None = None
    """The most bytes of one hand-over."""
    lanes: int | None = None
    """Hand-overs in parallel in one process."""
    send_timeout: float | None = None
    """Seconds after which a hand-over is given up."""
    allow_lossy: bool | None = None
    """Accept a destination that may lose messages."""
    envelope: Literal["cloudevents", "plain"] | None = None
    """Add the attributes of a CloudEvent; Redis: plain fields."""
    tombstones: bool | None = None
    """Kafka: send an empty body as a null value."""
    retry_strategy: RetrySettings | None = None
    """When a refused message is sent again."""
    count_nacks: bool | None = None
    """RabbitMQ: basic.nack counts as an attempt."""
    exactly_once: bool | None = None
    """Kafka, Redis: each message once, also after a crash. Needs ``position_table``."""
    hold_key: bool | None = None
    """A dead letter holds back the later messages of its key."""
    min_fetch_interval: float | None = None
    """Seconds until the first look without a notification."""
    max_fetch_interval: float | None = None
    """Seconds at which the interval stops growing. Default: 1.5, and more in a relay of more than seven forwarders."""


class DatabaseSettings(_Section):
    """A database with an outbox table."""

    url: SecretStr | None = None
    """``postgresql://user@host/database``, as asyncpg reads it."""
    url_file: Path | None = None
    """A file that holds the URL."""
    password_file: Path | None = None
    """A file that holds the password of the URL's user."""
    table: str = "outbox"
    """The outbox table."""
    schema_: str | None = Field(default=None, alias="schema")
    """The schema of all tables; without it, the search path's."""
    dlq_table: str | None = None
    """The dead-letter table; without it, dead letters are parked in the outbox table."""
    position_table: str | None = None
    """The position table, for ``exactly_once``."""
    control_table: str | None = None
    """The control table, for pauses that are stored."""
    listen: bool = True
    """Hold a connection to LISTEN on. False: poll."""
    listen_url: SecretStr | None = None
    """Where to listen, if the URL is that of a pooler in transaction mode."""
    listen_url_file: Path | None = None
    """A file that holds this URL."""
    pooled: bool = False
    """The URL is that of a pooler in transaction mode, such as PgBouncer: no prepared statement is kept."""
    connections: int | None = Field(default=None, ge=1)
    """The most connections to this database beside the listening one. Default: one for each lane, and one."""
    graceful_timeout: float = 15.0
    """Seconds that a stop waits for what is in flight."""
    forwarders: list[ForwarderSettings] = Field(min_length=1)
    """What is carried where: ``[[databases.NAME.forwarders]]``."""


class HttpSettings(_Section):
    """Where the relay answers probes."""

    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 for probes from outside of a container."""
    port: int = Field(ge=0, le=65535)
    """The port. With ``--processes N`` the processes use this port and those that follow it."""
    metrics: bool = False
    """Whether there is ``/metrics`` for Prometheus, too. Needs the extra ``prometheus``, and reads the tables."""


class ConnectionSettings(_Section):
    """How many connections to PostgreSQL a process holds, over all its databases."""

    most: int | None = Field(default=None, ge=2)
    """The most, the listening ones among them. Default: no more than each database may have."""
    idle_seconds: float = Field(default=0.3, ge=0)
    """Seconds after which a connection that nobody uses is closed; the listening one stays."""


class RelaySettings(_Section):
    """A relay: databases, and what it does in all of them."""

    databases: dict[str, DatabaseSettings] = Field(min_length=1)
    """The databases, each with a name of your choice: ``[databases.NAME]``."""
    http: HttpSettings | None = None
    """Probes; without it, the relay opens no port."""
    connections: ConnectionSettings = ConnectionSettings()
    """Bounds for all databases together."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged."""
