"""Destinations of all three kinds in one shape: a server to break, a proxy before it, and what arrived."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from integration.faults.proxy import TcpProxy
from integration.ledger.destinations import Arrivals, QueueArrivals, StreamArrivals, TopicArrivals
from integration.servers.kafka import OwnKafka
from integration.servers.process import LOOPBACK
from integration.servers.queues import Mailbox, open_exchange
from integration.servers.rabbitmq import OwnRabbit
from integration.servers.redis import EmbeddedRedis

Server = OwnKafka | OwnRabbit | EmbeddedRedis


@dataclass(frozen=True)
class Outlet:
    """A topic, queue or stream for one scenario.

    Attributes:
        address: what a relay connects to, through the proxy.
        to: the name of the topic, queue or stream.
        exchange: of RabbitMQ, by which the queue is reached under its name.
    """

    kind: Literal["kafka", "rabbit", "redis"]
    server: Server
    proxy: TcpProxy
    address: str
    to: str
    arrivals: Arrivals
    exchange: str = ""

    async def restart(self) -> None:
        """Stop the server cleanly and start it again, while this loop goes on to serve the proxy."""
        await asyncio.to_thread(self.server.stop)
        await asyncio.to_thread(self.server.start)


@asynccontextmanager
async def open_outlet(server: Server) -> AsyncIterator[Outlet]:
    """Make the topic, queue or stream, and a proxy before its server."""
    if isinstance(server, OwnKafka):
        opened = _kafka(server)
    elif isinstance(server, OwnRabbit):
        opened = _rabbit(server)
    else:
        opened = _redis(server)
    async with opened as outlet:
        yield outlet


@asynccontextmanager
async def _kafka(server: OwnKafka) -> AsyncIterator[Outlet]:
    with server.topic(partitions=6) as topic:
        async with TcpProxy(LOOPBACK, server.proxied_port, port=server.proxy_port) as proxy:
            arrivals = TopicArrivals(server.bootstrap, topic)
            yield Outlet("kafka", server, proxy, proxy.address, topic, arrivals)


@asynccontextmanager
async def _rabbit(server: OwnRabbit) -> AsyncIterator[Outlet]:
    async with (
        Mailbox.open(server.url, server.new_name(), x_overflow="reject-publish") as mailbox,
        open_exchange(server.url, mailbox.name) as exchange,
        TcpProxy(server.host, server.port) as proxy,
    ):
        address = server.url_through(proxy.address)
        yield Outlet("rabbit", server, proxy, address, mailbox.name, QueueArrivals(mailbox), exchange)


@asynccontextmanager
async def _redis(server: EmbeddedRedis) -> AsyncIterator[Outlet]:
    with server.key() as stream:
        async with TcpProxy(LOOPBACK, urlsplit(server.url).port or 6379) as proxy:
            arrivals = StreamArrivals(server, stream)
            yield Outlet("redis", server, proxy, server.url_behind(proxy.address), stream, arrivals)
