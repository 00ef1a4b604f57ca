"""What a lane does about shards whose last batches are in doubt."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from faststream_outbox._store.positions import Takeover
from faststream_outbox._store.protocol import HandOver
from faststream_outbox._values.position import Move, Part, Position
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.run import Run
from faststream_outbox.forwarders.kafka.exact.book import Route, routing_of
from faststream_outbox.forwarders.kafka.exact.leaders import MissingError, Told
from faststream_outbox.forwarders.kafka.exact.positions import TIMES_EMPTY, LanePositions, mark_of
from tests.forwarders.kafka.rows import row

from .lanes import NOW, SHARD, Lanes, Logs, Taken

ONE, OTHER = Part("orders", 0), Part("orders", 1)
FOREIGN = Part("elsewhere", 0)


class WithoutElsewhere(Logs):
    async def tell(self, parts: Collection[Part]) -> Mapping[Part, Told | Exception]:
        told = await super().tell(parts)
        return {part: MissingError(part) if part == FOREIGN else answer for part, answer in told.items()}


async def test_a_topic_that_is_gone_does_not_stop_a_shard_for_good() -> None:
    lanes = Lanes(WithoutElsewhere(end=100, next_sequence=3))
    await lanes.has({ONE: Position(3, 99), FOREIGN: Position(5, 20)})
    process = lanes.process()
    for _ in range(5):
        await lanes.look(process, row(1))
        book = process.book_of(SHARD)
        assert book is not None
        process.written({})
    assert book.may_send(ONE, NOW)
    assert len(lanes.log) == 1


async def test_a_log_that_others_write_to_is_read_once() -> None:
    logs = Logs(end=100, next_sequence=0)
    lanes = Lanes(logs)
    await lanes.has({ONE: Position(0, 99)})
    logs.append(row(1))

    def others_append() -> None:
        assert logs.asked < 5, "it runs after the end"
        logs.end += 1000

    logs.after_telling = others_append
    assert await lanes.look(lanes.process(), row(1)) == [1]
    assert logs.asked == 1


async def test_what_a_hand_over_was_cut_off_with_is_in_doubt() -> None:
    logs = Logs()
    lanes = Lanes(logs)
    rows = [row(1), row(2)]
    process = lanes.process()
    await lanes.look(process, *rows)
    await process.open_missing([(SHARD, ONE)], NOW)
    book = process.book_of(SHARD)
    assert book is not None
    book.sent(ONE, [1, 2])
    book.accepted(ONE, logs.append(*rows), len(rows))
    # The hand-over is cut off. The next one has nothing to send, and settles one row whose answer is remembered.
    process.begin()
    assert process.moves(rows[:1]) == {}
    process.written({})
    assert await lanes.look(process, *rows) == [1, 2]


async def test_two_processes_in_turn_come_to_an_end() -> None:
    # The batch is deleted, and the leader still tells of it: a look that waits.
    lanes = Lanes(Logs(start=500, end=500, next_sequence=3))
    await lanes.has({ONE: Position(0, 99)})
    processes = [lanes.process(), lanes.process()]
    for number in range(60):
        process = processes[number % 2]
        await lanes.look(process, row(1))
        book = process.book_of(SHARD)
        assert book is not None
        if book.may_send(ONE, NOW):
            break
        process.written({})
    assert book.may_send(ONE, NOW)


async def test_where_another_process_has_moved_on_a_look_begins_anew() -> None:
    logs = Logs(start=500, end=500, next_sequence=3)
    lanes = Lanes(logs)
    await lanes.has({ONE: Position(0, 99)})
    process, other = lanes.process(), lanes.process()
    await lanes.look(process, row(1))
    process.written({})
    await lanes.look(other, row(1))
    [token] = lanes.store.tokens("f", [SHARD]).values()
    lanes.store.move("f", {SHARD: Move(token, 9, {ONE: Position(3, 499)})})
    await lanes.look(process, row(1))
    book = process.book_of(SHARD)
    assert book is not None
    assert book.may_send(ONE, NOW)
    assert book.next_sequence(ONE) == 3


async def test_a_partition_is_begun_when_it_is_sent_to() -> None:
    logs = Logs()
    process = Lanes(logs).process()
    await process.look(cast("HandOver", Taken([row(1)], {})))
    await process.open_missing([(SHARD, OTHER)], NOW)
    assert logs.asked_for == [OTHER]
    book = process.book_of(SHARD)
    assert book is not None
    assert book.may_send(OTHER, NOW)
    assert not book.may_send(ONE, NOW)


async def test_a_partition_whose_beginning_was_committed_unheard_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = Lanes(Logs())
    process = lanes.process()
    begin = lanes.store.open

    async def unheard(*arguments: Any) -> None:
        await begin(*arguments)
        raise TimeoutError

    monkeypatch.setattr(lanes.store, "open", unheard)
    await lanes.look(process, row(1))
    with pytest.raises(TimeoutError):
        await process.open_missing([(SHARD, ONE)], NOW)
    # The destination takes this for a hand-over whose time is over, and what it has is written.
    process.written({})
    monkeypatch.undo()
    for _ in range(2):
        await lanes.look(process, row(1))
        await process.open_missing([(SHARD, ONE)], NOW)
        process.written({})
    book = process._books.by_shard[SHARD]
    assert book.may_send(ONE, NOW)


async def test_a_database_that_has_failed_over_is_not_the_one_that_was_written_to() -> None:
    logs = Logs(end=100, next_sequence=0)
    lanes = Lanes(logs)
    process = lanes.process()
    await lanes.look(process, row(1))
    await process.open_missing([(SHARD, ONE)], NOW)
    process.written({})
    [token] = lanes.store.tokens("f", [SHARD]).values()
    # Another process takes the shard over, and sends a batch. The database loses both.
    logs.append(row(1))
    assert lanes.store.tokens("f", [SHARD]) == {SHARD: token}
    lanes.run = Run(datetime(2026, 1, 1, tzinfo=UTC), None)
    assert await lanes.look(process, row(1)) == [1]


async def test_a_take_over_tells_how_rows_were_routed_until_nothing_is_in_doubt() -> None:
    logs = Logs(start=0, end=50, next_sequence=3)
    lanes = Lanes(logs)
    await lanes.has({ONE: Position(0, 99)})
    process = lanes.process()
    process.routing = lambda: Route("orders", 2)
    await lanes.look(process, row(1))
    book = process.book_of(SHARD)
    assert book is not None
    assert book.doubtful()
    assert {routing_of(token) for token in lanes.store.tokens("f", [SHARD]).values()} == {1}
    assert not book.may_send(ONE, Route("orders", 2))
    logs.end = 200
    logs.next_sequence = 0
    process.written({})
    await lanes.look(process, row(1))
    assert not book.doubtful()
    assert {routing_of(token) for token in lanes.store.tokens("f", [SHARD]).values()} == {2}
    assert book.may_send(ONE, Route("orders", 2))


async def found_and_left(lanes: Lanes, logs: Logs) -> LanePositions:
    """Return a process that has found a row in the log which is not among those that it is given."""
    await lanes.has({ONE: Position(0, 99)})
    logs.append(row(1))
    lanes.alive = {mark_of(row(1)), mark_of(row(2)), mark_of(row(3))}
    process = lanes.process()
    assert not await lanes.look(process, row(2))
    settle(lanes, process, row(2))
    return process


def settle(lanes: Lanes, process: LanePositions, *rows: OutboxRow) -> None:
    moves = process.moves(rows)
    lanes.store.move("f", moves)
    process.written(moves)


async def position_of(lanes: Lanes) -> Position:
    [token] = lanes.store.tokens("f", [SHARD]).values()
    return (await lanes.store.take_over("f", [Takeover(SHARD, token, token)]))[SHARD].positions[ONE]


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_row_that_was_found_keeps_the_position_until_it_is_gone(is_gone: bool) -> None:
    """A person may have deleted it, or parked it as a dead letter: then no hand-over has it."""
    logs = Logs(next_sequence=0)
    lanes = Lanes(logs)
    process = await found_and_left(lanes, logs)
    assert await position_of(lanes) == Position(0, 99)
    if is_gone:
        lanes.alive = {mark_of(row(3))}
    await lanes.look(process, row(3))
    settle(lanes, process, row(3))
    assert await position_of(lanes) == (Position(1, 100) if is_gone else Position(0, 99))


async def test_the_next_process_finds_a_row_that_the_table_keeps() -> None:
    logs = Logs(next_sequence=0)
    lanes = Lanes(logs)
    await lanes.has({ONE: Position(0, 99)})
    kept, gone = row(1), row(2)
    process = lanes.process()
    await lanes.look(process, kept, gone)
    book = process.book_of(SHARD)
    assert book is not None
    book.accepted(ONE, logs.append(kept, gone), 2)
    lanes.alive = {mark_of(kept)}
    moves = process.moves([kept, gone])
    behind = process.stay_behind(moves, [kept])
    lanes.store.move("f", moves)
    lanes.store.move("f", behind)
    process.written({**moves, **behind})
    await lanes.look(process, row(3))
    settle(lanes, process, row(3))
    assert await position_of(lanes) == Position(0, 99)
    assert await lanes.look(lanes.process(), kept) == [kept.id]


async def test_while_rows_that_were_found_come_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = Logs(next_sequence=0)
    lanes = Lanes(logs)
    process = await found_and_left(lanes, logs)
    asked: list[Any] = []
    monkeypatch.setattr(lanes.store, "alive", asked.append)
    assert await lanes.look(process, row(1)) == [1]
    settle(lanes, process, row(1))
    assert await position_of(lanes) == Position(1, 100)
    await lanes.look(process, row(3))
    assert asked == []


class SlowLogs(Logs):
    """The first answers to a question for records are empty, as where they are fetched from another storage."""

    empty = 0

    async def read(self, *arguments: Any, wait_seconds: float = 0.0, **options: Any) -> Any:
        assert (wait_seconds > 0) is (self.reads > 0)
        self.reads += 1
        return [] if self.reads <= self.empty else await super().read(*arguments, **options)

    reads = 0


@pytest.mark.parametrize("next_sequence", [1, None])
async def test_a_log_that_gives_nothing_is_read_again(next_sequence: int | None) -> None:
    logs = SlowLogs(next_sequence=0)
    lanes = Lanes(logs)
    await lanes.has({ONE: Position(0, 99)})
    logs.append(row(1))
    logs.next_sequence, logs.empty = next_sequence, TIMES_EMPTY
    assert await lanes.look(lanes.process(), row(1)) == [1]
    assert lanes.log == []


async def test_where_a_log_has_nothing_and_its_producer_is_forgotten_that_is_counted() -> None:
    logs = SlowLogs(end=200, next_sequence=None)
    lanes = Lanes(logs)
    await lanes.has({ONE: Position(0, 99)})
    logs.empty = 1000
    process = lanes.process()
    assert not await lanes.look(process, row(1))
    book = process.book_of(SHARD)
    assert book is not None
    assert book.may_send(ONE, NOW)
    [line] = lanes.log
    assert "compaction has removed records" in line
