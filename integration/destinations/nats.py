"""A subject of a JetStream stream."""

import string
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from faststream.nats import JStream, NatsBroker

from integration.faults.proxy import TcpProxy
from integration.servers.nats import NatsServer

from .base import TEXT, Box
from .received import Received
from .refusing import refusing_middleware

LIMIT = 60_000


class NatsBox(Box):
    kind = "nats"
    server_fixture = "nats_server"
    drops_repeats = True
    shares_connections = True
    adds_headers = frozenset({"content-type", "Nats-Msg-Id", "Nats-Expected-Stream"})
    header_names = string.ascii_letters + string.digits + "-_"
    header_values = "".join(letter for letter in TEXT if not letter.isspace())
    can_refuse = True
    too_large = b"x" * (LIMIT + 10_000)

    def __init__(self, server: NatsServer, name: str, proxy: TcpProxy | None = None) -> None:
        super().__init__(server, name, proxy)
        self._stream = name

    @classmethod
    @asynccontextmanager
    async def open(cls, server: NatsServer) -> AsyncIterator[Self]:
        with server.stream(max_msg_size=LIMIT) as name:
            async with TcpProxy(server.host, server.port) as proxy:
                yield cls(server, name, proxy)

    @classmethod
    def publisher_at(cls, url: str, name: str, **options: Any) -> Any:
        broker = NatsBroker(url, logger=None, reconnect_time_wait=0.1, **options)
        return broker.publisher(name, stream=JStream(name, declare=False))

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[Self]:
        box = type(self)(self.server, f"{self.name}.beside")
        box._stream = self._stream
        yield box

    def options_that_refuse(self, key: str, times: int) -> dict[str, Any]:
        return refusing_middleware(key, times)

    def subscribe(self, broker: NatsBroker, handler: Callable[..., Any]) -> None:
        broker.subscriber(self.name, stream=JStream(self.name, declare=False), deliver_policy="all")(handler)

    @property
    def proxied_url(self) -> str:
        return str(self.server.url_behind(self.proxy.address))

    async def read(self) -> list[Received]:
        messages = []
        for message in await self.server.read_stream(self._stream):
            # Whatever is in the stream, but for what goes to the box beside.
            if (message.subject == f"{self._stream}.beside") != (self.name != self._stream):
                continue
            headers = dict(message.headers or {})
            messages.append(Received(0, headers.pop("outbox-key", None), message.data, headers))
        return messages
