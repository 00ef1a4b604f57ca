"""PostgreSQL fails over to a standby that lacks the last commits, and a process goes on with what it knows."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import MetaData, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from integration.conftest import enter
from integration.faults.proxy import TcpProxy
from integration.servers.kafka import KafkaServer
from integration.servers.postgres import EmbeddedPostgres, running_embedded
from integration.servers.process import LOOPBACK
from integration.servers.standby import EmbeddedStandby

from .shop import Shop, make_relay

BATCH = 4


@pytest.fixture
def primary(tables: MetaData) -> Iterator[EmbeddedPostgres]:
    with ExitStack() as stack:
        server = enter(stack, running_embedded(EmbeddedPostgres))
        stack.enter_context(server.template(tables))
        yield server


@pytest.fixture
def database_url(primary: EmbeddedPostgres) -> Iterator[str]:
    with primary.database() as url:
        yield url


@pytest.fixture
async def proxy(primary: EmbeddedPostgres) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(LOOPBACK, primary.port.number) as proxy:
        yield proxy


@pytest.fixture
async def engine(database_url: str, proxy: TcpProxy) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(make_url(database_url).set(host=LOOPBACK, port=proxy.port), poolclass=NullPool)
    yield engine
    await engine.dispose()


async def test_a_process_that_trusts_what_is_lost_looks_all_the_same(
    shop: Shop, primary: EmbeddedPostgres, database_url: str, proxy: TcpProxy, kafka_server: KafkaServer, topic: str
) -> None:
    """Another process took over, sent a batch and committed. The database has lost both, and has the old token."""
    broker, forwarder = shop.relay(batch_size=BATCH)
    await broker.start()
    await shop.publish(BATCH, keys=1)
    await shop.until_empty()
    forwarder.pause()
    with running_embedded(lambda folder: EmbeddedStandby(folder, primary)) as standby:
        await asyncio.to_thread(standby.part)
        await shop.publish(BATCH, keys=1)
        other, _ = make_relay(create_async_engine(database_url, poolclass=NullPool), shop.bootstrap, topic)
        await other.start()
        await shop.until_empty()
        await other.stop()
        proxy.refuse()
        proxy.reset()
        await asyncio.to_thread(primary.process.kill)
        await asyncio.to_thread(standby.promote)
        proxy.upstream_port = standby.port.number
        await proxy.restore()
        # As many as the other process has sent, so that they would have the same sequence numbers.
        await shop.publish(BATCH, keys=1)
        forwarder.resume()
        await shop.until_empty()
        await shop.check()
        assert (await forwarder.status()).maybe_repeated == 0
        await broker.stop()
        # To be cleaned up.
        await asyncio.to_thread(primary.start)
