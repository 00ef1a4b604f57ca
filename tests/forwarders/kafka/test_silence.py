"""When it is in vain to wait for the answer of a partition."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from faststream_outbox.forwarders.kafka import silence
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.silence import Knocker
from tests.engine.fakes import until

from .rows import settings

ONE, TWO, THREE = (TopicPartition("topic", number) for number in range(3))


class Servers:
    """Stands where a client does: server 11 leads ONE, 12 leads TWO, 13 leads THREE. Each answers as it is told."""

    def __init__(self, answers: Mapping[int, int | Exception]) -> None:
        self.answers = {**answers}
        self.leaders = {ONE: 11, TWO: 12, THREE: 13}
        self.asked: list[int] = []

    def by_leader(self, partitions: Collection[TopicPartition]) -> Mapping[int, list[TopicPartition]]:
        return {self.leaders[partition]: [partition] for partition in partitions}

    async def codes(self, server: int, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        self.asked.append(server)
        await asyncio.sleep(0)
        match self.answers.get(server):
            case None:
                return {}
            case Exception() as error:
                raise error
            case code:
                return dict.fromkeys(partitions, code)


class Knocks(Knocker):
    """Knows its servers without looking."""

    def __init__(self, answers: Mapping[int, int | Exception]) -> None:
        self.told: list[str] = []
        super().__init__(settings(), self.told.append)
        self.servers = Servers(answers)
        self.looked = 0

    @asynccontextmanager
    async def _client(self, partitions: Collection[TopicPartition]) -> AsyncIterator[Any]:
        self.looked += 1
        yield self.servers


NOT_LEADER = 6


@pytest.mark.parametrize(
    ("answers", "is_alone"),
    [
        ({}, False),
        ({11: 0}, False),
        ({11: 0, 12: 0}, False),
        ({11: NOT_LEADER, 12: 0}, False),
        ({12: 0}, True),
        ({13: 0}, True),
        ({12: NOT_LEADER}, False),
    ],
)
async def test_a_partition_is_alone_if_others_answer_a_question_and_its_server_does_not(
    answers: Mapping[int, int], is_alone: bool
) -> None:
    """Where none answers, their server may have paused; where it answers too, it waits for its replicas."""
    assert await Knocks(answers).is_alone(ONE, 11, [TWO, THREE], time.monotonic()) is is_alone


@pytest.mark.parametrize("is_there", [False, True])
async def test_the_server_is_asked_that_has_the_batch(is_there: bool) -> None:
    """Another one may lead the partition by now, and says nothing about the batch."""
    knocks = Knocks({12: 0, 13: 0} | ({11: NOT_LEADER} if is_there else {}))
    knocks.servers.leaders[ONE] = 13
    assert await knocks.is_alone(ONE, 11, [TWO], time.monotonic()) is not is_there


async def test_that_others_take_batches_does_not_say_that_a_server_is_silent() -> None:
    """It may wait for a replica, and has the batch: another one would be a repeat."""
    knocks = Knocks({11: 0})
    since = time.monotonic()
    await asyncio.sleep(0.001)
    knocks.taken(12)
    assert not await knocks.is_alone(ONE, 11, [TWO], since)


async def test_another_server_that_has_taken_a_batch_since_need_not_be_asked() -> None:
    knocks = Knocks({})
    knocks.taken(12)
    await asyncio.sleep(0.001)
    since = time.monotonic()
    knocks.taken(11)
    assert not await knocks.is_alone(ONE, 11, [TWO], since)
    knocks = Knocks({})
    await asyncio.sleep(0.001)
    knocks.taken(12)
    assert await knocks.is_alone(ONE, 11, [TWO], since)
    assert knocks.servers.asked == [11]


async def test_a_server_is_asked_once_for_all_that_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "KNOCK_SECONDS", 0.05)
    knocks = Knocks({12: 0})
    asking = [knocks.is_alone(one, 11, [TWO], time.monotonic()) for one in (ONE, THREE) * 5]
    assert await asyncio.gather(*asking) == [True] * 10
    assert knocks.looked == 1
    await asyncio.sleep(0.06)
    knocks.servers.answers[11] = 0
    assert not await knocks.is_alone(ONE, 11, [TWO], time.monotonic())


async def test_a_partition_that_has_answered_stays_so_when_the_next_question_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(silence, "KNOCK_SECONDS", 0.001)
    knocks = Knocks({11: 0, 12: TimeoutError(), 13: 0})
    for one in (ONE, TWO, THREE):
        knocks.has_answered(one)
    await until(lambda: knocks.looked > 1)
    assert knocks.told == ["topic[0]"]
    assert knocks.has_answered(ONE)
    assert not knocks.has_answered(TWO)
    await knocks.close()


class Slow(KafkaClient):
    """The cluster takes its time to tell where partitions are, and then servers to answer."""

    seconds = 0.0

    async def refresh(self) -> None:
        await asyncio.sleep(self.seconds)

    async def look_up(self, topics: Collection[str]) -> Mapping[str, Any]:
        return {}

    def by_leader(self, partitions: Collection[TopicPartition]) -> Mapping[int, list[TopicPartition]]:
        return {number: [partition] for number, partition in enumerate(partitions)}

    async def codes(self, server: int, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        await asyncio.sleep(self.seconds)
        return dict.fromkeys(partitions, 0)


async def test_that_some_servers_are_slow_keeps_no_partition_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each server has a time of its own, and not all of them together."""
    monkeypatch.setattr(silence, "WHERE_SECONDS", 0.1)
    monkeypatch.setattr(Slow, "seconds", 0.06)
    monkeypatch.setattr(silence, "KafkaClient", Slow)
    told: list[str] = []
    knocker = Knocker(settings(client_options={"bootstrap_servers": "localhost:9092"}), told.append)
    for one in (ONE, TWO, THREE):
        knocker.has_answered(one)
    await until(lambda: len(told) == 3)
    await knocker.close()


async def test_a_partition_is_asked_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "KNOCK_SECONDS", 0.001)
    knocks = Knocks({12: 0})
    assert not knocks.has_answered(ONE)
    await until(lambda: knocks.looked > 3)
    assert not knocks.has_answered(ONE)
    assert knocks.told == []
    knocks.servers.answers[11] = 0
    await until(lambda: knocks.told)
    assert knocks.told == ["topic[0]"]
    assert knocks.has_answered(ONE)
    assert knocks.has_answered(ONE)
    knocks.gave_up(ONE)
    assert not knocks.has_answered(ONE)
    await knocks.close()
    await knocks.close()


async def test_a_partition_for_which_no_rows_come_is_asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "KNOCK_SECONDS", 0.001)
    monkeypatch.setattr(silence, "WANTED_SECONDS", 0.0)
    knocks = Knocks({})
    knocks.has_answered(ONE)
    await until(lambda: knocks._task is not None and knocks._task.done())
    assert knocks.looked == 1
