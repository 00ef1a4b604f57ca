"""What an answer says about whether a batch is in the log."""

from collections.abc import Collection, Sequence
from typing import Any, cast

import pytest

from faststream_outbox._values.outcome import Accepted, Poison, Refused, Unsent, Verdict
from faststream_outbox._values.position import Held, Part, Position, Producer
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.run import NO_RUN
from faststream_outbox.forwarders.doubt import marks_of
from faststream_outbox.forwarders.kafka.exact.book import Route, ShardBook
from faststream_outbox.forwarders.kafka.exact.look import Batch, Clear
from faststream_outbox.forwarders.kafka.exact.protocol import Found
from faststream_outbox.forwarders.kafka.exact.sending import ExactPartitionSender
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError, NotSentError
from tests.forwarders.kafka.rows import row, settings

PART = Part("orders", 0)
NOW = Route("orders", 1)


class Client:
    """Answers as it is told."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = [*answers]
        self.batches: list[Any] = []

    async def produce(self, topic: str, partition: int, batch: bytes) -> int:
        self.batches.append(batch)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Sender(ExactPartitionSender):
    """Reads back what it is told."""

    there: Sequence[OutboxRow] = ()

    class _Leaders:
        def __init__(self, sender: "Sender") -> None:
            self._sender = sender

        async def read(
            self, part: Part, offset: int, producer_ids: Collection[int], most_bytes: int = 0
        ) -> Sequence[Found]:
            marks = marks_of(self._sender.there)
            return [Found(offset, offset + len(marks), 7, Batch(offset, 10, len(marks), marks))]


class Unreadable:
    """A leader that gives nothing to read."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def read(
        self, part: Part, offset: int, producer_ids: Collection[int], most_bytes: int = 0
    ) -> Sequence[Found]:
        raise self._error


@pytest.fixture
def book() -> ShardBook:
    book = ShardBook(Held(1, Producer(7, 0), {PART: Position(10, 99)}), NO_RUN)
    book.cleared(PART, Clear(Position(10, 99)), [])
    return book


async def send(
    book: ShardBook, *answers: int | Exception, rows: Sequence[OutboxRow] = (), there: Sequence[OutboxRow] | None = None
) -> list[Verdict]:
    rows = rows or [row(1), row(2)]
    verdicts: dict[int, Verdict] = {}
    sender = Sender(cast("Any", Client(*answers)), settings(), PART, verdicts, book)
    sender.there = rows if there is None else there
    sender._leaders = cast("Any", Sender._Leaders(sender))
    await sender.send(rows)
    return [verdicts[one.id] for one in rows]


async def test_an_accepted_batch_moves_the_position(book: ShardBook) -> None:
    assert await send(book, 100) == [Accepted()] * 2
    assert book.may_send(PART, NOW)
    assert book.move(2, []).positions == {PART: Position(12, 101)}


async def test_anothers_batch_in_its_place_is_no_acknowledgement(book: ShardBook) -> None:
    verdicts = await send(book, 100, there=[row(8), row(9)])
    assert all(isinstance(verdict, Unsent) for verdict in verdicts)
    assert book.doubtful()[PART].must_read
    assert book.next_sequence(PART) == 10


@pytest.mark.parametrize("code", [-1, 2, 3, 5, 6, 7, 19, 20, 45, 46, 47, 56, 59])
async def test_answers_that_leave_it_in_doubt(book: ShardBook, code: int) -> None:
    verdicts = await send(book, KafkaAnswerError(code, "x"))
    assert all(isinstance(verdict, Unsent) for verdict in verdicts)
    assert not book.may_send(PART, NOW)
    assert book.doubtful()[PART].must_read == (code == 45)


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionError()])
async def test_without_an_answer_it_is_in_doubt(book: ShardBook, error: Exception) -> None:
    await send(book, error)
    assert not book.may_send(PART, NOW)


async def test_what_was_not_sent_is_not_in_doubt(book: ShardBook) -> None:
    verdicts = await send(book, NotSentError(5, "x"))
    assert all(isinstance(verdict, Unsent) for verdict in verdicts)
    assert book.may_send(PART, NOW)


async def test_a_poisonous_row_is_found_and_the_others_keep_their_sequences(book: ShardBook) -> None:
    refused = KafkaAnswerError(87, "x")
    verdicts = await send(book, refused, refused, 100, rows=[row(1), row(2)], there=[row(2)])
    assert isinstance(verdicts[0], Poison)
    assert verdicts[1] == Accepted()
    assert book.move(2, []).positions == {PART: Position(11, 100)}


async def test_a_topic_that_is_not_permitted_is_not_in_doubt(book: ShardBook) -> None:
    verdicts = await send(book, KafkaAnswerError(29, "x"))
    assert all(isinstance(verdict, Unsent | Refused) for verdict in verdicts)
    assert book.may_send(PART, NOW)


@pytest.mark.parametrize("error", [KafkaAnswerError(29, "Fetch"), KafkaAnswerError(76, "Fetch"), NotSentError(5, "x")])
async def test_a_batch_that_cannot_be_read_back_is_in_doubt(book: ShardBook, error: Exception) -> None:
    verdicts: dict[int, Verdict] = {}
    sender = Sender(cast("Any", Client(100)), settings(), PART, verdicts, book)
    sender._leaders = cast("Any", Unreadable(error))
    await sender.send([row(1)])
    assert isinstance(verdicts[1], Unsent)
    assert not book.may_send(PART, NOW)
