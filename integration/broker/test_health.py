"""What probes hear of a broker on a real database and a real destination."""

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from faststream.asgi import AsgiFastStream, make_ping_asgi
from faststream.redis import RedisBroker
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox import BrokerHealth, OutboxBroker
from faststream_outbox.broker import health as health_module
from faststream_outbox.probes import make_live_asgi, make_ready_asgi
from integration.faults.proxy import TcpProxy
from integration.servers.process import LOOPBACK
from integration.servers.redis import RedisServer

from .conftest import MakeBroker
from .observing import eventually

FORWARDER = "redis:orders"


@pytest.fixture
async def postgres_proxy(database_url: str) -> AsyncIterator[TcpProxy]:
    url = make_url(database_url)
    assert url.host
    async with TcpProxy(url.host, url.port or 5432) as proxy:
        yield proxy


@pytest.fixture
async def proxied_engine(database_url: str, postgres_proxy: TcpProxy) -> AsyncIterator[AsyncEngine]:
    url = make_url(database_url).set(host=postgres_proxy.host, port=postgres_proxy.port)
    engine = create_async_engine(url, connect_args={"timeout": 5})
    yield engine
    await engine.dispose()


@pytest.fixture
async def redis_proxy(redis_server: RedisServer) -> AsyncIterator[TcpProxy]:
    address = urlsplit(redis_server.url)
    async with TcpProxy(address.hostname or LOOPBACK, address.port or 6379) as proxy:
        yield proxy


@pytest.fixture
def broker(
    proxied_engine: AsyncEngine, redis_server: RedisServer, redis_proxy: TcpProxy, make_broker: MakeBroker
) -> OutboxBroker:
    # Brokers are asked for last: they are stopped before the network goes.
    broker = make_broker(proxied_engine)
    redis = RedisBroker(redis_server.url_behind(redis_proxy.address), logger=None)
    broker.forwarder("orders", to=redis.publisher(stream="orders"))
    return broker


@pytest.fixture
async def client(broker: OutboxBroker) -> AsyncIterator[httpx.AsyncClient]:
    routes = [
        ("/livez", make_live_asgi(broker)),
        ("/readyz", make_ready_asgi(broker)),
        ("/ping", make_ping_asgi(broker, timeout=2.0)),
    ]
    transport = httpx.ASGITransport(AsgiFastStream(broker, asgi_routes=routes))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def health_when(broker: OutboxBroker, state: str) -> BrokerHealth:
    async def matching() -> BrokerHealth | None:
        health = await broker.health()
        return health if health.state == state else None

    health: BrokerHealth = await eventually(matching, within=15)
    return health


async def codes(client: httpx.AsyncClient) -> tuple[int, ...]:
    return tuple([(await client.get(path)).status_code for path in ("/livez", "/readyz", "/ping")])


async def test_a_destination_degrades_and_the_database_decides_whether_it_is_ready(
    redis_proxy: TcpProxy, postgres_proxy: TcpProxy, broker: OutboxBroker, client: httpx.AsyncClient
) -> None:
    assert await codes(client) == (200, 503, 204), "it is not started"
    await broker.start()
    assert (await health_when(broker, "ok")).forwarders == {FORWARDER: "flowing"}
    assert await codes(client) == (200, 200, 204)

    redis_proxy.refuse()
    redis_proxy.reset()
    health = await health_when(broker, "degraded")
    assert health.forwarders[FORWARDER] in {"down", "probing"}
    assert len(health.problems) == 1
    assert FORWARDER in health.problems[0]
    assert await codes(client) == (200, 200, 204)
    await redis_proxy.restore()
    await health_when(broker, "ok")

    broker.forwarders[0].pause()
    health = await health_when(broker, "ok")
    assert health.forwarders == {FORWARDER: "paused"}
    broker.forwarders[0].resume()

    postgres_proxy.refuse()
    postgres_proxy.reset()
    health = await health_when(broker, "not ready")
    assert "the database cannot be used" in health.problems[0]
    assert await codes(client) == (200, 503, 500)
    await postgres_proxy.restore()
    await health_when(broker, "ok")


async def test_tables_that_are_not_as_declared_are_not_ready(
    make_broker: MakeBroker, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "ANSWER_SECONDS", 0.0)
    publishing = make_broker()
    assert (await publishing.health()).state == "ok"
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE outbox DROP COLUMN timer_id"))
    assert (await publishing.health()).is_ready, "what was seen a moment ago is not looked at again"
    publishing._judge._good_until = 0.0
    health = await publishing.health()
    assert (health.is_live, health.is_ready) == (True, False)
    assert health.not_ready == ["outbox is not as it is declared; see validate_schema"]
