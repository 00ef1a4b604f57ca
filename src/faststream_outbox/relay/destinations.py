"""Makes a FastStream publisher of a destination's URL and the keys beside it.

Each kind of broker has an extra of its own, and is imported where it is used.
"""

import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from faststream_outbox._values.dsn import forms_of
from faststream_outbox.relay.settings import ForwarderSettings

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]+)(?::\d{1,5})?")
MAX_PORT = 65_535
_SECRET = re.compile("password|passwd|secret|token|credential", re.IGNORECASE)

ADDRESS_KEYS = frozenset({
    "topic", "exchange", "exchange_type", "exchange_declare", "exchange_durable", "routing_key", "stream", "maxlen",
    "list", "channel", "subject", "qos", "sasl",
})  # fmt: skip
"""Keys of a forwarder that some kinds have and others do not."""


class UnfitError(Exception):
    """A key cannot be what it is.

    Attributes:
        key: The key of the forwarder.
    """

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a destination's URL says."""

    scheme: str
    hosts: tuple[str, ...]
    user: str | None
    password: str | None = field(repr=False)
    path: str
    """With its first slash; empty without one."""
    query: str
    ca_file: str | None = None
    sasl: str = "plain"

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is one with TLS."""
        return self.scheme in {"kafkas", "amqps", "rediss", "tls", "mqtts"}

    def url(self, host: str | None = None) -> str:
        """Return the URL as a client reads it, with the password."""
        login = "" if self.user is None else quote(self.user, safe="")
        if self.password is not None:
            login += f":{quote(self.password, safe='')}"
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{login}{'@' if login else ''}{host or self.hosts[0]}{self.path}{query}"

    def trust(self) -> ssl.SSLContext | None:
        """Return what TLS trusts, where it is not left to the client.

        Raises:
            UnfitError: The file with certificates cannot be used.
        """
        if self.ca_file is None:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            # ssl.SSLError is one.
            raise UnfitError("ca_file", f"{self.ca_file} cannot be used: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    module: str
    broker: str
    install: str
    keys: frozenset[str]
    """Of ``ADDRESS_KEYS``, those that it has."""
    options: Callable[[Server], dict[str, Any]]
    """Returns the arguments of FastStream's broker."""
    publisher: Callable[[Any, ForwarderSettings], Any]
    has_path: bool = False
    """Whether what stands behind the host says something."""


def read_url(url: str) -> Server:
    """Return what a destination's URL says.

    Raises:
        UnfitError: It is none of those that a relay knows; the message does not show it.
    """
    scheme, found, _ = url.partition("://")
    if not found or scheme not in _KINDS:
        shown = f", got {scheme!r}" if found and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) else ""
        raise UnfitError("to", f"must begin with {', '.join(f'{known}://' for known in _KINDS)}{shown}")
    try:
        parts = urlsplit(url)
    except ValueError:
        # Its message may quote the password.
        raise UnfitError("to", "is not a URL") from None
    login, _, places = parts.netloc.rpartition("@")
    user, has_password, password = login.partition(":")
    hosts = tuple(places.split(","))
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise UnfitError("to", "has no host after ://, or one that cannot be; write host:port")
    if len(hosts) > 1 and scheme not in {"kafka", "kafkas", "nats", "tls"}:
        raise UnfitError("to", f"{scheme}:// has one host, got {len(hosts)}")
    if any(int(port) > MAX_PORT for host in hosts if (port := host.rpartition("]")[2].partition(":")[2])):
        raise UnfitError("to", f"has a port above {MAX_PORT}")
    if "@" in parts.path + parts.query:
        # Not quoted here, a password with a slash would be a host and a path, which are shown.
        raise UnfitError("to", "has @ behind the host; in a password write %2F for a slash and %3F for a question mark")
    if not _KINDS[scheme].has_path and (parts.path.strip("/") or parts.query or parts.fragment):
        raise UnfitError("to", f"{scheme}:// has nothing behind the hosts; `client` takes further options")
    return Server(
        scheme=scheme,
        hosts=hosts,
        user=unquote(user) if login else None,
        password=unquote(password) if has_password else None,
        path=parts.path,
        query=parts.query,
    )


