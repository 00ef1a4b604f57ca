"""A topic as the destination of one lane that sends exactly once."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from zlib import crc32

from aiokafka.structs import TopicPartition

from faststream_outbox._values.outcome import Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.position import Part
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.forwarders.batches import behind_refused
from faststream_outbox.forwarders.connected_destination import Verdicts
from faststream_outbox.forwarders.doubt import InDoubtError
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.destination import KafkaDestination, is_of_a_partition_alone
from faststream_outbox.forwarders.kafka.exact.book import ROUTING_BITS, Route
from faststream_outbox.forwarders.kafka.exact.leaders import Leaders
from faststream_outbox.forwarders.kafka.exact.positions import Books, LanePositions
from faststream_outbox.forwarders.kafka.exact.sending import ExactPartitionSender
from faststream_outbox.forwarders.kafka.partitioning import SteadyPartitionChooser, name_of
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.silence import Knocker
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError, is_of_a_topic
from faststream_outbox.forwarders.outages import Outages
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
        outages: See there.
        knocker: See there.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        suspects: Suspects,
        send_timeout: float,
        books: Books,
        outages: Outages | None = None,
        *,
        knocker: Knocker | None = None,
    ) -> None:
        super().__init__(settings, suspects, send_timeout, outages, knocker=knocker)
        self._chooser = SteadyPartitionChooser(settings)
        self._books = books
        self.positions = LanePositions(books)
        self.positions.is_down = self._is_down

    async def _open(self) -> KafkaClient:
        client = await super()._open()
        self.positions.leaders = Leaders(client)
        self.positions.routing = lambda: self._routing(client)
        return client

    def _routing(self, client: KafkaClient) -> Route:
        settings = self._settings
        partitioner = getattr(settings.partitioner, "__qualname__", type(settings.partitioner).__qualname__)
        choice = (len(client.partitions(settings.topic)), settings.partition, settings.key, partitioner)
        return Route(settings.topic, crc32(repr(choice).encode()) % ((1 << ROUTING_BITS) - 1) + 1)

    def _is_down(self, part: Part) -> bool:
        if not self._outages:
            return False
        partition = TopicPartition(*part)
        name = name_of(partition)
        return self._outages.is_to_wait(name) or self._keeps_silent(name, partition) is not None

    async def _look(self, client: KafkaClient) -> None:
        await super()._look(client)
        if not self._books.has_rights:
            await self._check_rights(client)
            self._books.has_rights = True

    async def _drop(self) -> None:
        self.positions.leaders = None
        await super()._drop()

    def _has_way_around(self, row: OutboxRow) -> bool:
        # It is met again in its own partition only.
        return False

    def _is_settled(self, client: KafkaClient, error: BaseException) -> bool:
        # A look that waits has its answers, and a batch that was not read back has its own.
        return isinstance(error, InDoubtError) or super()._is_settled(client, error)

    async def send(self, parcels: Sequence[Parcel]) -> Sequence[Verdict]:
        try:
            return await super().send(parcels)
        except BaseException:
            # Batches that were acknowledged have lost their verdicts: their rows are to be found, not sent again.
            self.positions.begin()
            raise

    async def _check_rights(self, client: KafkaClient) -> None:
        topic = self._settings.topic
        leaders = Leaders(client)
        try:
            await leaders.new_producer()
            told = await leaders.tell([Part(topic, partition) for partition in client.partitions(topic)])
        except KafkaAnswerError as error:
            raise _named(topic, error) from error
        problems = [answer for answer in told.values() if isinstance(answer, Exception)]
        # A partition without a leader says nothing of rights, and the others may take rows.
        named = [problem for problem in problems if isinstance(problem, KafkaAnswerError) and problem.code in NO_RIGHT]
        if named or (problems and len(problems) == len(told)):
            problem = [*named, *problems][0]
            raise _named(topic, problem) from problem

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
        routing = self._routing(client)
        problems = await self.positions.open_missing(rows.keys(), routing)
        async with asyncio.TaskGroup() as group:
            for (shard, part), of_part in rows.items():
                book = self.positions.book_of(shard)
                if book is not None and book.may_send(part, routing):
                    sender = ExactPartitionSender(client, self._settings, part, verdicts, book)
                    group.create_task(self._send_by(sender, client, TopicPartition(*part), of_part, verdicts))
                else:
                    problem = problems.get(part) or self.positions.why_of_part(shard, part)
                    if book is None or problem is None:
                        why = Unsent(self.positions.why(shard))
                        verdicts.update(dict.fromkeys([row.id for row in of_part], why))
                    else:
                        group.create_task(self._note_unsent(client, part, of_part, problem, verdicts))

    async def _note_unsent(
        self, client: KafkaClient, part: Part, rows: Sequence[OutboxRow], problem: Exception, verdicts: Verdicts
    ) -> None:
        """Note that nothing can be sent to a partition now."""
        partition = TopicPartition(*part)
        name = self._part(client, partition)
        is_alone = isinstance(problem, InDoubtError) or await is_of_a_partition_alone(client, partition, problem)
        if name is not None and is_alone:
            self._note_down(name, rows, problem, verdicts)
            return
        if part.topic != self._settings.topic and is_of_a_topic(problem):
            refused = [Refused(_named(part.topic, problem))] * len(rows)
            verdicts.update(zip([row.id for row in rows], behind_refused(rows, refused, set()), strict=True))
        else:
            # Kafka was asked about the partition, and was given no row that it could refuse.
            verdicts.update(dict.fromkeys([row.id for row in rows], Unsent(_named(part.topic, problem))))


def _named(topic: str, error: Exception) -> Exception:
    is_refused = isinstance(error, KafkaAnswerError) and error.code in NO_RIGHT
    return PermissionError(RIGHTS.format(topic=topic, error=error)) if is_refused else error
