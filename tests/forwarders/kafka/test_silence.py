"""When it is in vain to wait for the answer of a partition."""

import asyncio
import time
from collections.abc import Collection

import pytest
from aiokafka.structs import TopicPartition

from faststream_outbox.forwarders.kafka import silence
from faststream_outbox.forwarders.kafka.silence import Knocker
from tests.engine.fakes import until

from .rows import settings

ONE, TWO, THREE = (TopicPartition("topic", number) for number in range(3))


class Knocks(Knocker):
    """Knows who answers without asking."""

    def __init__(self, *answering: TopicPartition) -> None:
        self.told: list[str] = []
        super().__init__(settings(), self.told.append)
        self.answering = {*answering}
        self.asked = 0

    async def _answering(self, partitions: Collection[TopicPartition]) -> set[TopicPartition]:
        self.asked += 1
        return self.answering.intersection(partitions)


@pytest.mark.parametrize(
    ("answering", "is_alone"),
    [((), False), ((ONE,), False), ((ONE, TWO), False), ((TWO,), True), ((TWO, THREE), True)],
)
async def test_a_partition_is_alone_if_others_answer_a_question_and_it_does_not(
    answering: tuple[TopicPartition, ...], is_alone: bool
) -> None:
    """Where none answers, their server may have paused; where it answers too, it waits for its replicas."""
    assert await Knocks(*answering).is_alone(ONE, [TWO, THREE], time.monotonic()) is is_alone


async def test_a_partition_is_alone_if_another_one_has_taken_a_batch_since() -> None:
    knocks = Knocks(ONE, TWO)
    knocks.taken(TWO)
    since = time.monotonic()
    knocks.taken(ONE)
    assert not await knocks.is_alone(ONE, [TWO], since)
    await asyncio.sleep(0.001)
    knocks.taken(THREE)
    assert await knocks.is_alone(ONE, [TWO], since)


async def test_a_partition_is_asked_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "KNOCK_SECONDS", 0.001)
    knocks = Knocks(TWO)
    assert not knocks.has_answered(ONE)
    await until(lambda: knocks.asked > 3)
    assert not knocks.has_answered(ONE)
    assert knocks.told == []
    knocks.answering.add(ONE)
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
    knocks = Knocks()
    knocks.has_answered(ONE)
    await until(lambda: knocks._task is not None and knocks._task.done())
    assert knocks.asked == 1
