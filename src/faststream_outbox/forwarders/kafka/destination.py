"""A topic as the destination of one lane."""

import asyncio
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from aiokafka.structs import TopicPartition

from faststream_outbox._values.cloudevents import kafka_headers
from faststream_outbox._values.outcome import Refused, Unsent
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import wire_headers
from faststream_outbox.forwarders.batches import behind_refused
from faststream_outbox.forwarders.connected_destination import ConnectedDestination, Verdicts
from faststream_outbox.forwarders.kafka.client import KafkaClient, LeaderUnreachableError
from faststream_outbox.forwarders.kafka.partitioning import PartitionChooser, name_of
from faststream_outbox.forwarders.kafka.sending import PartitionSender
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.silence import SILENT_SECONDS, Knocker, SilentError, Watch
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError, classify, is_of_a_partition
from faststream_outbox.forwarders.kinds import Address, Wishes
from faststream_outbox.forwarders.outages import Outages
from faststream_outbox.forwarders.suspects import Suspects

RETRY_SECONDS = (0.1, 5.0)
"""Between two batches that try whether a partition takes them again: at first, and in the end."""

SOME = 8
"""Partitions that are asked whether they answer while another one does not."""

LOOK_SECONDS = 0.5
"""How often it is asked at most who leads the partitions that are down."""

MAX_TOPIC_CHARACTERS = 249
TOPIC_NAME = re.compile(rf"[a-zA-Z0-9._-]{{1,{MAX_TOPIC_CHARACTERS}}}")
"""Kafka's own rule: class org.apache.kafka.common.internals.Topic."""


