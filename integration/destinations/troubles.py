"""What happens to destinations: each trouble is an async context, and over when it is left."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from integration.faults.proxy import Direction
from integration.servers.kafka import KafkaServer
from integration.servers.rabbitmq import OwnRabbit, RabbitServer
from integration.servers.redis import EmbeddedRedis, RedisServer

from .base import Box
from .kafka import KafkaBox
from .rabbit import DirectBox
from .redis import StreamBox

Trouble = Callable[[Box], AbstractAsyncContextManager[None]]

BYTES_BEFORE_THE_CUT = 1000
SLOW_SECONDS = 0.15
BYTES_PER_SECOND = 3000


def open_box(server: KafkaServer | RabbitServer | RedisServer) -> AbstractAsyncContextManager[Box]:
    """Return a box to which all troubles of its kind can happen, and which takes what its server takes."""
    if isinstance(server, KafkaServer):
        return KafkaBox.open(server, is_limited=False)
    if isinstance(server, RabbitServer):
        return DirectBox.open(server)
    if isinstance(server, RedisServer):
        return StreamBox.open(server)
    msg = f"server: there are no troubles for a {type(server).__name__}; add its box here, and what it refuses"
    raise TypeError(msg)


@asynccontextmanager
async def restart(box: Box) -> AsyncIterator[None]:
    await box.restart()
    yield


@asynccontextmanager
async def unreachable(box: Box) -> AsyncIterator[None]:
    box.proxy.refuse()
    box.proxy.reset()
    yield
    await box.proxy.restore()


@asynccontextmanager
async def cut_both_ways(box: Box) -> AsyncIterator[None]:
    box.proxy.black_hole()
    yield
    await box.proxy.restore()


@asynccontextmanager
async def answers_lost(box: Box) -> AsyncIterator[None]:
    box.proxy.black_hole([Direction.TO_CLIENT])
    yield
    await box.proxy.restore()


@asynccontextmanager
async def slow(box: Box) -> AsyncIterator[None]:
    box.proxy.delay(SLOW_SECONDS)
    yield
    await box.proxy.restore()


@asynccontextmanager
async def dripping(box: Box) -> AsyncIterator[None]:
    box.proxy.drip(BYTES_PER_SECOND)
    yield
    await box.proxy.restore()


@asynccontextmanager
async def reset_mid_frame(box: Box) -> AsyncIterator[None]:
    box.proxy.cut_after(BYTES_BEFORE_THE_CUT, Direction.TO_SERVER)
    yield
    await box.proxy.restore()


NETWORK: list[Trouble] = [restart, cut_both_ways, answers_lost, slow, dripping, reset_mid_frame]


@asynccontextmanager
async def too_few_replicas(box: Box) -> AsyncIterator[None]:
    """Kafka: there is one replica, and two must be in sync."""
    await _set_topic(box, "min.insync.replicas", "2")
    yield
    await _set_topic(box, "min.insync.replicas", "1")


async def _set_topic(box: Box, name: str, value: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=box.url)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, box.name, {name: value})])
    finally:
        await admin.close()


@asynccontextmanager
async def memory_alarm(box: Box) -> AsyncIterator[None]:
    """RabbitMQ: publishers are blocked."""
    assert isinstance(box.server, OwnRabbit)
    with box.server.memory_alarm():
        yield


@asynccontextmanager
async def full_queue(box: Box) -> AsyncIterator[None]:
    """RabbitMQ: the queue takes no more and says so, since it is declared with `overflow: reject-publish`.

    Not by a policy of both: its length would come first, and the queue would drop what it has taken.
    """
    assert isinstance(box.server, OwnRabbit)
    full = f'rabbit_policy:set(<<"/">>, <<"full">>, <<"{box.name}">>, [{{<<"max-length">>, 1}}], 0, <<"queues">>'
    box.server.evaluate(f'{full}, <<"tests">>)')
    yield
    box.server.evaluate('rabbit_policy:delete(<<"/">>, <<"full">>, <<"tests">>)')


@asynccontextmanager
async def missing_exchange(box: Box) -> AsyncIterator[None]:
    """RabbitMQ: somebody has deleted the exchange."""
    assert isinstance(box.server, OwnRabbit)
    assert isinstance(box, DirectBox)
    await box.delete_exchange()
    yield
    await box.declare_exchange()


@asynccontextmanager
async def out_of_memory(box: Box) -> AsyncIterator[None]:
    """Redis: no write is taken any more."""
    assert isinstance(box.server, EmbeddedRedis)
    async with box.server.client() as client:
        await client.config_set("maxmemory", "1")
        yield
        await client.config_set("maxmemory", "0")


@asynccontextmanager
async def read_only(box: Box) -> AsyncIterator[None]:
    """Redis: the server became the replica of another, which does not answer."""
    assert isinstance(box.server, EmbeddedRedis)
    async with box.server.client() as client:
        await client.replicaof("127.0.0.1", "1")
        yield
        await client.replicaof("NO", "ONE")


REFUSALS: dict[str, list[Trouble]] = {
    "kafka": [too_few_replicas],
    "rabbit-direct": [memory_alarm, full_queue, missing_exchange],
    "redis-stream": [out_of_memory, read_only],
}
