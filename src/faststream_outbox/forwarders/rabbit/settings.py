"""What a forwarder takes over from a RabbitMQ publisher and its broker."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ssl import SSLContext
from typing import Any

from faststream.rabbit import ExchangeType, RabbitExchange
from faststream.rabbit.publisher import RabbitPublisher
from yarl import URL

from faststream_outbox._faststream import broker_of, connection_options
from faststream_outbox._values.wire import CONTENT_TYPE, HeadersOf, beside, wire_headers
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders.rabbit.properties import SENDER_SELECTED, Properties

MAX_ROUTING_KEY_BYTES = 255
"""AMQP 0-9-1 carries it as a short string."""
CONNECT_SECONDS = 10.0
CONFIRM_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitSettings:
    """Where messages go and how they are made."""

    url: URL = field(repr=False)
    """With a password."""
    ssl_context: SSLContext | None
    connect_timeout: float
    """Seconds until an attempt to connect has failed."""
    confirm_timeout: float
    """Seconds that a hand-over waits for RabbitMQ."""
    exchange: RabbitExchange
    routing_key: str
    queue: str
    """What the routing key most likely leads to: the publisher's queue, or one that is called as the routing key."""
    headers: Mapping[str, Any] = field(repr=False)
    """Of every message, beside the row's own."""
    properties: Mapping[str, Any]
    """Of every message, beside those that come from the row."""
    content_type: str | None
    """Of rows without one."""
    headers_of: HeadersOf = wire_headers
    """Gives the row's own."""
    count_nacks: bool = False
    """Whether basic.nack refuses the row, which counts as an attempt, and is no outage of its routing key."""

    @property
    def address(self) -> str:
        """Exchange and routing key, or the routing key alone on the default exchange."""
        return ":".join(part for part in (self.exchange.name, self.routing_key) if part)

    @classmethod
    def of(
        cls,
        publisher: RabbitPublisher,
        headers_of: HeadersOf = wire_headers,
        *,
        allow_lossy: bool = False,
        count_nacks: bool = False,
    ) -> "RabbitSettings":
        """Read and check the settings of a publisher and its broker.

        Corrected silently: ``persist=False`` (the default) and channels without publisher confirms or with
        ``on_return_raises=False`` (the default), see the package. Refused: ``mandatory=False``, ``immediate=True``, an
        exchange that says of each message that no queue has taken it, and what RabbitMQ would refuse in every message.

        Args:
            publisher: Of a queue or an exchange.
            headers_of: Gives each row's headers.
            allow_lossy: Whether messages may expire if no consumer takes them at that moment.
            count_nacks: Whether basic.nack refuses the row.

        Raises:
            ConfigError: One of them is not safe or cannot work; the message says what to write instead.
        """
        options = connection_options(broker_of(publisher))
        url = URL(options["url"])
        message_options: dict[str, Any] = {**publisher.message_options}
        message_options.pop("persist", None)
        content_type = message_options.pop("content_type", None)
        _check_publish_options(publisher)
        _check_exchange(publisher.exchange)
        _check_user(message_options.get("user_id"), url)
        settings = cls(
            url=url,
            ssl_context=options.get("ssl_context"),
            connect_timeout=options.get("timeout") or CONNECT_SECONDS,
            confirm_timeout=publisher.timeout or CONFIRM_SECONDS,
            exchange=publisher.exchange,
            routing_key=_check_routing_key(publisher),
            queue=_queue_of(publisher),
            headers=_check_headers(publisher.headers),
            properties=_as_properties(message_options, publisher.reply_to, allow_lossy=allow_lossy),
            content_type=content_type,
            headers_of=beside({CONTENT_TYPE} if content_type else publisher.headers, headers_of),
            count_nacks=count_nacks,
        )
        try:
            Properties(headers=settings.headers, content_type=content_type, **settings.properties)
        except (ArithmeticError, TypeError, ValueError) as error:
            msg = f"to: RabbitMQ cannot carry the publisher's headers or properties: {error}"
            raise ConfigError(msg) from error
        return settings