class KafkaDestination(ConnectedDestination[KafkaClient]):
    """Has connections for itself during a hand-over: Kafka serves a connection's requests in turn.

    Args:
        settings: The topic, and how to reach it.
        suspects: See ``ConnectedDestination``.
        send_timeout: See there.
        outages: What its lanes know of partitions that are down.
        knocker: Finds out for them when a silent partition answers.
    """

    SERVER: ClassVar[str] = "Kafka"

    def __init__(
        self,
        settings: KafkaSettings,
        suspects: Suspects,
        send_timeout: float,
        outages: Outages | None = None,
        *,
        knocker: Knocker | None = None,
    ) -> None:
        super().__init__(suspects, send_timeout)
        self._settings = settings
        self._outages = Outages(RETRY_SECONDS) if outages is None else outages
        self._chooser = PartitionChooser(settings)
        self._knocker = Knocker(settings, self._outages.due) if knocker is None else knocker
        self._unanswered: set[TopicPartition] = set()
        """Partitions that have left a batch of this hand-over without an answer."""
        self._broken_nodes: Collection[int] = ()
        self._looked_at = -math.inf

    async def _open(self) -> KafkaClient:
        client = KafkaClient(self._settings)
        if self._broken_nodes:
            # Only a connection that is opened now tells whether they are there.
            client.borrow(anew=True)
        return client

    def _rest(self, client: KafkaClient) -> None:
        client.give_back()

    async def close(self) -> None:
        """Close what ``connect`` opened, and ask silent partitions no more."""
        try:
            await super().close()
        finally:
            await self._knocker.close()

    async def _look(self, client: KafkaClient) -> None:
        await client.refresh()
        self._looked_at = time.monotonic()

    async def _has_stayed(self, client: KafkaClient) -> bool:
        # Another server of the cluster has told where the partitions are, perhaps.
        return all([await client.reaches(node) for node in self._broken_nodes])

    def _is_ready(self, client: KafkaClient) -> bool:
        # Before a partition that is down is tried again, it is asked who leads it now.
        is_stale = self._outages.is_due and time.monotonic() - self._looked_at > LOOK_SECONDS
        return super()._is_ready(client) and client.is_fresh and not is_stale

    def _is_settled(self, client: KafkaClient, error: BaseException) -> bool:
        return isinstance(error, KafkaAnswerError)

    async def _send(self, client: KafkaClient, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        try:
            await self._send_by_partition(client, parcels, verdicts)
        finally:
            self._outages.release(self)

    async def _send_by_partition(self, client: KafkaClient, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        self._unanswered = set()
        topics = self._by_topic(parcels)
        problems = await client.look_up(topics.keys())
        self._broken_nodes = client.broken_nodes
        shares: dict[TopicPartition, Sequence[OutboxRow]] = {}
        for topic, rows in topics.items():
            if topic in problems:
                self._note_missing(topic, rows, problems[topic], verdicts)
                continue
            available = client.available_partitions(topic)
            if self._outages:
                # When its time comes a partition has its share again: else rows without a key would never try it.
                waits = self._outages.is_to_wait
                available = [each for each in available if not waits(name_of(TopicPartition(topic, each)))]
            spread = self._chooser.spread(topic, rows, client.partitions(topic), available, verdicts)
            shares |= {TopicPartition(topic, partition): share for partition, share in spread.items()}
        if self._outages:
            # First of all: whether a server can be reached costs seconds to find out, and is asked for a try alone.
            self._keep_back(client, shares, verdicts)
        lost = await client.lost(shares.keys())
        for partition, problem in lost.items():
            self._note_down(self._part(client, partition, lost), shares.pop(partition), problem, verdicts)
        await self._send_shares(client, shares, verdicts)
        for partition in self._unanswered:
            # By now all others have their answers.
            client.cut(partition)

    async def _send_shares(
        self, client: KafkaClient, shares: Mapping[TopicPartition, Sequence[OutboxRow]], verdicts: Verdicts
    ) -> None:
        """Send rows to their partitions, to all of them at once."""
        async with asyncio.TaskGroup() as group:
            for partition, share in shares.items():
                group.create_task(self._send_to(client, partition, share, verdicts))

    def _keep_back(
        self, client: KafkaClient, shares: dict[TopicPartition, Sequence[OutboxRow]], verdicts: Verdicts
    ) -> None:
        """Take the shares of partitions out that are down and not to be tried now."""
        for partition in [*shares]:
            part = self._part(client, partition)
            if part is None:
                continue
            if (outage := self._outages.keeps_back(part) or self._keeps_silent(part, partition)) is not None:
                _note_waiting(shares.pop(partition), Unsent(outage, part), verdicts, self._has_way_around)
            elif self._outages.is_down(part):
                # One lane tries, whatever time that takes.
                self._outages.hold(part, self)

    def _keeps_silent(self, part: str, partition: TopicPartition) -> Exception | None:
        """Return what is wrong with a partition that has given no answer, until it has answered a question."""
        error = self._outages.error_of(part)
        return error if isinstance(error, SilentError) and not self._knocker.has_answered(partition) else None

    async def _send_to(
        self, client: KafkaClient, partition: TopicPartition, rows: Sequence[OutboxRow], verdicts: Verdicts
    ) -> None:
        await self._send_by(
            PartitionSender(client, self._settings, partition, verdicts), client, partition, rows, verdicts
        )

    async def _send_by(
        self,
        sender: PartitionSender,
        client: KafkaClient,
        partition: TopicPartition,
        rows: Sequence[OutboxRow],
        verdicts: Verdicts,
    ) -> None:
        """Send rows, and note whether the partition takes them."""
        server = client.leader(partition)
        try:
            async with asyncio.timeout(None) as limit:
                watch = Watch(limit, partial(self._is_silent, client, partition, server, time.monotonic()))
                try:
                    await sender.send(rows)
                finally:
                    watch.end()
        except TimeoutError:
            self._give_up(client, partition, rows, SILENT_SECONDS, verdicts)
            return
        if sender.outage is None:
            if server is not None:
                self._knocker.taken(server)
            if self._outages:
                self._outages.over(name_of(partition))
            return
        part = self._part(client, partition)
        if part is not None and self._outages.is_held_by(self, part) and isinstance(sender.outage, TimeoutError):
            self._give_up(client, partition, rows, self._settings.request_timeout, verdicts)
        elif part is not None and await is_of_a_partition_alone(client, partition, sender.outage):
            unsent = [row for row in rows if isinstance(verdicts[row.id], Unsent)]
            self._note_down(part, unsent, sender.outage, verdicts)

    async def _is_silent(
        self, client: KafkaClient, partition: TopicPartition, server: int | None, since: float
    ) -> bool:
        """Return whether it is in vain to wait for an answer, and keeps rows of other partitions waiting."""
        part = self._part(client, partition)
        if part is None or server is None or self._outages.is_held_by(self, part):
            # A lane that tries a partition waits as long as it takes: it has answered a question.
            return False
        topic = self._settings.topic
        others = {TopicPartition(topic, number) for number in client.available_partitions(topic)} - {partition}
        return await self._knocker.is_alone(partition, server, [*others][:SOME], since)

    def _give_up(
        self,
        client: KafkaClient,
        partition: TopicPartition,
        rows: Sequence[OutboxRow],
        seconds: float,
        verdicts: Verdicts,
    ) -> None:
        """Note that rows got no answer in so many seconds; the batch does not leave this machine any more."""
        self._unanswered.add(partition)
        self._knocker.gave_up(partition)
        unsent = [row for row in rows if isinstance(verdicts.get(row.id, Unsent()), Unsent)]
        self._note_down(self._part(client, partition), unsent, SilentError(partition, seconds), verdicts)

    def _part(
        self, client: KafkaClient, partition: TopicPartition, lost: Collection[TopicPartition] = ()
    ) -> str | None:
        """Return the name of a partition, if others of the publisher's topic take records; None if all may be down."""
        topic = self._settings.topic
        if self._settings.partition is not None and partition.topic == topic:
            return None
        led = {TopicPartition(topic, number) for number in client.available_partitions(topic)}
        others = led - {partition, *lost}
        return None if all(self._outages.is_down(name_of(other)) for other in others) else name_of(partition)

    def _note_down(self, part: str | None, rows: Sequence[OutboxRow], problem: Exception, verdicts: Verdicts) -> None:
        if part is None:
            verdicts.update(dict.fromkeys([row.id for row in rows], Unsent(problem)))
            return
        self._outages.failed(part, problem)
        _note_waiting(rows, Unsent(problem, part), verdicts, self._has_way_around)

    def _has_way_around(self, row: OutboxRow) -> bool:
        """Return whether a row may go to any partition."""
        return row.key is None and self._settings.key is None

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
    wishes.refuse_envelopes("Kafka", but="cloudevents")
    headers_of = kafka_headers if wishes.envelope else wire_headers
    settings = KafkaSettings.of(publisher, headers_of, tombstones=wishes.tombstones)
    suspects, outages = Suspects(), Outages(RETRY_SECONDS)
    if wishes.exactly_once is not None:
        # It is a destination of this kind, and more.
        from faststream_outbox.forwarders.kafka import exact  # noqa: PLC0415

        return exact.address_of(settings, suspects, outages, wishes.exactly_once, wishes.log)
    knocker = Knocker(settings, outages.due)
    return Address(
        f"kafka:{settings.topic}",
        settings.request_timeout,
        lambda seconds: KafkaDestination(settings, suspects, seconds, outages, knocker=knocker),
        outages,
        is_divided=True,
    )


async def is_of_a_partition_alone(client: KafkaClient, partition: TopicPartition, error: Exception) -> bool:
    """Return whether an outage is one of a partition alone, and it is sure that nothing is on its way there."""
    if isinstance(error, LeaderUnreachableError):
        return await client.reaches_others(partition)
    return is_of_a_partition(error)


def _note_waiting(
    rows: Sequence[OutboxRow], verdict: Unsent, verdicts: Verdicts, has_way_around: Callable[[OutboxRow], bool]
) -> None:
    """Note that rows wait for a partition; all but the first of those that may go to another one only wait."""
    for position, row in enumerate(rows):
        verdicts[row.id] = Unsent() if position > 0 and has_way_around(row) else verdict