def make_publisher(server: Server, settings: ForwarderSettings, brokers: dict[Any, Any]) -> Any:
    """Return FastStream's publisher for a forwarder.

    Args:
        server: From ``read_url``, with the password that counts.
        settings: The forwarder's.
        brokers: Those made so far; forwarders to one server share a broker.

    Raises:
        UnfitError: A key is missing, or not for this kind, or the kind's client is not installed.
    """
    kind = _KINDS[server.scheme]
    for key in sorted(settings.model_fields_set & ADDRESS_KEYS):
        if key not in kind.keys:
            raise UnfitError(key, f"is not for {server.scheme}://, which has {', '.join(sorted(kind.keys))}")
    server = replace(server, ca_file=None if settings.ca_file is None else str(settings.ca_file), sasl=settings.sasl)
    if server.ca_file is not None and not server.is_encrypted:
        raise UnfitError("ca_file", f"{server.scheme}:// does not encrypt; write {_encrypted(server.scheme)}://")
    name = (server, repr(sorted(settings.client.items())))
    if name not in brokers:
        brokers[name] = _make_broker(kind, server, settings.client)
    return kind.publisher(brokers[name], settings)


def _make_broker(kind: _Kind, server: Server, client: Mapping[str, Any]) -> Any:
    try:
        broker = getattr(import_module(kind.module), kind.broker)
    except ImportError as error:
        raise UnfitError("to", f"{server.scheme}:// needs {kind.install}") from error
    try:
        return broker(**{"logger": None, **kind.options(server), **client})
    except UnfitError:
        raise
    except Exception as error:  # noqa: BLE001 - each client raises what it likes
        # Of the options, those of the file are the ones that nobody has tried.
        where = "client" if client else "to"
        text = str(error)
        for secret in (*forms_of(server.password or ""), *secrets_of_client(client)):
            text = text.replace(secret, "***")
        raise UnfitError(where, f"{kind.broker} does not take it: {text}") from None


