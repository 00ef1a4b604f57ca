"""A topic as the destination of one lane."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from aiokafka.structs import TopicPartition

from faststream_outbox._values.cloudevents import kafka_headers
from faststream_outbox._values.outcome import Refused, Unsent
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import wire_headers
from faststream_outbox.forwarders.batches import behind_refused
from faststream_outbox.forwarders.connected_destination import ConnectedDestination, Verdicts
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.partitioning import PartitionChooser
from faststream_outbox.forwarders.kafka.sending import PartitionSender
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError, classify
from faststream_outbox.forwarders.kinds import Address, Wishes
from faststream_outbox.forwarders.suspects import Suspects

MAX_TOPIC_CHARACTERS = 249
TOPIC_NAME = re.compile(rf"[a-zA-Z0-9._-]{{1,{MAX_TOPIC_CHARACTERS}}}")
"""Kafka's own rule: class org.apache.kafka.common.internals.Topic."""


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
        self._chooser = PartitionChooser(settings)
        self._broken_nodes: Collection[int] = ()

    async def _open(self) -> KafkaClient:
        return KafkaClient(self._settings)

    async def _look(self, client: KafkaClient) -> None:
        await client.refresh()

    async def _has_stayed(self, client: KafkaClient) -> bool:
        # Another server of the cluster has told where the partitions are, perhaps.
        return all([await client.reaches(node) for node in self._broken_nodes])

    def _is_ready(self, client: KafkaClient) -> bool:
        return super()._is_ready(client) and client.is_fresh

    def _is_settled(self, client: KafkaClient, error: BaseException) -> bool:
        return isinstance(error, KafkaAnswerError)

    async def _send(self, client: KafkaClient, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        topics = self._by_topic(parcels)
        problems = await client.look_up(topics.keys())
        self._broken_nodes = client.broken_nodes
        shares: dict[TopicPartition, Sequence[OutboxRow]] = {}
        for topic, rows in topics.items():
            if topic in problems:
                self._note_missing(topic, rows, problems[topic], verdicts)
                continue
            available = client.available_partitions(topic)
            spread = self._chooser.spread(topic, rows, client.partitions(topic), available, verdicts)
            shares |= {TopicPartition(topic, partition): share for partition, share in spread.items()}
        for partition, problem in (await client.lost(shares.keys())).items():
            verdicts.update(dict.fromkeys((row.id for row in shares.pop(partition)), Unsent(problem)))
        async with asyncio.TaskGroup() as group:
            for partition, share in shares.items():
                group.create_task(PartitionSender(client, self._settings, partition, verdicts).send(share))

    def _by_topic(self, parcels: Sequence[Parcel]) -> dict[str, list[OutboxRow]]:
        topics: defaultdict[str, list[OutboxRow]] = defaultdict(list)
        for parcel in parcels:
            topics[parcel.address or self._settings.topic].append(parcel.row)
        return topics

    def _note_missing(
        self, topic: str, rows: Sequence[OutboxRow], problem: KafkaAnswerError, verdicts: Verdicts
    ) -> None:
        match classify(problem, elsewhere=topic != self._settings.topic):
            case Refused() as refused:
                of_rows = behind_refused(rows, [refused] * len(rows), set())
                verdicts.update(zip([row.id for row in rows], of_rows, strict=True))
            case verdict:
                verdicts.update((row.id, verdict) for row in rows)

    def _check_address(self, address: str) -> None:
        if TOPIC_NAME.fullmatch(address) is None or address in {".", ".."}:
            msg = (
                f"a topic's name has 1 to {MAX_TOPIC_CHARACTERS} of the characters a-z A-Z 0-9 . _ -, not just . or .."
            )
            raise ValueError(msg)


def address_of(publisher: Any, wishes: Wishes) -> Address:
    """Read a publisher of FastStream's ``KafkaBroker``.

    Raises:
        ConfigError: Its settings are not safe.
    """
    wishes.refuse("Kafka", "count_nacks")
    headers_of = kafka_headers if wishes.envelope else wire_headers
    settings = KafkaSettings.of(publisher, headers_of, tombstones=wishes.tombstones)
    suspects = Suspects()
    return Address(
        f"kafka:{settings.topic}",
        settings.request_timeout,
        lambda seconds: KafkaDestination(settings, suspects, seconds),
    )
