"""No row comes below the horizon."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from faststream_outbox._store.postgres.horizon import LARGEST_ID, Horizon, Writer
from faststream_outbox._values.run import Run

RUN = Run(datetime(2026, 1, 1, tzinfo=UTC), None)


@pytest.fixture
def horizon() -> Horizon:
    horizon = Horizon()
    assert horizon.is_new(RUN, 0)
    return horizon


def ask(horizon: Horizon, *writers: str | Writer, given: int = 0) -> None:
    """Hear of those that write, who began by now."""
    named = [writer if isinstance(writer, Writer) else Writer(writer, is_prepared=False) for writer in writers]
    horizon.heard(named, highest=horizon.highest, given=given)


def unborn(horizon: Horizon, *answers: tuple[str, ...]) -> Iterator[int]:
    for writers in answers:
        ask(horizon, *writers)
        yield horizon.unborn


def test_what_was_seen_counts_when_those_who_wrote_by_then_have_ended(horizon: Horizon) -> None:
    horizon.saw(100)
    assert list(unborn(horizon, ("a", "b"), ("b", "c"), ("c",))) == [1, 1, 101]


def test_the_next_ones_are_those_of_the_time_when_the_last_have_ended(horizon: Horizon) -> None:
    horizon.saw(100)
    ask(horizon, "a")
    horizon.saw(200)
    ask(horizon, "b")
    assert horizon.unborn == 101, "b may have begun before 200 was seen"
    horizon.saw(300)
    ask(horizon, "c", "b")
    assert horizon.unborn == 101
    ask(horizon, "c")
    assert horizon.unborn == 201


def test_without_writers_two_answers_are_enough(horizon: Horizon) -> None:
    horizon.saw(100)
    assert list(unborn(horizon, (), ())) == [1, 101]


def test_what_is_seen_while_writers_are_asked_for_counts_the_next_time(horizon: Horizon) -> None:
    """Its transaction may have begun after the answer was made, and one with a lower id too."""
    horizon.saw(100)
    highest = horizon.highest
    horizon.saw(200)
    horizon.heard([], highest=highest, given=0)
    assert horizon.unborn == 1
    horizon.heard([], highest=highest, given=0)
    assert horizon.unborn == 101
    ask(horizon)
    ask(horizon)
    assert horizon.unborn == 201


def test_one_that_is_prepared_is_waited_for_whatever_its_name(horizon: Horizon) -> None:
    """Releases before 14.1 give it another name when it is prepared."""
    horizon.saw(100)
    ask(horizon, "a")
    ask(horizon, Writer("-1/7", is_prepared=True))
    ask(horizon, Writer("-1/7", is_prepared=True))
    assert horizon.unborn == 1
    ask(horizon)
    assert horizon.unborn == 101


@pytest.mark.parametrize("run", [RUN._replace(started=None), RUN._replace(recovered=RUN.started)])
def test_another_run_of_the_server_is_learned_anew(horizon: Horizon, run: Run) -> None:
    horizon.saw(100)
    ask(horizon)
    ask(horizon)
    assert not horizon.is_new(RUN, 0)
    assert horizon.unborn == 101
    assert horizon.is_new(run, 0)
    assert (horizon.run, horizon.unborn, horizon.highest) == (run, 1, 0)
    assert not horizon.is_new(run, 0)


def test_ids_that_begin_anew_are_learned_anew(horizon: Horizon) -> None:
    horizon.saw(100)
    ask(horizon, given=100)
    ask(horizon, given=100)
    assert horizon.unborn == 101
    assert not horizon.is_new(RUN, 100)
    assert horizon.is_new(RUN, 99)
    assert horizon.unborn == 1


def test_an_id_that_the_sequence_has_not_given_counts_for_nothing(horizon: Horizon) -> None:
    horizon.saw(100)
    ask(horizon, given=100)
    horizon.saw(10**12)
    for given in (150, 160, 170):
        ask(horizon, given=given)
        horizon.saw(10**12)
    assert horizon.unborn <= 161


def test_there_is_no_id_behind_the_largest(horizon: Horizon) -> None:
    horizon.saw(LARGEST_ID)
    ask(horizon)
    ask(horizon)
    assert horizon.unborn == LARGEST_ID
