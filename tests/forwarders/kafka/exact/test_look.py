from collections.abc import Sequence

import pytest

from faststream_outbox._values.position import Mark, Position
from faststream_outbox.forwarders.kafka.exact.look import (
    PATIENCE,
    SEQUENCES,
    Batch,
    Clear,
    Log,
    Look,
    Problem,
    Read,
    Wait,
    distance,
)

KNOWN = Position(10, 99)
"""Records up to offset 99 are settled, the next sequence number is 10."""


def marks(*ids: int) -> tuple[Mark, ...]:
    return tuple(Mark(id_, f"key-{id_}") for id_ in ids)


def batch(sequence: int, *ids: int, size: int | None = None, offset: int = 200) -> Batch:
    return Batch(offset, sequence, len(ids) if size is None else size, marks(*ids))


def found(look: Look, log: Log, batches: Sequence[Batch], later: Log | None = None) -> Clear:
    """Return what a look comes to that reads these batches, and then is told of this log."""
    assert isinstance(look.judge(log), Read)
    look.read(batches, log.end)
    clear = look.judge(later or log)
    assert isinstance(clear, Clear)
    return clear


@pytest.mark.parametrize(("sequence", "other", "ahead"), [(3, 1, 2), (1, 3, -2), (1, SEQUENCES - 1, 2), (5, 5, 0)])
def test_sequences_are_counted_in_a_circle(sequence: int, other: int, ahead: int) -> None:
    assert distance(sequence, other) == ahead


def test_where_the_leader_knows_no_more_nothing_is_read() -> None:
    assert Look(KNOWN).judge(Log(10, 0, 500)) == Clear(KNOWN)


def test_where_it_contradicts_itself_the_log_is_read_all_the_same() -> None:
    assert Look(KNOWN, must_read=True).judge(Log(10, 0, 500)) == Read(100)


def test_a_batch_that_is_there_is_found() -> None:
    clear = found(Look(KNOWN), Log(12, 0, 500), [batch(10, 1, 2)])
    assert clear == Clear(Position(12, 499), marks(1, 2))


def test_sequences_wrap() -> None:
    clear = found(Look(Position(SEQUENCES - 1, 99)), Log(2, 0, 500), [batch(SEQUENCES - 1, 1, 2, 3)])
    assert clear == Clear(Position(2, 499), marks(1, 2, 3))


def test_a_batch_that_cannot_be_read_yet_is_waited_for() -> None:
    look = Look(KNOWN)
    for _ in range(20):
        assert isinstance(look.judge(Log(12, 0, 100)), Wait)
    assert look.judge(Log(12, 0, 102)) == Read(100)


def test_a_batch_that_is_gone_again_was_never_there() -> None:
    look = Look(KNOWN)
    assert isinstance(look.judge(Log(12, 0, 100)), Wait)
    assert look.judge(Log(10, 0, 100)) == Clear(KNOWN)


def test_a_new_leader_that_does_not_know_how_far_it_may_be_read_is_waited_for() -> None:
    look = Look(KNOWN)
    assert isinstance(look.judge(Log(12, 0, 50)), Wait)
    assert isinstance(look.judge(Log(10, 0, 50)), Wait)


def test_where_the_producer_is_forgotten_the_log_is_read() -> None:
    assert found(Look(KNOWN), Log(None, 0, 500), [batch(10, 1)]) == Clear(Position(11, 499), marks(1))
    assert found(Look(KNOWN), Log(None, 0, 500), []) == Clear(Position(10, 499), ())


def test_a_topic_that_was_made_anew_is_read_from_its_beginning_and_counted() -> None:
    clear = found(Look(KNOWN), Log(None, 0, 5), [batch(10, 1, offset=2)])
    assert clear == Clear(Position(11, 4), marks(1), (Problem.ANOTHER_LOG,))


def test_a_log_that_has_lost_its_end_goes_on_where_the_leader_says() -> None:
    clear = found(Look(KNOWN), Log(4, 0, 50), [])
    assert clear.position == Position(4, 49)
    assert clear.problems == (Problem.ANOTHER_LOG,)


def test_lost_batches_below_records_of_others_are_counted() -> None:
    clear = found(Look(KNOWN), Log(4, 0, 500), [])
    assert clear == Clear(Position(4, 499), (), (Problem.LOST,))


def test_deleted_records_are_counted_if_they_may_be_ours() -> None:
    assert found(Look(KNOWN), Log(None, 300, 500), []).problems == (Problem.DELETED,)


def test_a_deleted_batch_is_not_waited_for_without_end() -> None:
    look = Look(KNOWN)
    assert look.judge(Log(12, 300, 500)) == Read(300)
    look.read([], 500)
    findings = [look.judge(Log(12, 300, 500)) for _ in range(21)]
    assert all(isinstance(finding, Wait) for finding in findings[:-1])
    assert findings[-1] == Clear(Position(12, 499), (), (Problem.DELETED,))


