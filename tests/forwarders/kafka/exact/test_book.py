import pytest

from faststream_outbox._values.position import Held, Mark, Move, Part, Position, Producer
from faststream_outbox._values.run import NO_RUN
from faststream_outbox.forwarders.kafka.exact.book import MIXED, Route, ShardBook, is_read_back
from faststream_outbox.forwarders.kafka.exact.look import Clear

ONE, OTHER = Part("orders", 0), Part("orders", 1)
TOKEN, NOW, ANEW = 1, Route("orders", 1), Route("orders", 2)
MARKS = [Mark(1, "a"), Mark(2, "b")]


@pytest.fixture
def book() -> ShardBook:
    """A shard that was just taken over."""
    return ShardBook(Held(TOKEN, Producer(7, 0), {ONE: Position(10, 99), OTHER: Position(0, 5)}), NO_RUN)


@pytest.fixture
def clear_book(book: ShardBook) -> ShardBook:
    for part, look in book.doubtful().items():
        book.cleared(part, Clear(look.known), [])
    return book


def test_after_a_take_over_all_is_in_doubt(book: ShardBook) -> None:
    assert book.doubtful().keys() == {ONE, OTHER}
    assert not book.may_send(ONE, NOW)
    book.cleared(ONE, Clear(Position(10, 99)), [])
    assert book.may_send(ONE, NOW), "its rows go there, and have never gone elsewhere"
    assert book.may_begin(Part("orders", 2), NOW)
    assert not book.may_send(OTHER, NOW)


def test_rows_that_are_routed_anew_wait_until_nothing_is_in_doubt(book: ShardBook) -> None:
    book.cleared(ONE, Clear(Position(10, 99)), [])
    assert not book.may_send(ONE, ANEW), "another process may have sent its rows to the other partition"
    assert not book.may_begin(Part("orders", 2), ANEW)
    assert book.reroute(ANEW) is None
    book.cleared(OTHER, Clear(Position(0, 5)), [])
    assert not book.may_send(ONE, ANEW), "the next process is not told yet"
    assert book.reroute(ANEW) == ANEW.mark
    book.rerouted(TOKEN + 1, ANEW)
    assert book.may_send(ONE, ANEW)
    assert book.reroute(ANEW) is None


def test_what_is_found_and_not_settled_is_in_the_way_of_no_row_and_the_next_process_is_told(book: ShardBook) -> None:
    book.cleared(ONE, Clear(Position(12, 101), MARKS), MARKS)
    book.cleared(OTHER, Clear(Position(0, 5)), [])
    assert book.reroute(ANEW) == MIXED
    book.rerouted(MIXED, ANEW)
    assert book.may_send(ONE, ANEW)
    assert book.reroute(ANEW) is None
    book.moved(book.move(MIXED, MARKS))
    assert book.reroute(ANEW) == ANEW.mark
    other = ShardBook(Held(MIXED, Producer(7, 0), {ONE: Position(10, 99)}), NO_RUN)
    other.cleared(ONE, Clear(Position(10, 99)), [])
    assert not other.may_send(ONE, ANEW)


def test_rows_of_other_topics_wait_for_all_partitions_of_their_topic() -> None:
    there = [Part("elsewhere", 0), Part("elsewhere", 1)]
    book = ShardBook(Held(TOKEN, Producer(7, 0), dict.fromkeys([ONE, *there], Position(10, 99))), NO_RUN)
    book.cleared(there[0], Clear(Position(10, 99)), [])
    assert not book.may_send(there[0], NOW), "how rows are routed there may have changed"
    book.cleared(there[1], Clear(Position(10, 99)), [])
    assert book.may_send(there[0], NOW)


def test_where_rows_are_routed_anew_late_batches_are_looked_for(clear_book: ShardBook) -> None:
    clear_book.reconsider()
    assert clear_book.doubtful().keys() == {ONE, OTHER}


def test_what_is_found_moves_only_when_its_rows_are_settled(book: ShardBook) -> None:
    book.cleared(ONE, Clear(Position(12, 101), MARKS), MARKS)
    book.cleared(OTHER, Clear(Position(0, 5)), [])
    assert book.found == {*MARKS}
    move = book.move(2, MARKS[:1])
    assert move == Move(TOKEN, 2, {})
    book.moved(move)
    assert book.found == {MARKS[1]}
    assert book.move(3, MARKS[1:]) == Move(2, 3, {ONE: Position(12, 101)})


