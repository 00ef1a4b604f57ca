"""A topic as the destination of one lane."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.connected import ConnectedDestination, Verdicts
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.partitioning import Partitioning
from faststream_outbox.forwarders.kafka.sending import PartitionSending
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError
from faststream_outbox.forwarders.suspects import Suspects


class KafkaDestination(ConnectedDestination[KafkaClient]):
    """Needs a connection of its own for each lane: Kafka serves a connection's requests in turn.

    Args:
        settings: The topic, and how to reach it.
        suspects: See ``ConnectedDestination``.
        send_timeout: See there.
    """

    SERVER: ClassVar[str] = "Kafka"

    def __init__(self, settings: KafkaSettings, suspects: Suspects, send_timeout: float) -> None:
        super().__init__(suspects, send_timeout)
        self._settings = settings
        self._partitioning = Partitioning(settings)

    async def _open(self) -> KafkaClient:
        return KafkaClient(self._settings)

    async def _look(self, client: KafkaClient) -> None:
        await client.refresh()

    def _is_ready(self, client: KafkaClient) -> bool:
        return super()._is_ready(client) and client.is_fresh

    def _is_settled(self, client: KafkaClient, error: BaseException) -> bool:
        return isinstance(error, KafkaAnswerError)

    async def _hand_over(self, client: KafkaClient, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        rows = [parcel.row for parcel in parcels]
        shares = self._partitioning.spread(rows, client.partitions(), client.available_partitions(), verdicts)
        async with asyncio.TaskGroup() as group:
            for partition, share in shares.items():
                sending = PartitionSending(client, self._settings, partition, verdicts)
                group.create_task(sending.send(share))
