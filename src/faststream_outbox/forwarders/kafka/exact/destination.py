"""A topic as the destination of one lane that sends exactly once."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from aiokafka.structs import TopicPartition

from faststream_outbox._values.outcome import Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.position import Part
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from faststream_outbox.forwarders.batches import behind_refused
from faststream_outbox.forwarders.connected_destination import Verdicts
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.destination import KafkaDestination
from faststream_outbox.forwarders.kafka.exact.leaders import Leaders
from faststream_outbox.forwarders.kafka.exact.positions import Books, InDoubtError, LanePositions
from faststream_outbox.forwarders.kafka.exact.sending import ExactPartitionSender
from faststream_outbox.forwarders.kafka.partitioning import SteadyPartitionChooser
from faststream_outbox.forwarders.kafka.settings import KafkaSettings
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError, classify
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
        problems = await self.positions.open_missing(rows.keys())
        async with asyncio.TaskGroup() as group:
            for (shard, part), of_part in rows.items():
                book = self.positions.book_of(shard)
                if book is not None and book.may_send(part):
                    sender = ExactPartitionSender(client, self._settings, part, verdicts, book)
                    group.create_task(sender.send(of_part))
                elif book is not None and part in problems:
                    self._note_unopened(part, of_part, problems[part], verdicts)
                else:
                    why = Unsent(self.positions.why(shard))
                    verdicts.update(dict.fromkeys([row.id for row in of_part], why))

    def _note_unopened(self, part: Part, rows: Sequence[OutboxRow], problem: Exception, verdicts: Verdicts) -> None:
        verdict = classify(problem, elsewhere=part.topic != self._settings.topic)
        if isinstance(verdict, Refused):
            refused = [Refused(_named(part.topic, problem))] * len(rows)
            verdicts.update(zip([row.id for row in rows], behind_refused(rows, refused, set()), strict=True))
        else:
            verdicts.update(dict.fromkeys([row.id for row in rows], verdict))


def _named(topic: str, error: Exception) -> Exception:
    is_refused = isinstance(error, KafkaAnswerError) and error.code in NO_RIGHT
    return PermissionError(RIGHTS.format(topic=topic, error=error)) if is_refused else error