def test_deleted_records_that_were_not_ours_are_not_counted() -> None:
    look = Look(KNOWN, must_read=True)
    assert found(look, Log(10, 300, 500), []) == Clear(Position(10, 499), ())


def test_what_compaction_has_removed_is_counted() -> None:
    one_removed = found(Look(KNOWN), Log(12, 0, 500), [batch(10, 2, size=2)])
    assert one_removed == Clear(Position(12, 499), marks(2), (Problem.COMPACTED,))
    batch_removed = found(Look(KNOWN), Log(12, 0, 500), [batch(11, 2)])
    assert batch_removed == Clear(Position(12, 499), marks(2), (Problem.COMPACTED,))


def test_it_goes_on_reading_where_it_has_ended() -> None:
    look = Look(KNOWN)
    assert look.judge(Log(12, 0, 500)) == Read(100)
    look.read([batch(10, 1)], 200)
    assert look.judge(Log(12, 0, 500)) == Read(200)
    look.read([batch(11, 2)], 500)
    assert look.judge(Log(12, 0, 500)) == Clear(Position(12, 499), marks(1, 2))


def test_a_topic_that_was_made_anew_and_is_as_long_as_before_is_read_as_a_whole_in_the_end() -> None:
    look = Look(KNOWN)
    assert look.judge(Log(12, 0, 500)) == Read(100)
    look.read([], 500)
    findings = [look.judge(Log(12, 0, 500)) for _ in range(21)]
    assert all(isinstance(finding, Wait) for finding in findings[:-1])
    assert findings[-1] == Read(0)
    look.read([batch(3, 7, offset=0), batch(10, 1, 2, offset=20)], 500)
    assert look.judge(Log(12, 0, 500)) == Clear(Position(12, 499), marks(1, 2), (Problem.ANOTHER_LOG,))


def test_a_log_that_is_read_as_a_whole_for_nothing_is_the_same_log() -> None:
    look = Look(KNOWN)
    for _ in range(21):
        finding = look.judge(Log(12, 0, 100))
    assert finding == Read(0)
    look.read([batch(9, 7, offset=99)], 100)
    for _ in range(50):
        assert isinstance(look.judge(Log(12, 0, 100)), Wait)
    assert look.judge(Log(12, 0, 102)) == Read(100)
    look.read([batch(10, 1, 2, offset=100)], 102)
    assert look.judge(Log(12, 0, 102)) == Clear(Position(12, 101), marks(1, 2))


def test_a_partition_that_stays_missing_is_given_up_and_counted() -> None:
    look = Look(KNOWN)
    findings = [look.missing() for _ in range(5)]
    assert all(isinstance(finding, Wait) for finding in findings[:-1])
    assert findings[-1] == Clear(Position(10, -1), (), (Problem.ANOTHER_LOG,))


def test_a_partition_that_was_given_up_is_not_counted_again() -> None:
    gone = Position(10, -1)
    assert Look(gone).missing() == Clear(gone)


def test_what_others_append_while_it_reads_is_not_read() -> None:
    look, log = Look(KNOWN), Log(12, 0, 500)
    assert look.judge(log) == Read(100)
    look.read([batch(10, 1)], 300)
    assert look.settle(log) is None
    look.read([batch(11, 2)], 520)
    assert look.settle(log) == Clear(Position(12, 499), marks(1, 2))


def test_where_the_producer_is_forgotten_one_reading_is_enough() -> None:
    look, log = Look(KNOWN), Log(None, 0, 500)
    assert look.judge(log) == Read(100)
    look.read([batch(10, 1)], 500)
    assert look.settle(log) == Clear(Position(11, 499), marks(1))


@pytest.mark.parametrize("told", [10, 13])
def test_where_the_log_and_the_leader_differ_the_leader_is_asked_again(told: int) -> None:
    look = Look(KNOWN, must_read=True)
    log = Log(told, 0, 500)
    assert look.judge(log) == Read(100)
    look.read([batch(10, 1, 2)], 500)
    assert look.settle(log) is None


def test_retention_overtakes_it() -> None:
    look = Look(KNOWN)
    assert look.judge(Log(12, 0, 500)) == Read(100)
    look.read([batch(10, 1)], 200)
    assert look.judge(Log(None, 400, 500)) == Read(400)
    look.read([], 500)
    assert look.judge(Log(None, 400, 500)) == Clear(Position(11, 499), marks(1), (Problem.DELETED,))


def test_a_log_that_never_shows_what_was_acknowledged_is_another_one() -> None:
    look, log = Look(KNOWN), Log(12, 0, 50)
    for _ in range(PATIENCE):
        assert isinstance(look.judge(log), Wait)
    assert look.judge(log) == Read(0)
    look.read([batch(10, 1, 2, offset=48)], 50)
    assert look.judge(log) == Clear(Position(12, 49), marks(1, 2), (Problem.ANOTHER_LOG,))
