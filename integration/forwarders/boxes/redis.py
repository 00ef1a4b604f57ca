"""A Redis stream or list."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import pytest
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.parser import BinaryMessageFormatV1

from integration.faults.proxy import TcpProxy
from integration.servers.process import LOOPBACK
from integration.servers.redis import RedisServer

from .base import Box, Received, Shut


class StreamBox(Box):
    kind = "redis-stream"
    has_message_id = True
    can_be_shut = True
    adds_headers = frozenset({"message_id"})
    patient: ClassVar[dict[str, Any]] = {"socket_timeout": 60.0}

    def __init__(self, server: RedisServer, name: str, proxy: TcpProxy | None = None) -> None:
        super().__init__(server.url, name, proxy)
        self._server = server

    @classmethod
    @asynccontextmanager
    async def open(cls, request: pytest.FixtureRequest) -> AsyncIterator[Self]:
        server: RedisServer = request.getfixturevalue("redis_server")
        address = urlsplit(server.url)
        with server.key() as name:
            async with TcpProxy(address.hostname or LOOPBACK, address.port or 6379) as proxy:
                yield cls(server, name, proxy)

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        return RedisBroker(url, logger=None, **options).publisher(stream=name)

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Self]:
        yield type(self)(self._server, f"{self.name}-beside")

    @asynccontextmanager
    async def shut(self) -> AsyncIterator[Shut]:
        name = f"{self.name}-shut"

        async def open_it() -> Box:
            async with self._server.client() as client:
                await client.delete(name)
            return type(self)(self._server, name)

        async with self._server.client() as client:
            await client.set(name, "not what messages can be put into")
        yield Shut(name, open_it)

    def subscribe(self, broker: RedisBroker, handler: Callable[..., Any]) -> None:
        broker.subscriber(stream=StreamSub(self.name, last_id="0"))(handler)

    @property
    def proxied_url(self) -> str:
        return self._server.url_behind(self.proxy.address)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 6379

    async def _read(self) -> list[Received]:
        return [_as_received(envelope) for envelope in await self._envelopes()]

    async def _envelopes(self) -> list[bytes]:
        async with self._server.client() as client:
            return [fields[b"__data__"] for _, fields in await client.xrange(self.name)]


class ListBox(StreamBox):
    kind = "redis-list"
    is_main = False

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        return RedisBroker(url, logger=None, **options).publisher(list=name)

    def subscribe(self, broker: RedisBroker, handler: Callable[..., Any]) -> None:
        broker.subscriber(list=self.name)(handler)

    async def _envelopes(self) -> list[bytes]:
        async with self._server.client() as client:
            return list(await client.lrange(self.name, 0, -1))


def _as_received(envelope: bytes) -> Received:
    body, headers = BinaryMessageFormatV1.parse(envelope)
    # The messages of others have neither.
    assert headers.get("message_id") == headers.get("idempotency-key")
    return Received(0, headers.pop("outbox-key", None), body, headers)