def _check_publish_options(publisher: RabbitPublisher) -> None:
    options = publisher.publish_options
    if not options.get("mandatory", True):
        msg = (
            "to: with mandatory=False a message that no queue takes would be lost; leave it out, or give the exchange "
            "an alternate exchange: RabbitExchange(..., arguments={'alternate-exchange': ...})"
        )
        raise ConfigError(msg)
    if options.get("immediate", False):
        msg = "to: RabbitMQ does not support immediate=True and closes the connection because of it; leave it out"
        raise ConfigError(msg)


def _check_exchange(exchange: RabbitExchange) -> None:
    if exchange.type is ExchangeType.X_DELAYED_MESSAGE:
        msg = (
            "to: an exchange of the type x-delayed-message returns every message as if no queue had taken it, and "
            "delivers it later; give another exchange, and publish(..., activate_in=...) for the delay"
        )
        raise ConfigError(msg)


def _check_routing_key(publisher: RabbitPublisher) -> str:
    routing_key = publisher.routing()
    if not routing_key and not publisher.exchange.name:
        msg = "to: without an exchange the publisher needs a queue; write rabbit.publisher('the queue')"
        raise ConfigError(msg)
    if (size := len(routing_key.encode())) > MAX_ROUTING_KEY_BYTES:
        msg = f"to: the routing key must be at most {MAX_ROUTING_KEY_BYTES} bytes of UTF-8, got {size}"
        raise ConfigError(msg)
    return routing_key


def _queue_of(publisher: RabbitPublisher) -> str:
    if not publisher.exchange.name:
        # The default exchange takes the routing key for a queue's name.
        return publisher.routing()
    # The publisher may stand on a router, whose prefix the queue has too.
    own_key = publisher.routing_key or publisher.queue.routing()
    return publisher.routing().removesuffix(own_key) + (publisher.queue.name or own_key)


def _check_user(user_id: str | None, url: URL) -> None:
    if user_id is not None and url.user is not None and user_id != url.user:
        msg = f"to: RabbitMQ refuses user_id={user_id!r} from the user {url.user!r}; write user_id={url.user!r}"
        raise ConfigError(msg)


def _check_headers(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in headers.items():
        if name in SENDER_SELECTED and not (isinstance(value, list) and all(isinstance(key, str) for key in value)):
            msg = f"to: the publisher's header {name!r} must be a list of routing keys, got {value!r}"
            raise ConfigError(msg)
    return dict(headers)


def _as_properties(message_options: dict[str, Any], reply_to: str, *, allow_lossy: bool) -> dict[str, Any]:
    expiration = message_options.pop("expiration", None)
    if expiration is not None:
        message_options["expiration"] = milliseconds = _as_milliseconds(expiration)
        if milliseconds == "0" and not allow_lossy:
            msg = (
                f"to: with expiration={expiration!r} a message is lost unless a consumer takes it at once; leave it "
                "out, or write forwarder(..., allow_lossy=True) if messages may be lost"
            )
            raise ConfigError(msg)
    priority = message_options.get("priority")
    if priority is not None and not 0 <= priority <= 255:  # noqa: PLR2004 - an octet
        msg = f"to: priority must be 0 to 255, got {priority!r}"
        raise ConfigError(msg)
    return {name: value for name, value in {**message_options, "reply_to": reply_to}.items() if value is not None}


def _as_milliseconds(expiration: Any) -> str:
    if isinstance(expiration, datetime):
        msg = "to: expiration must be seconds or a timedelta, since one moment cannot fit all messages"
        raise ConfigError(msg)
    seconds = expiration.total_seconds() if isinstance(expiration, timedelta) else expiration
    if not 0 <= seconds < math.inf:
        msg = f"to: expiration must not be negative, got {expiration!r}"
        raise ConfigError(msg)
    return str(int(seconds * 1000))
