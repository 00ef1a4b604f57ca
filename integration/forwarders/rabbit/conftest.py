import logging
from collections.abc import AsyncIterator

import pytest
from faststream.rabbit import RabbitBroker

from integration.destinations.rabbit import QueueBox
from integration.faults.proxy import TcpProxy
from integration.servers.rabbitmq import OwnRabbit, RabbitServer


@pytest.fixture
def embedded(rabbit_server: RabbitServer) -> OwnRabbit:
    """The session's RabbitMQ where a test has to break it."""
    if not isinstance(rabbit_server, OwnRabbit):
        pytest.skip("a RabbitMQ named by the environment is not ours to break")
    return rabbit_server


@pytest.fixture
def rabbit(rabbit_server: RabbitServer) -> RabbitBroker:
    """The destination's broker; nobody connects it."""
    return RabbitBroker(rabbit_server.url, logger=None)


@pytest.fixture
async def rabbit_proxy(rabbit_server: RabbitServer) -> AsyncIterator[TcpProxy]:
    """A proxy before the session's RabbitMQ."""
    async with TcpProxy(rabbit_server.host, rabbit_server.port) as proxy:
        yield proxy


@pytest.fixture
def proxied_rabbit(rabbit_server: RabbitServer, rabbit_proxy: TcpProxy) -> RabbitBroker:
    """The destination's broker behind the proxy."""
    return RabbitBroker(rabbit_server.url_through(rabbit_proxy.address), logger=None)


@pytest.fixture
async def mailbox(rabbit_server: RabbitServer, nothing_is_left_behind: None) -> AsyncIterator[QueueBox]:
    """A durable queue for this test alone, fed by the default exchange."""
    async with QueueBox.declared(rabbit_server, rabbit_server.new_name()) as mailbox:
        yield mailbox


@pytest.fixture
def aiormq_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What aiormq says from WARNING on."""
    caplog.set_level(logging.WARNING, "aiormq")
    return caplog