def secrets_of_client(client: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of ``client`` whose keys say that they are secret, as ``token`` and ``sasl_plain_password``."""
    for key, value in client.items():
        if isinstance(value, Mapping):
            yield from secrets_of_client(value)
        elif isinstance(value, str) and _SECRET.search(key):
            yield from forms_of(value)


def _encrypted(scheme: str) -> str:
    return "tls" if scheme == "nats" else f"{scheme}s"


def _required(settings: ForwarderSettings, key: str, what: str) -> Any:
    value = getattr(settings, key)
    if not value:
        raise UnfitError(key, f"is missing: {what}")
    return value


def _security(server: Server) -> dict[str, Any]:
    from faststream.security import BaseSecurity  # noqa: PLC0415 - see the module's docstring

    context = server.trust()
    return {} if context is None else {"security": BaseSecurity(ssl_context=context)}


def _kafka_options(server: Server) -> dict[str, Any]:
    from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512  # noqa: PLC0415

    context = server.trust() or (ssl.create_default_context() if server.is_encrypted else None)
    options: dict[str, Any] = {"bootstrap_servers": list(server.hosts), "acks": "all"}
    if server.user is not None:
        login = {"plain": SASLPlaintext, "scram-sha-256": SASLScram256, "scram-sha-512": SASLScram512}[server.sasl]
        options["security"] = login(
            server.user, server.password or "", ssl_context=context, use_ssl=context is not None
        )
    elif context is not None:
        options["security"] = BaseSecurity(ssl_context=context)
    return options


def _kafka_publisher(broker: Any, settings: ForwarderSettings) -> Any:
    return broker.publisher(_required(settings, "topic", 'write topic = "orders.v1"'))


def _rabbit_publisher(broker: Any, settings: ForwarderSettings) -> Any:
    from faststream.rabbit import ExchangeType, RabbitExchange  # noqa: PLC0415

    if settings.exchange is None:
        for key in ("exchange_type", "exchange_declare", "exchange_durable"):
            if key in settings.model_fields_set:
                raise UnfitError(key, 'is about an exchange, and there is none; write exchange = "..."')
        routing_key = _required(settings, "routing_key", "without an exchange, write the queue's name")
        return broker.publisher(routing_key, persist=True)
    exchange = RabbitExchange(
        settings.exchange,
        type=ExchangeType(settings.exchange_type),
        durable=settings.exchange_durable,
        declare=settings.exchange_declare,
    )
    return broker.publisher(routing_key=settings.routing_key or "", exchange=exchange, persist=True)


def _redis_options(server: Server) -> dict[str, Any]:
    server.trust()
    query = [part for part in (server.query, server.ca_file and f"ssl_ca_certs={quote(server.ca_file)}") if part]
    return {"url": replace(server, query="&".join(query)).url()}


def _redis_publisher(broker: Any, settings: ForwarderSettings) -> Any:
    from faststream.redis import StreamSub  # noqa: PLC0415

    given = [key for key in ("stream", "list", "channel") if getattr(settings, key) is not None]
    if len(given) != 1:
        raise UnfitError(given[1] if given else "stream", "write one of stream, list and channel")
    if settings.maxlen is not None and settings.stream is None:
        raise UnfitError("maxlen", "is for a stream alone")
    if settings.stream is not None:
        return broker.publisher(stream=StreamSub(settings.stream, maxlen=settings.maxlen))
    return broker.publisher(**{given[0]: getattr(settings, given[0])})


def _nats_options(server: Server) -> dict[str, Any]:
    return {"servers": [server.url(host) for host in server.hosts], **_security(server)}


def _nats_publisher(broker: Any, settings: ForwarderSettings) -> Any:
    from faststream.nats import JStream  # noqa: PLC0415

    subject = _required(settings, "subject", 'write subject = "orders"')
    stream = None if settings.stream is None else JStream(settings.stream, declare=False)
    return broker.publisher(subject, stream=stream)


def _mqtt_publisher(broker: Any, settings: ForwarderSettings) -> Any:
    from faststream.mqtt import QoS  # noqa: PLC0415

    return broker.publisher(_required(settings, "topic", 'write topic = "orders"'), qos=QoS(settings.qos))


def _url_options(server: Server) -> dict[str, Any]:
    return {"url": server.url(), **_security(server)}


_KAFKA = _Kind(
    module="faststream.kafka",
    broker="KafkaBroker",
    install="the extra 'kafka' of this package: pip install '.[relay,kafka]' in a checkout",
    keys=frozenset({"topic", "sasl"}),
    options=_kafka_options,
    publisher=_kafka_publisher,
)
_RABBIT = _Kind(
    module="faststream.rabbit",
    broker="RabbitBroker",
    install="the extra 'rabbit' of this package: pip install '.[relay,rabbit]' in a checkout",
    keys=frozenset({"exchange", "exchange_type", "exchange_declare", "exchange_durable", "routing_key"}),
    options=_url_options,
    publisher=_rabbit_publisher,
    has_path=True,
)
_REDIS = _Kind(
    module="faststream.redis",
    broker="RedisBroker",
    install="the extra 'redis' of this package: pip install '.[relay,redis]' in a checkout",
    keys=frozenset({"stream", "maxlen", "list", "channel"}),
    options=_redis_options,
    publisher=_redis_publisher,
    has_path=True,
)
_NATS = _Kind(
    module="faststream.nats",
    broker="NatsBroker",
    install="the extra 'nats' of this package: pip install '.[relay,nats]' in a checkout",
    keys=frozenset({"subject", "stream"}),
    options=_nats_options,
    publisher=_nats_publisher,
)
_MQTT = _Kind(
    module="faststream.mqtt",
    broker="MQTTBroker",
    install="pip install 'faststream[mqtt]>=0.7.8,<0.8'",
    keys=frozenset({"topic", "qos"}),
    options=_url_options,
    publisher=_mqtt_publisher,
)
_KINDS: Mapping[str, _Kind] = {
    "kafka": _KAFKA,
    "kafkas": _KAFKA,
    "amqp": _RABBIT,
    "amqps": _RABBIT,
    "redis": _REDIS,
    "rediss": _REDIS,
    "nats": _NATS,
    "tls": _NATS,
    "mqtt": _MQTT,
    "mqtts": _MQTT,
}
