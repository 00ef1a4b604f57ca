"""A RabbitMQ that can be reached and opens no connection: what it says of the reason is in the error."""

import pytest
from faststream.rabbit import RabbitBroker

from faststream_outbox._values.outcome import Accepted
from integration.destinations.rabbit import QueueBox
from integration.forwarders.parcels import carry, destination, parcel
from integration.servers.rabbitmq import OwnRabbit


async def test_a_virtual_host_that_is_missing(embedded: OwnRabbit) -> None:
    rabbit = RabbitBroker(f"{embedded.url}nowhere", logger=None)
    async with destination(rabbit.publisher("orders")) as to:
        with pytest.raises(ConnectionError, match=r"NOT_ALLOWED - .*vhost.* nowhere.* \(530\)$") as caught:
            await to.connect()
    assert "guest:guest" not in str(caught.value)


async def test_a_virtual_host_whose_limit_of_connections_is_reached(embedded: OwnRabbit, mailbox: QueueBox) -> None:
    rabbit = RabbitBroker(embedded.url, logger=None)
    async with destination(rabbit.publisher(mailbox.name)) as to:
        embedded.evaluate('rabbit_vhost_limit:set(<<"/">>, [{<<"max-connections">>, 0}], <<"tests">>)')
        try:
            with pytest.raises(ConnectionError, match=r"connection limit \(0\) is reached"):
                await to.connect()
        finally:
            embedded.evaluate('rabbit_vhost_limit:clear(<<"/">>, <<"tests">>)')
        assert await carry(to, [parcel()]) == [Accepted()]
