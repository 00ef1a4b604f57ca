"""Where the leaders of partitions are, of a forwarder's own topic and of others."""

from collections.abc import Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from faststream_outbox._values.position import Part
from faststream_outbox.forwarders.kafka.exact.leaders import Leaders, MissingError, Told
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError, NotSentError


class Client:
    """Knows what it has looked up, as the real one does."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.known: set[str] = set()
        self.doubtful: set[str] = set()
        self.problem = problem

    async def look_up(self, topics: Collection[str]) -> Mapping[str, KafkaAnswerError]:
        if isinstance(self.problem, KafkaAnswerError):
            return dict.fromkeys(topics, self.problem)
        if self.problem is not None:
            raise self.problem
        self.known.update(topics)
        return {}

    def partitions(self, topic: str) -> list[int]:
        return [0, 1] if topic in self.known else []

    def doubt(self, topic: str) -> None:
        self.doubtful.add(topic)

    async def ask_leader(self, leader: int, request: Any) -> Any:
        return SimpleNamespace(topics=[("topic", [(0, 0, 100, 100, [], b"")])])

    def leader_of(self, topic: str, partition: int) -> int:
        if topic not in self.known:
            raise NotSentError(5, topic)
        return 1


class TellingLeaders(Leaders):
    async def _told(self, leader: int, parts: Sequence[Part]) -> Mapping[Part, Told | Exception]:
        return dict.fromkeys(parts, Told(0, 500, {}))


def leaders(client: Client) -> Leaders:
    return TellingLeaders(cast("Any", client))


async def test_other_topics_are_looked_up_before_their_leaders_are_asked() -> None:
    parts = [Part("topic", 0), Part("other", 1)]
    assert await leaders(Client()).tell(parts) == dict.fromkeys(parts, Told(0, 500, {}))


async def test_a_partition_that_is_not_there_is_looked_up_again() -> None:
    client = Client()
    [answer] = (await leaders(client).tell([Part("topic", 7)])).values()
    assert isinstance(answer, MissingError)
    assert client.doubtful == {"topic"}


async def test_a_topic_is_missing_only_where_the_cluster_says_so() -> None:
    part = Part("topic", 0)
    assert isinstance((await leaders(Client(KafkaAnswerError(3, "x"))).tell([part]))[part], MissingError)
    denied = KafkaAnswerError(29, "x")
    assert (await leaders(Client(denied)).tell([part]))[part] is denied


async def test_where_no_server_answers_nothing_is_told() -> None:
    part, error = Part("topic", 0), ConnectionError()
    assert (await leaders(Client(error)).tell([part]))[part] is error


async def test_what_a_leader_does_not_show_is_not_taken_for_empty() -> None:
    client = Client()
    client.known.add("topic")
    assert await leaders(client).read(Part("topic", 0), 99, {7}) == []
    with pytest.raises(ConnectionError, match="up to offset 100 only"):
        await leaders(client).read(Part("topic", 0), 100, {7})
