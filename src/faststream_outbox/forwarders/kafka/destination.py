"""A topic as the destination of one lane."""

import asyncio
from collections.abc import Sequence

from faststream_outbox._engine.health import Health
from faststream_outbox._values.outcome import Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.deadline import Deadline
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.partitioning import Partitioning
from faststream_outbox.forwarders.kafka.sending import PartitionSending
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError


class KafkaDestination:
    """Sends the hand-overs of one lane, on a connection of its own: Kafka serves a connection's requests in turn.

    Args:
        settings: The topic, and how to reach it.
        health: Of the topic; its lanes share it.
        send_timeout: Seconds for one hand-over.
    """

    def __init__(self, settings: KafkaSettings, health: Health, send_timeout: float) -> None:
        self.health = health
        self._settings = settings
        self._partitioning = Partitioning(settings)
        self._deadline = Deadline(send_timeout)
        self._client: KafkaClient | None = None
        self._is_ready = False

    async def connect(self) -> None:
        client = self._client or KafkaClient(self._settings)
        if self._is_ready and client.is_fresh:
            return
        self._client = client
        try:
            await client.refresh()
        except BaseException as error:
            await self._after_trouble(error)
            raise
        self._is_ready = True

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        rows = [parcel.row for parcel in parcels]
        client = self._client
        if client is None or not self._is_ready:
            return [Unsent(ConnectionError("not connected"))] * len(rows)
        verdicts: dict[int, Verdict] = {}
        shares = self._partitioning.spread(rows, client.partitions(), client.available_partitions(), verdicts)
        try:
            async with self._deadline.hand_over(), asyncio.TaskGroup() as group:
                for partition, share in shares.items():
                    sending = PartitionSending(client, self._settings, partition, verdicts)
                    group.create_task(sending.send(share))
        except TimeoutError:
            # What other partitions have acknowledged by now stays so.
            pass
        except BaseException as error:
            await self._after_trouble(error)
            raise
        unknown = Unsent(TimeoutError("no answer in time; it is not known whether Kafka has the row"))
        answer = [verdicts.get(row.id, unknown) for row in rows]
        for trouble in {verdict.exception for verdict in answer if isinstance(verdict, Unsent)} - {None}:
            await self._after_trouble(trouble)
        return answer

    def finish(self, grace: float) -> None:
        self._deadline.finish(grace)

    async def close(self) -> None:
        self._is_ready = False
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _after_trouble(self, error: BaseException | None) -> None:
        """Look again before the next hand-over; start over if it is not sure that everything sent has an answer."""
        self._is_ready = False
        if not isinstance(error, KafkaAnswerError):
            await self.close()
