"""What the leaders of partitions are asked: which producers they remember, where their logs end, what is in them."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from faststream_outbox._values.position import Part, Producer
from faststream_outbox.forwarders.kafka.client import (
    SERVER_SECONDS,
    UNKNOWN_TOPIC_OR_PARTITION,
    KafkaClient,
    LeaderUnreachableError,
)
from faststream_outbox.forwarders.kafka.exact.look import Log
from faststream_outbox.forwarders.kafka.exact.protocol import DescribeProducersRequest, Found, batches_of, next_sequence
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError

LATEST, EARLIEST = -1, -2
"""Timestamps that stand for the ends of a log: Kafka protocol guide, "ListOffsets API"."""

READ_BYTES = 8 * 1024 * 1024
"""Of one fetch. A fetch gives a whole record batch, whatever its size."""

NOT_YET = {14, 15, 16}
"""COORDINATOR_LOAD_IN_PROGRESS and its like: a server that has just started has no producer ids for a moment."""
NOT_YET_SECONDS = 0.1
TRIES = 50


class MissingError(KafkaAnswerError):
    """The cluster says that there is no such topic or partition."""

    def __init__(self, part: Part) -> None:
        super().__init__(UNKNOWN_TOPIC_OR_PARTITION, f"partition {part.partition} of {part.topic!r}")


@dataclass(frozen=True, slots=True)
class Told:
    """What a leader tells of a partition."""

    start: int
    end: int
    """The high watermark."""
    sequences: Mapping[int, int | None]
    """Behind the last batch of each producer that it remembers."""

    def of(self, producer: Producer) -> Log:
        """Return what concerns one producer."""
        return Log(self.sequences.get(producer.id), self.start, self.end)


class Leaders:
    """Asks over the connections of one client.

    Args:
        client: It knows where partitions are.
    """

    def __init__(self, client: KafkaClient) -> None:
        self._client = client

    async def new_producer(self) -> Producer:
        """Return a producer id that nobody else has.

        Raises:
            KafkaAnswerError: The user may not write idempotently, or no server gives one.
        """
        request: Any = InitProducerIdRequest(None, 0)  # type: ignore[arg-type]
        answer = await self._client.ask_any(request)
        tries = 1
        while answer.error_code in NOT_YET and tries < TRIES:
            await asyncio.sleep(NOT_YET_SECONDS)
            answer = await self._client.ask_any(request)
            tries += 1
        if answer.error_code:
            raise KafkaAnswerError(answer.error_code, "a producer id")
        return Producer(answer.producer_id, answer.producer_epoch)

    async def tell(self, parts: Collection[Part]) -> Mapping[Part, Told | Exception]:
        """Return what the leaders tell of partitions, or why they do not."""
        found: dict[Part, Told | Exception] = {}
        leaders: defaultdict[int, list[Part]] = defaultdict(list)
        try:
            # A transform may have named other topics, which a new connection does not know.
            problems = await self._client.look_up({part.topic for part in parts})
        except ConnectionError as error:
            return dict.fromkeys(parts, error)
        for part in parts:
            try:
                leaders[self._leader_of(part, problems)].append(part)
            except KafkaAnswerError as error:
                found[part] = error

        async def one(leader: int, of_leader: list[Part]) -> None:
            try:
                # One that does not answer is not to keep the answers of the others.
                async with asyncio.timeout(SERVER_SECONDS):
                    found.update(await self._told(leader, of_leader))
            except TimeoutError:
                problem = LeaderUnreachableError(f"server {leader}: no answer in {SERVER_SECONDS:g} s")
                found.update(dict.fromkeys(of_leader, problem))
            except Exception as error:  # noqa: BLE001 - other leaders may answer
                found.update(dict.fromkeys(of_leader, error))

        await asyncio.gather(*(one(leader, of_leader) for leader, of_leader in leaders.items()))
        return found

    def _leader_of(self, part: Part, problems: Mapping[str, KafkaAnswerError]) -> int:
        problem = problems.get(part.topic)
        if problem is not None and problem.code != UNKNOWN_TOPIC_OR_PARTITION:
            raise problem
        if part.partition not in self._client.partitions(part.topic):
            # It may be younger than what this client knows.
            self._client.doubt(part.topic)
            raise MissingError(part)
        return self._client.leader_of(*part)

    async def _told(self, leader: int, parts: Sequence[Part]) -> Mapping[Part, Told | Exception]:
        # The end comes last: what a leader remembers of by then can be read, if it is replicated.
        described = await self._describe(leader, parts)
        starts = await self._offsets(leader, parts, EARLIEST)
        ends = await self._offsets(leader, parts, LATEST)
        return {part: _joined(described[part], starts[part], ends[part]) for part in parts}

    async def _describe(self, leader: int, parts: Sequence[Part]) -> Mapping[Part, dict[int, int | None] | Exception]:
        found: dict[Part, dict[int, int | None] | Exception] = {}
        for topic, partitions in _by_topic(parts).items():
            answer = await self._client.ask_leader(leader, DescribeProducersRequest(topic, partitions))
            for name, of_topic, _ in answer.topics:
                for partition, code, _, producers, _ in of_topic:
                    part = Part(name, partition)
                    sequences = {producer[0]: next_sequence(producer[2]) for producer in producers or ()}
                    found[part] = _error(code, part, "DescribeProducers (it needs the right to read)") or sequences
        return found

    async def _offsets(self, leader: int, parts: Sequence[Part], which: int) -> Mapping[Part, int | Exception]:
        wanted = [(topic, [(one, which) for one in partitions]) for topic, partitions in _by_topic(parts).items()]
        answer = await self._client.ask_leader(leader, OffsetRequest(-1, 0, wanted))
        found: dict[Part, int | Exception] = {}
        for topic, partitions in answer.topics:
            for partition, code, _, offset, *_ in partitions:
                part = Part(topic, partition)
                found[part] = _error(code, part, "ListOffsets") or offset
        return found

    async def read(
        self,
        part: Part,
        offset: int,
        producer_ids: Collection[int],
        most_bytes: int = READ_BYTES,
        wait_seconds: float = 0.0,
    ) -> Sequence[Found]:
        """Read on in a log, up to what is on all in-sync replicas; return some batches from that offset on.

        Args:
            part: The partition.
            offset: Where to begin.
            producer_ids: Of the batches that are wanted.
            most_bytes: Of all batches; the first one may have more.
            wait_seconds: How long the server may wait for the first one.

        Raises:
            KafkaAnswerError: The server does not lead the partition, or the user may not read.
            ConnectionError: The leader, which may be a new one, does not show this offset.
        """
        topics = [(part.topic, [(part.partition, offset, most_bytes)])]
        request = FetchRequest(int(wait_seconds * 1000), int(wait_seconds > 0), most_bytes, 0, topics)
        answer = await self._client.ask_leader(self._client.leader_of(*part), request)
        [(_, [(_, code, end, *_, records)])] = answer.topics
        if (error := _error(code, part, "Fetch")) is not None:
            raise error
        if end <= offset:
            msg = f"partition {part.partition} of {part.topic!r}: its leader shows records up to offset {end} only"
            raise ConnectionError(msg)
        return [found for found in batches_of(records or b"", producer_ids) if found.end > offset]


def _joined(
    sequences: dict[int, int | None] | Exception, start: int | Exception, end: int | Exception
) -> Told | Exception:
    for answer in (sequences, start, end):
        if isinstance(answer, Exception):
            return answer
    assert isinstance(sequences, dict) and isinstance(start, int) and isinstance(end, int)  # noqa: S101, PT018
    return Told(start, end, sequences)


def _by_topic(parts: Sequence[Part]) -> Mapping[str, list[int]]:
    topics: defaultdict[str, list[int]] = defaultdict(list)
    for topic, partition in parts:
        topics[topic].append(partition)
    return topics


def _error(code: int, part: Part, what: str) -> KafkaAnswerError | None:
    return KafkaAnswerError(code, f"{what}, partition {part.partition} of {part.topic!r}") if code else None
