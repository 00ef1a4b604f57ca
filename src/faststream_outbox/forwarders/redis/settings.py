"""What a forwarder takes over from a Redis publisher and its broker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faststream.redis import RedisBroker, RedisClusterBroker
from faststream.redis.message import DATA_KEY
from faststream.redis.parser import MessageFormat
from faststream.redis.publisher.usecase import (
    ChannelPublisher,
    ListBatchPublisher,
    ListPublisher,
    LogicPublisher,
    StreamPublisher,
)

from faststream_outbox._faststream import broker_of, connection_options
from faststream_outbox._faststream.redis import SentinelAddress, sentinel_of
from faststream_outbox.exceptions import ConfigError

DEFAULT_RESPONSE_SECONDS = 5.0
"""redis-py's own default since 8.0; before, it waited for ever."""

ENDLESS_RESPONSE_SECONDS = 30.0
"""The base of the hand-over's time-out where the broker has ``socket_timeout=None``."""

BODY_FIELD = "body"
"""The field of a plain entry that has the payload; each other field is a header. It stands last."""

NOT_TAKEN_OVER = frozenset({
    "decode_responses", "health_check_interval", "max_connections", "retry", "retry_on_error", "retry_on_timeout",
})  # fmt: skip
"""Options of the broker's connections that would retry, or read answers in another way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Where messages go and how they are made."""

    address: str
    """Name of the stream, list or channel, with its prefixes."""
    command: Sequence[str | int]
    """What takes a message, up to the message itself: the name of the command, the address, arguments."""
    holds: bytes | None
    """The type that the key must have if it exists, as Redis calls it; None for a channel, which is no key."""
    headers: Mapping[str, str] = field(repr=False)
    """Of every message, beside the row's own."""
    message_format: type[MessageFormat] | None
    """None: a stream's entry has the body and each header as a field of its own."""
    response_timeout: float | None
    """Seconds until a command without an answer has failed; None: the hand-over's time-out decides."""
    client_options: Mapping[str, Any] = field(repr=False)
    """With passwords."""
    sentinel: SentinelAddress | None

    @classmethod
    def of(cls, publisher: LogicPublisher, *, allow_lossy: bool = False, is_plain: bool = False) -> "RedisSettings":
        """Read and check the settings of a publisher and its broker.

        Args:
            publisher: Of a stream, a list or a channel.
            allow_lossy: Whether to accept a channel, which loses a message without a subscriber.
            is_plain: Whether to write the body and the headers as fields, which only a stream has.

        Raises:
            ConfigError: One of them is not safe or cannot work; the message says what to write instead.
        """
        broker = broker_of(publisher)
        if isinstance(broker, RedisClusterBroker) or not isinstance(broker, RedisBroker):
            msg = (
                f"to: a forwarder cannot send to a {type(broker).__name__} yet; "
                "write RedisBroker(...) or RedisSentinelBroker(...)"
            )
            raise ConfigError(msg)
        address, kind, command = _command(publisher, allow_lossy=allow_lossy)
        headers = _check_headers(publisher)
        if is_plain:
            command = _plain_command(publisher, command, headers)
        options = {name: value for name, value in connection_options(broker).items() if name not in NOT_TAKEN_OVER}
        response_timeout = options.pop("socket_timeout", DEFAULT_RESPONSE_SECONDS)
        sentinel = sentinel_of(broker)
        if sentinel is not None:
            for name in ("host", "port"):
                options.pop(name, None)
        return cls(
            address=address,
            command=command,
            holds=kind,
            headers=headers,
            message_format=None if is_plain else publisher.config.message_format,
            response_timeout=response_timeout,
            client_options=options,
            sentinel=sentinel,
        )

    def command_to(self, address: str | None, fields: Sequence[bytes] = ()) -> Sequence[str | int | bytes]:
        """Return the command that sends a message to another address, or to the publisher's own.

        Args:
            address: None: the publisher's own.
            fields: Names and values in turn, before the field of the message itself.
        """
        command = self.command if address is None else (self.command[0], address, *self.command[2:])
        return (*command[:-1], *fields, command[-1]) if fields else command

    @property
    def usual_timeout(self) -> float:
        """Seconds after which the client itself knows that something is wrong."""
        return self.response_timeout or ENDLESS_RESPONSE_SECONDS


def _command(publisher: LogicPublisher, *, allow_lossy: bool) -> tuple[str, bytes | None, Sequence[str | int]]:
    match publisher:
        case StreamPublisher():
            stream = publisher.stream
            # "~" as FastStream has it: Redis drops whole blocks of old messages, and not one by one.
            limit = () if stream.maxlen is None else ("MAXLEN", "~", stream.maxlen)
            return stream.name, b"stream", ("XADD", stream.name, *limit, "*", DATA_KEY)
        case ListPublisher() | ListBatchPublisher():
            return publisher.list.name, b"list", ("RPUSH", publisher.list.name)
        case ChannelPublisher():
            channel = publisher.channel
            if not allow_lossy:
                msg = (
                    f"to: Redis drops a message to the channel {channel.name!r} when nobody listens; write "
                    "redis.publisher(stream=...), or allow_lossy=True if messages may be lost"
                )
                raise ConfigError(msg)
            if channel.pattern:
                msg = f"to: {channel.name!r} is a pattern, which can only be subscribed to; name one channel"
                raise ConfigError(msg)
            return channel.name, None, ("PUBLISH", channel.name)
        case _:
            msg = f"to: must be a publisher of a stream, a list or a channel, got {type(publisher).__name__}"
            raise ConfigError(msg)


def _plain_command(
    publisher: LogicPublisher, command: Sequence[str | int], headers: Mapping[str, str]
) -> Sequence[str | int]:
    """Return the command of a stream with the field of the payload in place of FastStream's."""
    if not isinstance(publisher, StreamPublisher):
        msg = "envelope: 'plain' is for the fields of a stream's entry; leave it out, or write stream=..."
        raise ConfigError(msg)
    if BODY_FIELD in headers:
        msg = (
            f"to: with envelope='plain' the field {BODY_FIELD!r} has the body; give the publisher's header another name"
        )
        raise ConfigError(msg)
    return (*command[:-1], BODY_FIELD)


def _check_headers(publisher: LogicPublisher) -> dict[str, str]:
    headers: dict[Any, Any] = dict(publisher.headers)
    if publisher.reply_to:
        headers["reply_to"] = publisher.reply_to
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            msg = f"to: the publisher's headers must be a mapping of str to str, got {name!r}: {value!r}"
            raise ConfigError(msg)
    return headers
