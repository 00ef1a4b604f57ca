"""The session's RabbitMQ: the real one's answers, and a server that can be broken and comes back."""

import asyncio
from collections.abc import Iterator

import aiormq
import pytest
from aiormq.exceptions import AMQPConnectionError, ChannelNotFoundEntity, ChannelPreconditionFailed, PublishError

from integration.destinations.rabbit import QueueBox

from .rabbitmq import MAX_MESSAGE_BYTES, OwnRabbit, RabbitServer


@pytest.fixture
def name() -> Iterator[str]:
    return RabbitServer.new_name()


@pytest.fixture
def embedded(rabbit_server: RabbitServer) -> OwnRabbit:
    if not isinstance(rabbit_server, OwnRabbit):
        pytest.skip("a server named by the environment is not ours to break")
    return rabbit_server


async def send(url: str, queue: str, *bodies: bytes) -> None:
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        for body in bodies:
            properties = aiormq.spec.Basic.Properties(delivery_mode=2)
            await channel.basic_publish(body, routing_key=queue, mandatory=True, properties=properties)


async def test_everything_in_a_queue_is_read_repeats_included(rabbit_server: RabbitServer, name: str) -> None:
    async with QueueBox.declared(rabbit_server, name) as mailbox:
        await send(rabbit_server.url, name, b"1", b"2", b"1")
        assert [message.body for message in await mailbox.messages(2)] == [b"1", b"2", b"1"]
        await send(rabbit_server.url, name, b"3")
        assert [message.body for message in await mailbox.messages(4)] == [b"1", b"2", b"1", b"3"]


async def test_too_few_messages_are_an_error_with_numbers(rabbit_server: RabbitServer, name: str) -> None:
    async with QueueBox.declared(rabbit_server, name) as mailbox:
        await send(rabbit_server.url, name, b"1")
        with pytest.raises(TimeoutError, match="1 of 2 messages"):
            await mailbox.messages(2, timeout=0.3)


async def test_a_queue_is_gone_afterwards(rabbit_server: RabbitServer, name: str) -> None:
    async with QueueBox.declared(rabbit_server, name):
        pass
    with pytest.raises(PublishError):
        await send(rabbit_server.url, name, b"")


async def test_a_large_message_and_a_missing_exchange_are_refused(embedded: OwnRabbit, name: str) -> None:
    async with QueueBox.declared(embedded, name):
        with pytest.raises(ChannelPreconditionFailed, match="message size"):
            await send(embedded.url, name, b"x" * (MAX_MESSAGE_BYTES + 1))
    async with aiormq.connect(embedded.url) as connection:
        channel = await connection.channel()
        with pytest.raises(ChannelNotFoundEntity):
            await channel.basic_publish(b"", exchange=name)


async def test_a_memory_alarm_blocks_publishers_until_it_ends(embedded: OwnRabbit, name: str) -> None:
    async with QueueBox.declared(embedded, name) as mailbox:
        with embedded.memory_alarm():
            sending = asyncio.create_task(send(embedded.url, name, b"1", b"2"))
            _, pending = await asyncio.wait([sending], timeout=0.5)
            assert pending
        await sending
        assert len(await mailbox.messages(2)) == 2


@pytest.mark.parametrize("killed", [False, True])
async def test_a_restart_keeps_port_and_data(embedded: OwnRabbit, name: str, killed: bool) -> None:
    async with QueueBox.declared(embedded, name) as mailbox:
        await send(embedded.url, name, b"before")
        if killed:
            # It confirms a message when that is on the disk; that there is the queue it writes a moment late.
            embedded.evaluate("mnesia:sync_log()")
            embedded.process.kill()
        else:
            await asyncio.to_thread(embedded.stop)
        with pytest.raises(AMQPConnectionError):
            await send(embedded.url, name, b"during")
        await asyncio.to_thread(embedded.start)
        await send(embedded.url, name, b"after")
        assert [message.body for message in await mailbox.messages(2)] == [b"before", b"after"]
