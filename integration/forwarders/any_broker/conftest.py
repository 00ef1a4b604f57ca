from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
from faststream.nats import NatsBroker

from integration.destinations.nats import NatsBox
from integration.servers.nats import EmbeddedNats, NatsServer


@pytest.fixture
async def stream(nats_server: NatsServer, nothing_is_left_behind: None) -> AsyncIterator[NatsBox]:
    """A stream of the session's NATS."""
    async with NatsBox.open(nats_server) as box:
        yield box


@pytest.fixture
def nats_broker(nats_server: NatsServer) -> NatsBroker:
    """The destination's broker; nobody connects it."""
    return NatsBroker(nats_server.url, logger=None)


@pytest.fixture
def embedded(nats_server: NatsServer) -> Iterator[EmbeddedNats]:
    """The session's NATS where a test has to break it."""
    if not isinstance(nats_server, EmbeddedNats):
        pytest.skip("a NATS named by the environment is not ours to break")
    with ExitStack() as stack:
        stack.callback(lambda: nats_server.process.alive or nats_server.start())
        yield nats_server
