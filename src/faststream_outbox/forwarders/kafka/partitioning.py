"""Which row goes to which partition."""

import random
from collections import defaultdict
from collections.abc import MutableMapping, Sequence

from aiokafka.structs import TopicPartition

from faststream_outbox._values.outcome import Refused, Verdict
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.kafka.settings import KafkaSettings

RUN = 64
"""Rows without a key, one behind the other, that go to the same partition where each has one of its own."""


def name_of(partition: TopicPartition) -> str:
    """Return what a partition is called in a status and in the log."""
    return f"{partition.topic}[{partition.partition}]"


class PartitionChooser:
    """By key, like every other producer with this partitioner; rows without a key in equal runs, in turn."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        # Lanes and processes that start together should not begin with the same partition.
        self._turn = random.randrange(1024)  # noqa: S311 - nothing secret depends on it

    def spread(
        self,
        topic: str,
        rows: Sequence[OutboxRow],
        partitions: list[int],
        available: list[int],
        verdicts: MutableMapping[int, Verdict],
    ) -> dict[int, list[OutboxRow]]:
        """Choose a partition for each row; the rows of one partition stay in their order.

        Args:
            topic: Where they go. The publisher's own partition is one of the publisher's own topic.
            rows: In order.
            partitions: All of the topic: a key keeps its partition while some have no leader.
            available: Those with a leader.
            verdicts: Takes the rows that the user's partitioner fails for; all of a key's do.
        """
        if self._settings.partition is not None and topic == self._settings.topic:
            return {self._settings.partition: list(rows)}
        shares: defaultdict[int, list[OutboxRow]] = defaultdict(list)
        keyless: list[OutboxRow] = []
        chosen: dict[bytes, int | Refused] = {}
        for row in rows:
            key = self._settings.key if row.key is None else row.key.encode()
            if key is None:
                keyless.append(row)
                continue
            if key not in chosen:
                chosen[key] = self._choose(key, partitions, available)
            match chosen[key]:
                case Refused() as refused:
                    verdicts[row.id] = refused
                case partition:
                    shares[partition].append(row)
        self._share_keyless(keyless, partitions, available, shares)
        return shares

    def _share_keyless(
        self,
        rows: Sequence[OutboxRow],
        partitions: list[int],
        available: list[int],
        shares: MutableMapping[int, list[OutboxRow]],
    ) -> None:
        usable = available or partitions
        for position, row in enumerate(rows):
            turn = self._turn + position * len(usable) // len(rows)
            shares[usable[turn % len(usable)]].append(row)
        self._turn += 1

    def _choose(self, key: bytes, partitions: list[int], available: list[int]) -> int | Refused:
        try:
            return self._settings.partitioner(key, partitions, available)
        except Exception as error:  # noqa: BLE001 - the user's code
            return Refused(error)


class SteadyPartitionChooser(PartitionChooser):
    """The same partition for a row each time, also if it has no key: by its id.

    A process that sends a row once more meets the first copy where it would put the second.
    """

    def _share_keyless(
        self,
        rows: Sequence[OutboxRow],
        partitions: list[int],
        available: list[int],
        shares: MutableMapping[int, list[OutboxRow]],
    ) -> None:
        for row in rows:
            shares[partitions[row.id // RUN % len(partitions)]].append(row)
