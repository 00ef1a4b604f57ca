"""Finds out when partitions that have left a batch without an answer answer again."""

import asyncio
import contextlib
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka.structs import TopicPartition

from faststream_outbox.forwarders.kafka.client import SERVER_SECONDS, KafkaClient
from faststream_outbox.forwarders.kafka.partitioning import name_of
from faststream_outbox.forwarders.kafka.settings import KafkaSettings

SILENT_SECONDS = 10.0
"""After so long lanes wait no longer for the answer of a partition, if others answer.

Kafka takes a server for gone after 9 s (``broker.session.timeout.ms``), and another one then leads the partition.
A server that has only paused, be it for longer, has the batch when it goes on, and a batch that is given up is
repeated.
"""

KNOCK_SECONDS = 1.0
"""Between two questions."""

WANTED_SECONDS = 120.0
"""So long after a row wanted to be sent to a partition, it is asked no more."""

WHERE_SECONDS = 6 * SERVER_SECONDS
"""For the cluster to tell where partitions are: those of its servers that are asked first may be the silent ones."""


class SilentError(Exception):
    """A partition has left a batch without an answer, and it is not known whether it has it."""

    def __init__(self, partition: TopicPartition, seconds: float) -> None:
        super().__init__(f"partition {partition.partition} of {partition.topic!r}: no answer in {seconds:g} s")


@dataclass
class _Question:
    """What was found out about one server, for all that wait for it."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_alone: bool = False
    at: float = -math.inf


class Knocker:
    """Asks silent partitions whether they answer, over connections of its own; the lanes of a forwarder share it.

    So a silent partition gets no rows, which would hold a lane and its shards, before it has answered a question.

    Args:
        settings: How to reach the cluster.
        on_answer: Told of each partition that answers, by its name.
    """

    def __init__(self, settings: KafkaSettings, on_answer: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_answer = on_answer
        self._wanted: dict[TopicPartition, float] = {}
        """Partitions that are asked, and until when."""
        self._answered: set[TopicPartition] = set()
        self._taken: dict[int, float] = {}
        """When a server has answered a batch last."""
        self._questions: defaultdict[int, _Question] = defaultdict(_Question)
        self._task: asyncio.Task[None] | None = None

    def has_answered(self, partition: TopicPartition) -> bool:
        """Return whether a partition has answered since it was given up; begin to ask it otherwise."""
        if partition in self._answered:
            return True
        self._wanted[partition] = time.monotonic() + WANTED_SECONDS
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask())
        return False

    def taken(self, server: int) -> None:
        """Note that a server has answered a batch."""
        self._taken[server] = time.monotonic()

    async def is_alone(
        self, partition: TopicPartition, server: int, others: Collection[TopicPartition], since: float
    ) -> bool:
        """Return whether the server that a batch was sent to is silent while others are not.

        It answers no question about the partition. Another one has taken a batch, or answers a question. Where none
        does, they may only have paused, and will answer. A server that answers questions has the batch, and waits for
        its replicas: given up, the batch would be repeated.

        Args:
            partition: It has left a batch without an answer.
            server: Led it when the batch was sent. Another one may lead it by now.
            others: Some of the partitions that may answer.
            since: When the batch was sent, by the monotonic clock.
        """
        question = self._questions[server]
        async with question.turn:
            # Batches to many partitions wait for a server, and it is asked once for all of them.
            if time.monotonic() - question.at > KNOCK_SECONDS:
                question.is_alone = await self._is_alone(partition, server, others, since)
                question.at = time.monotonic()
            return question.is_alone

    async def _is_alone(
        self, partition: TopicPartition, server: int, others: Collection[TopicPartition], since: float
    ) -> bool:
        # Whatever goes wrong, it is not known.
        with contextlib.suppress(Exception):
            async with self._client([partition, *others]) as client:
                if await client.codes(server, [partition]):
                    return False
                if any(at > since for other, at in self._taken.items() if other != server):
                    return True
                for leader, led in client.by_leader(others).items():
                    if leader != server and 0 in (await client.codes(leader, led)).values():
                        return True
        return False

    def gave_up(self, partition: TopicPartition) -> None:
        """Note that a partition has left a batch without an answer."""
        self._answered.discard(partition)

    async def close(self) -> None:
        """Ask no more, until a lane wants to know."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _ask(self) -> None:
        while self._wanted:
            await self._ask_all()
            now = time.monotonic()
            answered = self._answered
            self._wanted = {one: until for one, until in self._wanted.items() if one not in answered and now < until}
            await asyncio.sleep(KNOCK_SECONDS)

    async def _ask_all(self) -> None:
        # Whatever goes wrong, it is no answer; those that came before it stay.
        with contextlib.suppress(Exception):
            async with self._client(self._wanted) as client:
                for leader, led in client.by_leader(self._wanted).items():
                    for partition, code in (await client.codes(leader, led)).items():
                        if code == 0:
                            self._answered.add(partition)
                            self._on_answer(name_of(partition))

    @asynccontextmanager
    async def _client(self, partitions: Collection[TopicPartition]) -> AsyncIterator[KafkaClient]:
        """Return a client for a while, which knows who leads partitions now."""
        # The connections of the lanes may be the very ones that are dead.
        client = KafkaClient(self._settings)
        client.borrow(anew=True)
        try:
            async with asyncio.timeout(WHERE_SECONDS):
                await client.refresh()
                await client.look_up({partition.topic for partition in partitions})
            yield client
        finally:
            await client.close()


class Watch:
    """Ends the wait for an answer when it turns out that it keeps rows of other partitions waiting.

    Args:
        limit: Of the wait.
        is_silent: Asked from ``SILENT_SECONDS`` on, again and again.
    """

    def __init__(self, limit: asyncio.Timeout, is_silent: Callable[[], Awaitable[bool]]) -> None:
        self._limit = limit
        self._is_silent = is_silent
        self._timer = asyncio.get_running_loop().call_later(SILENT_SECONDS - KNOCK_SECONDS, self._begin)
        self._task: asyncio.Task[None] | None = None

    def end(self) -> None:
        """Watch no longer: there is an answer."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        is_over = False
        while not is_over:
            await asyncio.sleep(KNOCK_SECONDS)
            is_over = await self._is_silent()
        self._limit.reschedule(asyncio.get_running_loop().time())
