"""A topic as the destination of one lane that sends exactly once."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from aiokafka.structs import TopicPartition

from faststream_outbox._values.outcome import Unsent
from faststream_outbox._values.position import Part
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.forwarders.connected_destination import Verdicts
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.destination import KafkaDestination
from faststream_outbox.forwarders.kafka.exact.leaders import Leaders
from faststream_outbox.forwarders.kafka.exact.positions import Books, LanePositions
from faststream_outbox.forwarders.kafka.exact.sending import ExactPartitionSender
from faststream_outbox.forwarders.kafka.partitioning import SteadyPartitionChooser
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError
from faststream_outbox.forwarders.suspects import Suspects

NO_RIGHT = {29, 31}
"""TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED."""

RIGHTS = (
    "exactly_once needs the rights to write to topic {topic!r}, to describe it and to read it (ACLs WRITE, DESCRIBE "
    "and READ): {error}"
)


class ExactKafkaDestination(KafkaDestination):
    """Sends the rows of each shard under a name that outlives this process: see ``docs/exactly-once.md``.

    Args:
        settings: See ``KafkaDestination``.
        suspects: See there.
        send_timeout: See there.
        books: What the lanes of the forwarder know of its shards.
    """

    def __init__(self, settings: KafkaSettings, suspects: Suspects, send_timeout: float, books: Books) -> None:
        super().__init__(settings, suspects, send_timeout)
        self._chooser = SteadyPartitionChooser(settings)
        self._books = books
        self.positions = LanePositions(books)

    async def _open(self) -> KafkaClient:
        client = await super()._open()
        self.positions.leaders = Leaders(client)
        return client

    async def _look(self, client: KafkaClient) -> None:
        await super()._look(client)
        if not self._books.has_rights:
            await self._check_rights(client)
            self._books.has_rights = True

    async def _drop(self) -> None:
        self.positions.leaders = None
        await super()._drop()

    def _part(
        self, client: KafkaClient, partition: TopicPartition, lost: Collection[TopicPartition] = ()
    ) -> str | None:
        # A row that is deferred would be passed over while it is in doubt: here it waits where it stands.
        return None

    async def _check_rights(self, client: KafkaClient) -> None:
        topic = self._settings.topic
        leaders = Leaders(client)
        try:
            await leaders.new_producer()
            told = await leaders.tell([Part(topic, partition) for partition in client.partitions(topic)])
        except KafkaAnswerError as error:
            raise _named(topic, error) from error
        for answer in told.values():
            if isinstance(answer, KafkaAnswerError):
                raise _named(topic, answer) from answer
            if isinstance(answer, Exception):
                raise answer

    async def _send_shares(
        self, client: KafkaClient, shares: Mapping[TopicPartition, Sequence[OutboxRow]], verdicts: Verdicts
    ) -> None:
        rows: dict[tuple[Shard, Part], list[OutboxRow]] = {}
        for (topic, partition), share in shares.items():
            by_shard: defaultdict[Shard, list[OutboxRow]] = defaultdict(list)
            for row in share:
                by_shard[self.positions.shard_of(row.id)].append(row)
            part = Part(topic, partition)
            rows |= {(shard, part): of_shard for shard, of_shard in by_shard.items()}
        await self.positions.open_missing(rows.keys())
        async with asyncio.TaskGroup() as group:
            for (shard, part), of_part in rows.items():
                book = self.positions.book_of(shard)
                if book is not None and book.may_send(part):
                    sender = ExactPartitionSender(client, self._settings, part, verdicts, book)
                    group.create_task(sender.send(of_part))
                else:
                    why = Unsent(self.positions.why(shard))
                    verdicts.update(dict.fromkeys([row.id for row in of_part], why))


def _named(topic: str, error: KafkaAnswerError) -> Exception:
    return PermissionError(RIGHTS.format(topic=topic, error=error)) if error.code in NO_RIGHT else error
