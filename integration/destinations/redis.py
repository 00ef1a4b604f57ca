"""A Redis stream or list."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from faststream.redis import RedisBroker, RedisSentinelBroker, StreamSub
from faststream.redis.parser import BinaryMessageFormatV1

from integration.faults.proxy import TcpProxy
from integration.servers.process import LOOPBACK
from integration.servers.redis import RedisServer

from .base import Box, Shut
from .received import Received

PRIMARY = "shop"
"""What Sentinels call the server that they watch."""


class StreamBox(Box):
    kind = "redis-stream"
    server_fixture = "redis_server"
    has_message_id = True
    can_be_shut = True
    adds_headers = frozenset({"message_id"})
    patient: ClassVar[dict[str, Any]] = {"socket_timeout": 60.0}

    @classmethod
    @asynccontextmanager
    async def open(cls, server: RedisServer) -> AsyncIterator[Self]:
        address = urlsplit(server.url)
        with server.key() as name:
            async with TcpProxy(address.hostname or LOOPBACK, address.port or 6379) as proxy:
                yield cls(server, name, proxy)

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        return RedisBroker(url, logger=None, **options).publisher(stream=name)

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Self]:
        yield type(self)(self.server, f"{self.name}-beside")

    @asynccontextmanager
    async def shut(self) -> AsyncIterator[Shut]:
        name = f"{self.name}-shut"

        async def open_it() -> Box:
            async with self.server.client() as client:
                await client.delete(name)
            return type(self)(self.server, name)

        async with self.server.client() as client:
            await client.set(name, "not what messages can be put into")
        yield Shut(name, open_it)

    def subscribe(self, broker: RedisBroker, handler: Callable[..., Any]) -> None:
        broker.subscriber(stream=StreamSub(self.name, last_id="0"))(handler)

    @property
    def proxied_url(self) -> str:
        return str(self.server.url_behind(self.proxy.address))

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 6379

    async def read(self) -> list[Received]:
        return [as_received(envelope) for envelope in await self.envelopes()]

    async def envelopes(self) -> list[bytes]:
        """All messages as Redis has them, in a stream or in a list."""
        async with self.server.client() as client:
            match await client.type(self.name):
                case b"stream":
                    return [fields[b"__data__"] for _, fields in await client.xrange(self.name)]
                case b"list":
                    return list(await client.lrange(self.name, 0, -1))
                case kind:
                    assert kind == b"none"
                    return []


class SentinelBox(StreamBox):
    """A stream on whichever server the Sentinels name; its URL is theirs, as "host:port,host:port"."""

    kind = "redis-sentinel"
    is_main = False

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        places = [each.rpartition(":") for each in url.split(",")]
        sentinels = [(host, int(port)) for host, _, port in places]
        broker = RedisSentinelBroker(sentinels=sentinels, sentinel_master_name=PRIMARY, logger=None, **options)
        return broker.publisher(stream=name)


class ListBox(StreamBox):
    kind = "redis-list"
    is_main = False

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        return RedisBroker(url, logger=None, **options).publisher(list=name)

    def subscribe(self, broker: RedisBroker, handler: Callable[..., Any]) -> None:
        broker.subscriber(list=self.name)(handler)


def as_received(envelope: bytes) -> Received:
    body, headers = BinaryMessageFormatV1.parse(envelope)
    # The messages of others may have one without the other.
    assert "outbox-id" not in headers or headers["message_id"] == headers["idempotency-key"]
    return Received(0, headers.pop("outbox-key", None), body, headers)
