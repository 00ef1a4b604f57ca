"""Rows that name a routing key of their own, on the real RabbitMQ."""

from collections.abc import AsyncIterator

import aio_pika
import pytest
from aio_pika.abc import AbstractExchange
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange

from faststream_outbox._values.outcome import Accepted, Poison, Reason, Refused
from integration.destinations.rabbit import QueueBox
from integration.destinations.received import check_order
from integration.forwarders.parcels import carry, destination, parcel
from integration.servers.rabbitmq import OwnRabbit, RabbitServer


@pytest.fixture
async def exchange(rabbit_server: RabbitServer, nothing_is_left_behind: None) -> AsyncIterator[AbstractExchange]:
    async with await aio_pika.connect(rabbit_server.url) as connection, connection.channel() as channel:
        exchange = await channel.declare_exchange(rabbit_server.new_name(), "topic", durable=True)
        yield exchange
        await exchange.delete()


async def test_on_the_default_exchange_it_is_another_queue(
    rabbit: RabbitBroker, rabbit_server: RabbitServer, mailbox: QueueBox
) -> None:
    async with QueueBox.declared(rabbit_server, f"{mailbox.name}-other") as other:
        parcels = [parcel(other.name if n % 3 else None, key=f"key-{n % 5}") for n in range(60)]
        async with destination(rabbit.publisher(mailbox.name)) as to:
            await to.connect()
            assert set(await to.send(parcels)) == {Accepted()}
        for box, count in ((mailbox, 20), (other, 40)):
            records = await box.received(count)
            assert {record.row_id for record in records} == {
                each.row.id for each in parcels if (each.address or mailbox.name) == box.name
            }
            check_order(records)


async def test_on_a_topic_exchange_it_is_another_routing_key(
    rabbit: RabbitBroker, rabbit_server: RabbitServer, exchange: AbstractExchange
) -> None:
    publisher = rabbit.publisher(
        exchange=RabbitExchange(exchange.name, type=ExchangeType.TOPIC), routing_key="orders.new"
    )
    name = rabbit_server.new_name()
    async with (
        QueueBox.declared(rabbit_server, name, exchange=exchange.name, routing_key="orders.#") as box,
        destination(publisher) as to,
    ):
        await to.connect()
        assert await to.send([parcel(), parcel("orders.ä")]) == [Accepted()] * 2
        assert [message.routing_key for message in await box.messages(2)] == ["orders.new", "orders.ä"]


async def test_a_routing_key_to_which_no_queue_is_bound_refuses_its_rows_and_no_others(
    rabbit: RabbitBroker, mailbox: QueueBox
) -> None:
    async with destination(rabbit.publisher(mailbox.name)) as to:
        await to.connect()
        refused, accepted = await to.send([parcel("nobody", key="a"), parcel(key="b")])
    assert isinstance(refused, Refused)
    assert "NO_ROUTE" in str(refused)
    assert accepted == Accepted()
    assert len(await mailbox.messages(1)) == 1


@pytest.mark.parametrize("address", ["", "x" * 256, "ä" * 128])
async def test_what_cannot_be_a_routing_key_is_poison(rabbit: RabbitBroker, mailbox: QueueBox, address: str) -> None:
    async with destination(rabbit.publisher(mailbox.name)) as to:
        await to.connect()
        poison, accepted = await to.send([parcel(address), parcel()])
    assert isinstance(poison, Poison)
    assert poison.reason == Reason.INVALID
    assert accepted == Accepted()


async def test_the_longest_routing_key(rabbit: RabbitBroker, rabbit_server: RabbitServer, mailbox: QueueBox) -> None:
    async with QueueBox.declared(rabbit_server, mailbox.name.ljust(255, "x")) as other:
        async with destination(rabbit.publisher(mailbox.name)) as to:
            assert await carry(to, [parcel(other.name)]) == [Accepted()]
        assert len(await other.messages(1)) == 1


async def test_a_routing_key_that_is_not_permitted_refuses_its_rows_and_no_others(
    embedded: OwnRabbit, exchange: AbstractExchange
) -> None:
    users, user, tests = "rabbit_auth_backend_internal", '<<"topical">>', '<<"tests">>'
    embedded.evaluate(f'{users}:add_user({user}, <<"secret">>, {tests})')
    embedded.evaluate(f'{users}:set_permissions({user}, <<"/">>, <<".*">>, <<".*">>, <<".*">>, {tests})')
    embedded.evaluate(
        f'{users}:set_topic_permissions({user}, <<"/">>, <<"{exchange.name}">>, <<"^open">>, <<".*">>, {tests})'
    )
    rabbit = RabbitBroker(embedded.url.replace("guest:guest", "topical:secret"), logger=None)
    publisher = rabbit.publisher(exchange=RabbitExchange(exchange.name, type=ExchangeType.TOPIC), routing_key="open.a")
    name = embedded.new_name()
    async with QueueBox.declared(embedded, name, exchange=exchange.name, routing_key="#") as box:
        addresses = (None, "closed", "open.b", "closed", None)
        parcels = [parcel(address, key=f"key-{number}") for number, address in enumerate(addresses)]
        async with destination(publisher) as to:
            verdicts = await carry(to, parcels)
        assert [type(verdict) for verdict in verdicts] == [Accepted, Refused, Accepted, Refused, Accepted]
        assert "access to topic 'closed'" in str(verdicts[1])
        assert {message.routing_key for message in await box.messages(3)} == {"open.a", "open.b"}