def test_a_position_goes_back_behind_rows_that_the_table_keeps(clear_book: ShardBook) -> None:
    clear_book.sent(ONE, [1, 2])
    clear_book.accepted(ONE, 200, 2)
    move = clear_book.move(2, MARKS)
    assert move == Move(TOKEN, 2, {ONE: Position(12, 201)})
    behind = clear_book.stay_behind(move, MARKS[1:])
    assert behind == Move(2, 2, {ONE: Position(10, 99)})
    clear_book.moved(behind)
    assert clear_book.found == clear_book.alive == {MARKS[1]}
    assert clear_book.move(3, []) == Move(2, 3, {})
    assert clear_book.move(3, MARKS[1:]) == Move(2, 3, {ONE: Position(12, 201)})


def test_a_position_that_has_not_moved_needs_not_go_back(clear_book: ShardBook) -> None:
    move = clear_book.move(2, [])
    assert clear_book.stay_behind(move, MARKS) is None
    clear_book.moved(move)
    assert clear_book.alive == {*MARKS}


def test_what_is_found_of_rows_that_are_gone_is_not_waited_for(book: ShardBook) -> None:
    book.cleared(ONE, Clear(Position(12, 101), MARKS), [])
    assert book.found == {*MARKS}, "this process may have taken them before they went"
    assert book.move(2, []) == Move(TOKEN, 2, {ONE: Position(12, 101)})


def test_a_batch_on_its_way_is_in_doubt(clear_book: ShardBook) -> None:
    clear_book.sent(ONE, [1])
    assert not clear_book.may_send(ONE, NOW)
    assert clear_book.may_send(OTHER, NOW), "its rows go there and nowhere else"
    clear_book.accepted(ONE, 200, 3)
    assert clear_book.may_send(ONE, NOW)
    assert clear_book.move(2, []).positions == {ONE: Position(13, 202)}


def test_a_batch_that_is_refused_leaves_no_doubt(clear_book: ShardBook) -> None:
    clear_book.sent(ONE, [1])
    clear_book.refused(ONE)
    assert clear_book.may_send(ONE, NOW)
    assert clear_book.next_sequence(ONE) == 10


def test_the_first_batch_after_a_doubt_is_read_back(clear_book: ShardBook) -> None:
    assert clear_book.is_to_be_read_back(ONE, 200)
    clear_book.sent(ONE, [1])
    clear_book.accepted(ONE, 200, 1)
    assert not clear_book.is_to_be_read_back(ONE, 201)
    clear_book.sent(ONE, [1])
    clear_book.cleared(ONE, Clear(Position(11, 200)), [])
    assert clear_book.is_to_be_read_back(ONE, 201)


def test_an_offset_of_before_is_read_back(clear_book: ShardBook) -> None:
    clear_book.sent(ONE, [1])
    clear_book.accepted(ONE, 200, 1)
    assert clear_book.is_to_be_read_back(ONE, 200)


def test_a_contradiction_is_read_whatever_the_leader_says(clear_book: ShardBook) -> None:
    clear_book.sent(ONE, [1])
    clear_book.contradicted(ONE)
    assert clear_book.doubtful()[ONE].must_read


def test_a_partition_that_this_process_has_begun_is_not_in_doubt() -> None:
    book = ShardBook(Held(TOKEN, Producer(7, 0), {}), NO_RUN)
    book.opened({ONE: 50})
    assert book.may_send(ONE, NOW)
    assert book.is_to_be_read_back(ONE, 50), "what another process has begun may be lost in a fail-over"
    assert book.next_sequence(ONE) == 0


def test_contents_are_compared() -> None:
    assert is_read_back(MARKS, [*MARKS])
    assert not is_read_back(MARKS, MARKS[::-1])
    assert not is_read_back(MARKS, [MARKS[0], Mark(2, "another message with this id")])


def test_what_another_process_may_have_sent_may_be_any_row(book: ShardBook) -> None:
    assert book.may_be_there(1)


def test_what_is_on_its_way_is_known_once_a_batch_was_read_back(clear_book: ShardBook) -> None:
    clear_book.sent(ONE, [1])
    assert clear_book.may_be_there(2), "a late batch may come in its place"
    clear_book.accepted(ONE, 200, 1)
    assert not clear_book.may_be_there(1)
    clear_book.sent(ONE, [2, 3])
    assert clear_book.may_be_there(3)
    assert not clear_book.may_be_there(4)
    clear_book.contradicted(ONE)
    assert clear_book.may_be_there(4)
