"""What happens to destinations: each trouble is an async context, and over when it is left."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from integration.faults.proxy import Direction
from integration.servers.queues import declare_exchange, delete_exchange
from integration.servers.rabbitmq import OwnRabbit
from integration.servers.redis import EmbeddedRedis

from .outlets import Outlet

Trouble = Callable[[Outlet], AbstractAsyncContextManager[None]]

BYTES_BEFORE_THE_CUT = 1000
SLOW_SECONDS = 0.15
BYTES_PER_SECOND = 3000


@asynccontextmanager
async def restart(outlet: Outlet) -> AsyncIterator[None]:
    await outlet.restart()
    yield


@asynccontextmanager
async def unreachable(outlet: Outlet) -> AsyncIterator[None]:
    outlet.proxy.refuse()
    outlet.proxy.reset()
    yield
    await outlet.proxy.restore()


@asynccontextmanager
async def cut_both_ways(outlet: Outlet) -> AsyncIterator[None]:
    outlet.proxy.black_hole()
    yield
    await outlet.proxy.restore()


@asynccontextmanager
async def answers_lost(outlet: Outlet) -> AsyncIterator[None]:
    outlet.proxy.black_hole([Direction.TO_CLIENT])
    yield
    await outlet.proxy.restore()


@asynccontextmanager
async def slow(outlet: Outlet) -> AsyncIterator[None]:
    outlet.proxy.delay(SLOW_SECONDS)
    yield
    await outlet.proxy.restore()


@asynccontextmanager
async def dripping(outlet: Outlet) -> AsyncIterator[None]:
    outlet.proxy.drip(BYTES_PER_SECOND)
    yield
    await outlet.proxy.restore()


@asynccontextmanager
async def reset_mid_frame(outlet: Outlet) -> AsyncIterator[None]:
    outlet.proxy.cut_after(BYTES_BEFORE_THE_CUT, Direction.TO_SERVER)
    yield
    await outlet.proxy.restore()


NETWORK: list[Trouble] = [restart, cut_both_ways, answers_lost, slow, dripping, reset_mid_frame]


@asynccontextmanager
async def too_few_replicas(outlet: Outlet) -> AsyncIterator[None]:
    """Kafka: there is one replica, and two must be in sync."""
    await _set_topic(outlet, "min.insync.replicas", "2")
    yield
    await _set_topic(outlet, "min.insync.replicas", "1")


async def _set_topic(outlet: Outlet, name: str, value: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=outlet.server.bootstrap)  # type: ignore[union-attr]
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, outlet.to, {name: value})])
    finally:
        await admin.close()


@asynccontextmanager
async def memory_alarm(outlet: Outlet) -> AsyncIterator[None]:
    """RabbitMQ: publishers are blocked."""
    assert isinstance(outlet.server, OwnRabbit)
    with outlet.server.memory_alarm():
        yield


@asynccontextmanager
async def full_queue(outlet: Outlet) -> AsyncIterator[None]:
    """RabbitMQ: the queue takes no more and says so, since it is declared with `overflow: reject-publish`.

    Not by a policy of both: its length would come first, and the queue would drop what it has taken.
    """
    assert isinstance(outlet.server, OwnRabbit)
    full = f'rabbit_policy:set(<<"/">>, <<"full">>, <<"{outlet.to}">>, [{{<<"max-length">>, 1}}], 0, <<"queues">>'
    outlet.server.evaluate(f'{full}, <<"tests">>)')
    yield
    outlet.server.evaluate('rabbit_policy:delete(<<"/">>, <<"full">>, <<"tests">>)')


@asynccontextmanager
async def missing_exchange(outlet: Outlet) -> AsyncIterator[None]:
    """RabbitMQ: somebody has deleted the exchange."""
    assert isinstance(outlet.server, OwnRabbit)
    await delete_exchange(outlet.server.url, outlet.exchange)
    yield
    await declare_exchange(outlet.server.url, outlet.exchange, outlet.to)


@asynccontextmanager
async def out_of_memory(outlet: Outlet) -> AsyncIterator[None]:
    """Redis: no write is taken any more."""
    assert isinstance(outlet.server, EmbeddedRedis)
    async with outlet.server.client() as client:
        await client.config_set("maxmemory", "1")
        yield
        await client.config_set("maxmemory", "0")


@asynccontextmanager
async def read_only(outlet: Outlet) -> AsyncIterator[None]:
    """Redis: the server became the replica of another, which does not answer."""
    assert isinstance(outlet.server, EmbeddedRedis)
    async with outlet.server.client() as client:
        await client.replicaof("127.0.0.1", "1")
        yield
        await client.replicaof("NO", "ONE")


REFUSALS: dict[str, list[Trouble]] = {
    "kafka": [too_few_replicas],
    "rabbit": [memory_alarm, full_queue, missing_exchange],
    "redis": [out_of_memory, read_only],
}
