"""Finds out when partitions that have left a batch without an answer answer again."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager

from aiokafka.structs import TopicPartition

from faststream_outbox.forwarders.kafka.client import SERVER_SECONDS, KafkaClient
from faststream_outbox.forwarders.kafka.partitioning import name_of
from faststream_outbox.forwarders.kafka.settings import KafkaSettings

SILENT_SECONDS = 10.0
"""After so long lanes wait no longer for the answer of a partition, if others answer.

Kafka takes a server for gone after 9 s (``broker.session.timeout.ms``), and another one then leads the partition.
Before that, a server that has only paused still answers, and a batch that is given up is repeated.
"""

KNOCK_SECONDS = 1.0
"""Between two questions."""

WANTED_SECONDS = 120.0
"""So long after a row wanted to be sent to a partition, it is asked no more."""


class SilentError(Exception):
    """A partition has left a batch without an answer, and it is not known whether it has it."""

    def __init__(self, partition: TopicPartition, seconds: float) -> None:
        super().__init__(f"partition {partition.partition} of {partition.topic!r}: no answer in {seconds:g} s")


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
        self._taken: dict[TopicPartition, float] = {}
        """When a batch to a partition was answered last."""
        self._task: asyncio.Task[None] | None = None

    def has_answered(self, partition: TopicPartition) -> bool:
        """Return whether a partition has answered since it was given up; begin to ask it otherwise."""
        if partition in self._answered:
            return True
        self._wanted[partition] = time.monotonic() + WANTED_SECONDS
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask())
        return False

    def taken(self, partition: TopicPartition) -> None:
        """Note that a partition has taken a batch."""
        self._taken[partition] = time.monotonic()

    async def is_alone(self, partition: TopicPartition, others: Collection[TopicPartition], since: float) -> bool:
        """Return whether a partition is silent while others are not.

        One has taken a batch, or answers a question that this one does not. Where none does, their server may only have
        paused, and will answer.

        Args:
            partition: It has left a batch without an answer.
            others: Some of those that may answer.
            since: When the batch was sent, by the monotonic clock.
        """
        if any(at > since for other, at in self._taken.items() if other != partition):
            return True
        answering = await self._answering([partition, *others])
        return bool(answering) and partition not in answering

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
            answering = await self._answering([*self._wanted])
            self._answered |= answering
            for partition in answering:
                self._on_answer(name_of(partition))
            now = time.monotonic()
            self._wanted = {one: until for one, until in self._wanted.items() if one not in answering and now < until}
            await asyncio.sleep(KNOCK_SECONDS)

    async def _answering(self, partitions: Collection[TopicPartition]) -> set[TopicPartition]:
        # Whatever goes wrong, it is no answer.
        with contextlib.suppress(Exception):
            async with self._client() as client:
                await client.look_up({partition.topic for partition in partitions})
                return await client.answering(partitions)
        return set()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[KafkaClient]:
        # The connections of the lanes may be the very ones that are dead.
        client = KafkaClient(self._settings)
        client.borrow(anew=True)
        try:
            async with asyncio.timeout(2 * SERVER_SECONDS):
                await client.refresh()
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
