"""A hand-over that begins while its connection ends: aiormq has a queue that nobody empties then."""

import asyncio

import pytest
from faststream.rabbit import RabbitBroker

from faststream_outbox._values.outcome import Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.outages import Outages
from faststream_outbox.forwarders.rabbit.client import RabbitClient
from faststream_outbox.forwarders.rabbit.sending import MessageSender
from faststream_outbox.forwarders.rabbit.settings import RabbitSettings
from integration.faults.proxy import TcpProxy
from tests.forwarders.rabbit.rows import row

MANY = 100
"""Far more rows than aiormq's queue has room for."""


@pytest.mark.parametrize("turns", [0, 3, 6, 9])
async def test_it_ends_soon(turns: int, proxied_rabbit: RabbitBroker, rabbit_proxy: TcpProxy) -> None:
    settings = RabbitSettings.of(proxied_rabbit.publisher("nobody-has-bound-this"))
    client = await RabbitClient.open(settings)
    try:
        rabbit_proxy.reset()
        await _until_it_shows(client)
        for _ in range(turns):
            await asyncio.sleep(0)
        verdicts: dict[int, Verdict] = {}
        # Nobody waits for the confirmations, which would take half a minute.
        async with asyncio.timeout(10):
            await MessageSender(client, settings, Outages(), verdicts).send(
                [Parcel(row(id=number, idempotency_key=f"i{number}")) for number in range(MANY)]
            )
        assert all(isinstance(verdict, Unsent) for verdict in verdicts.values())
        assert len(verdicts) == MANY
    finally:
        await client.close()


async def _until_it_shows(client: RabbitClient) -> None:
    """Wait until aiormq has seen the end, turn by turn, and before it says so; nothing public shows this moment."""
    reader = client._connection._reader_task
    while not reader.done() and client.is_alive:
        await asyncio.sleep(0)
