"""Delays after failures: bounds, growth, and an outage that lasts for weeks."""

from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._engine.backoff import Backoff


@given(initial=st.floats(0.001, 10), maximum=st.floats(0.001, 100), failures=st.integers(1, 60))
def test_each_delay_is_between_half_and_all_of_the_doubled_one(initial: float, maximum: float, failures: int) -> None:
    backoff = Backoff(initial, maximum)
    delays = [backoff.next() for _ in range(failures)]
    for number, delay in enumerate(delays):
        whole = min(maximum, initial * 2**number)
        assert whole / 2 <= delay <= whole


def test_an_endless_outage_does_not_overflow() -> None:
    backoff = Backoff(0.1, 5.0)
    for _ in range(5000):
        assert backoff.next() <= 5.0
    assert backoff.next() >= 2.5


def test_a_success_starts_over() -> None:
    backoff = Backoff(0.1, 5.0)
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.1
    assert backoff.next() > 0.1 / 2


def test_after_a_success_that_may_be_the_only_one_the_next_delay_is_half_of_the_last() -> None:
    backoff = Backoff(0.1, 60.0)
    for _ in range(1000):
        backoff.next()
    for whole in (60.0, 30.0, 15.0, 7.5):
        assert whole / 2.5 <= backoff.next() <= whole
        backoff.ease()
    for _ in range(20):
        backoff.ease()
    assert backoff.next() <= 0.1


def test_processes_do_not_come_back_in_step() -> None:
    assert len({Backoff(1.0, 1.0).next() for _ in range(20)}) > 10
