"""G8: each lane has a connection of its own, and closes it."""

from urllib.parse import urlsplit

import psutil
from faststream.redis import RedisBroker

from integration.broker.observing import eventually
from integration.destinations.redis import StreamBox
from integration.forwarders.carrying import Publishing
from integration.forwarders.conftest import MakeBroker
from integration.servers.redis import RedisServer

SMALL = 1.0


def _connections_to(port: int | None) -> list[object]:
    connections = psutil.Process().net_connections("tcp")
    return [c for c in connections if c.raddr and c.raddr.port == port and c.status == psutil.CONN_ESTABLISHED]


async def test_what_the_application_has_opened_stays_open_and_ours_is_closed(
    make_broker: MakeBroker, redis: RedisBroker, redis_server: RedisServer, box: StreamBox, publishing: Publishing
) -> None:
    port = urlsplit(redis_server.url).port
    await redis.start()
    publisher = redis.publisher(stream=box.name)
    await redis.publish(b"the application's", stream=box.name)
    theirs = len(_connections_to(port))
    broker = make_broker()
    broker.forwarder("orders", to=publisher, lanes=3)
    for _ in range(2):  # A broker can be started again.
        await broker.start()
        await eventually(lambda: len(_connections_to(port)) == theirs + 3)
        await broker.stop()
        await eventually(lambda: len(_connections_to(port)) == theirs)
    await redis.publish(b"the application's", stream=box.name)
    await redis.stop()
