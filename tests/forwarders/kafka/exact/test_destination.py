"""What a destination that sends exactly once makes of failures."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import pytest
from aiokafka.structs import TopicPartition

from faststream_outbox._values.outcome import Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.position import Part
from faststream_outbox.forwarders.connected_destination import Verdicts
from faststream_outbox.forwarders.doubt import InDoubtError
from faststream_outbox.forwarders.kafka.client import KafkaClient
from faststream_outbox.forwarders.kafka.exact.destination import ExactKafkaDestination
from faststream_outbox.forwarders.kafka.exact.leaders import Told
from faststream_outbox.forwarders.kafka.exact.positions import Books
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError
from faststream_outbox.forwarders.suspects import Suspects
from tests.forwarders.kafka.rows import row, settings

from .lanes import SHARD, Lanes, Logs

OWN, ELSEWHERE = TopicPartition("topic", 0), TopicPartition("elsewhere", 0)


class Client:
    """A connection that is open until it is closed."""

    is_alive = True
    is_closed = False

    def partitions(self, topic: str) -> list[int]:
        return [0]

    available_partitions = partitions

    def give_back(self) -> None: ...

    async def close(self) -> None:
        self.is_closed = True


class Destination(ExactKafkaDestination):
    """Says of each row what it is told."""

    says: Verdict | Exception = Unsent()

    async def _send(self, client: KafkaClient, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        if isinstance(self.says, Exception):
            raise self.says
        verdicts.update((parcel.row.id, self.says) for parcel in parcels)


class Forbidden(Logs):
    """A user who may not read other topics."""

    async def tell(self, parts: Collection[Part]) -> Mapping[Part, Told | Exception]:
        told = await super().tell(parts)
        return {
            part: KafkaAnswerError(29, "DescribeProducers") if part.topic == ELSEWHERE.topic else answer
            for part, answer in told.items()
        }


@pytest.fixture
def lanes() -> Lanes:
    return Lanes(Forbidden())


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def destination(lanes: Lanes, client: Client) -> Destination:
    books = Books(lambda: "f", lanes.store, lambda _level, line, _error: lanes.log.append(line))
    destination = Destination(settings(), Suspects(), 40.0, books)
    destination._client, destination._has_looked = cast("Any", client), True
    destination.positions.leaders = lanes.logs
    destination.positions.routing = lambda: destination._routing(cast("Any", client))
    return destination


async def test_batches_whose_verdicts_are_lost_are_in_doubt(lanes: Lanes, destination: Destination) -> None:
    await lanes.look(destination.positions, row(1))
    assert destination.positions.book_of(SHARD) is not None
    destination.says = OSError("of the database")
    with pytest.raises(OSError, match="of the database"):
        await destination.send([Parcel(row(1))])
    destination.positions.written({})
    before = lanes.store.tokens("f", [SHARD])
    await lanes.look(destination.positions, row(1))
    assert lanes.store.tokens("f", [SHARD]) != before, "it is taken over anew"


@pytest.mark.parametrize("topic", ["topic", "elsewhere"])
async def test_an_answer_to_a_question_refuses_no_row(
    lanes: Lanes, destination: Destination, client: Client, monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    async def tell(parts: Collection[Part]) -> Mapping[Part, Told | Exception]:
        return dict.fromkeys(parts, KafkaAnswerError(-1, "ListOffsets"))

    monkeypatch.setattr(lanes.logs, "tell", tell)
    await lanes.look(destination.positions, row(1))
    verdicts: dict[int, Verdict] = {}
    await destination._send_shares(cast("Any", client), {TopicPartition(topic, 0): [row(1)]}, verdicts)
    assert isinstance(verdicts[1], Unsent)


async def test_a_look_that_waits_keeps_the_connection(destination: Destination, client: Client) -> None:
    destination.says = Unsent(InDoubtError("the leader does not show it yet"))
    await destination.send([Parcel(row(1))])
    assert not client.is_closed
    destination.says, destination._has_looked = Unsent(TimeoutError()), True
    await destination.send([Parcel(row(1))])
    assert client.is_closed


async def test_a_topic_of_a_row_that_may_not_be_read_is_never_sent_to(
    lanes: Lanes, destination: Destination, client: Client
) -> None:
    """The row is refused: what is sent there could never be found again."""
    await lanes.look(destination.positions, row(1), row(2, key="k"), row(3, key="k"))
    verdicts: dict[int, Verdict] = {}
    shares = {ELSEWHERE: [row(2, key="k"), row(3, key="k")]}
    await destination._send_shares(cast("Any", client), shares, verdicts)
    assert isinstance(verdicts[2], Refused)
    assert "ACLs WRITE, DESCRIBE and READ" in str(verdicts[2].exception)
    assert verdicts[3] == Unsent()
    book = destination.positions.book_of(SHARD)
    assert book is not None
    assert not book.entries
