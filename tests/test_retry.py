"""Retry strategies: the delays, the limits at which they give up, and tenacity's objects behind them."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from tenacity import (
    RetryCallState,
    stop_after_attempt,
    stop_after_delay,
    stop_before_delay,
    stop_never,
    wait_chain,
    wait_exception,
    wait_exponential,
    wait_fixed,
    wait_incrementing,
    wait_random_exponential,
)
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from faststream_outbox.exceptions import ConfigError
from faststream_outbox.retry import (
    DEFAULT_RETRY,
    MAX_DELAY_SECONDS,
    ConstantRetry,
    ExponentialRetry,
    LinearRetry,
    NoRetry,
    RetryStrategy,
    TenacityRetry,
    as_strategy,
)

START = datetime(2026, 1, 1, tzinfo=UTC)

attempts = st.integers(1, 10_000)
seconds = st.floats(1e-6, MAX_DELAY_SECONDS)
bounds = st.tuples(seconds, seconds).map(sorted)
factors = st.floats(0, 1)
multipliers = st.floats(1, 1e6)
draws = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 1 - 2**-53])
"""What ``random.random`` may return, its extremes among them."""


def delay(
    strategy: RetryStrategy,
    attempts_count: int = 1,
    elapsed: float = 0.0,
    exception: BaseException | None = None,
) -> float | None:
    return strategy.get_next_attempt_delay(
        first_attempt_at=START,
        last_attempt_at=START + timedelta(seconds=elapsed),
        attempts_count=attempts_count,
        exception=exception,
    )


def delays(strategy: RetryStrategy, count: int) -> list[float | None]:
    return [delay(strategy, n) for n in range(1, count + 1)]


def growing(draw_bounds: list[float], multiplier: float, step: float, **options: Any) -> list[RetryStrategy]:
    initial, longest = draw_bounds
    common = {"initial_delay_seconds": initial, "max_delay_seconds": longest, "max_attempts": None, **options}
    return [ExponentialRetry(multiplier=multiplier, **common), LinearRetry(step_seconds=step, **common)]


# --- the delays


def test_exponential_doubles_up_to_the_maximum() -> None:
    strategy = ExponentialRetry(jitter=0, max_delay_seconds=10, max_attempts=7)

    assert delays(strategy, 7) == [1, 2, 4, 8, 10, 10, None]


def test_linear_adds_a_step_up_to_the_maximum() -> None:
    strategy = LinearRetry(initial_delay_seconds=0, step_seconds=4, max_delay_seconds=10, max_attempts=5)

    assert delays(strategy, 5) == [0, 4, 8, 10, None]


def test_constant_never_grows() -> None:
    assert delays(ConstantRetry(delay_seconds=5, max_attempts=3), 3) == [5, 5, None]


def test_no_retry_gives_up_at_once() -> None:
    assert delay(NoRetry()) is None


def test_default_gives_up_after_the_tenth_attempt_within_nine_minutes() -> None:
    assert ExponentialRetry() == DEFAULT_RETRY
    spread = delays(DEFAULT_RETRY, 10)

    assert spread[9] is None
    total = sum(d for d in spread[:9] if d is not None)
    assert total == pytest.approx(511, rel=0.1)


@given(bounds, multipliers, seconds, attempts)
def test_without_jitter_delays_never_shrink_and_stay_within_their_bounds(
    limits: list[float],
    multiplier: float,
    step: float,
    n: int,
) -> None:
    for strategy in growing(limits, multiplier, step, jitter=0):
        now, later = delay(strategy, n), delay(strategy, n + 1)

        assert now is not None
        assert later is not None
        assert limits[0] <= now <= later <= limits[1]


@given(limits=bounds, multiplier=multipliers, step=seconds, n=attempts, factor=factors, draw=draws)
def test_jitter_stays_within_its_documented_window(
    *,
    limits: list[float],
    multiplier: float,
    step: float,
    n: int,
    factor: float,
    draw: float,
) -> None:
    exact = growing(limits, multiplier, step, jitter=0)
    jittered = growing(limits, multiplier, step, jitter=factor)
    for e, j in zip(exact, jittered, strict=True):
        d = delay(e, n)
        with mock.patch("random.random", return_value=draw):
            real = delay(j, n)

        assert d is not None
        assert real is not None
        assert d * (1 - factor) <= real <= min(d * (1 + factor), limits[1])


@given(st.floats(0, MAX_DELAY_SECONDS), factors, attempts)
def test_constant_jitter_stays_within_its_documented_window(d: float, factor: float, n: int) -> None:
    real = delay(ConstantRetry(delay_seconds=d, jitter=factor, max_attempts=None), n)

    assert real is not None
    assert d * (1 - factor) <= real <= min(d * (1 + factor), MAX_DELAY_SECONDS)


@pytest.mark.parametrize("n", [1, 9])
def test_default_jitter_spreads_rows_that_failed_together(n: int) -> None:
    assert len({delay(DEFAULT_RETRY, n) for _ in range(50)}) > 40


def test_jitter_spreads_rows_that_wait_the_maximum() -> None:
    strategy = ExponentialRetry(initial_delay_seconds=10, max_delay_seconds=10)
    spread = {delay(strategy, 5) for _ in range(50)}

    assert len(spread) > 40
    assert all(d is not None and 9 <= d <= 10 for d in spread)


# --- the limits


@given(st.integers(1, 10_000), attempts)
def test_gives_up_exactly_at_max_attempts(limit: int, n: int) -> None:
    for strategy in (
        ExponentialRetry(max_attempts=limit),
        LinearRetry(max_attempts=limit),
        ConstantRetry(max_attempts=limit),
    ):
        assert (delay(strategy, n) is None) == (n >= limit)


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(-3, 3))
def test_gives_up_exactly_past_max_total_delay(elapsed_us: int, delay_us: int, slack_us: int) -> None:
    total_us = max(elapsed_us + delay_us + slack_us, 0)
    strategy = ConstantRetry(delay_seconds=delay_us / 1e6, max_total_delay_seconds=total_us / 1e6)

    given_up = delay(strategy, elapsed=elapsed_us / 1e6) is None

    assert given_up == (elapsed_us + delay_us > total_us)


def test_no_float_noise_at_the_limit() -> None:
    # 0.1 + 0.2 is a little more than 0.3
    assert delay(ConstantRetry(delay_seconds=0.2, max_total_delay_seconds=0.3), elapsed=0.1) == 0.2


def test_max_total_delay_counts_the_jitter() -> None:
    strategy = ConstantRetry(delay_seconds=10, jitter=0.5, max_total_delay_seconds=10)
    spread = [delay(strategy) for _ in range(200)]

    assert None in spread
    assert all(d is None or d <= 10 for d in spread)


def test_elapsed_time_is_right_when_summer_time_ends() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    first = datetime(2025, 10, 26, 2, 50, tzinfo=berlin, fold=0)
    last = datetime(2025, 10, 26, 2, 10, tzinfo=berlin, fold=1)  # 20 minutes later

    def delay_with(limit: float) -> float | None:
        strategy = ConstantRetry(delay_seconds=0, max_total_delay_seconds=limit)
        return strategy.get_next_attempt_delay(first_attempt_at=first, last_attempt_at=last, attempts_count=1)

    assert delay_with(1199) is None
    assert delay_with(1200) == 0


def test_a_clock_that_stepped_back_counts_as_no_time() -> None:
    assert delay(ConstantRetry(delay_seconds=5, max_total_delay_seconds=5), elapsed=-3600) == 5
    assert delay(ConstantRetry(delay_seconds=6, max_total_delay_seconds=5), elapsed=-3600) is None


@pytest.mark.parametrize("n", [0, -1])
@pytest.mark.parametrize("strategy", [DEFAULT_RETRY, NoRetry(), TenacityRetry(wait=wait_fixed(1), stop=stop_never)])
def test_attempts_count_starts_at_one(strategy: RetryStrategy, n: int) -> None:
    with pytest.raises(ValueError, match=f"attempts_count must be 1 or more, got {n}"):
        delay(strategy, n)


# --- pairs of tenacity objects


def test_stop_after_delay_looks_at_the_time_since_the_first_attempt() -> None:
    pair = as_strategy((wait_fixed(7), stop_after_delay(60)))

    assert delay(pair, 50, elapsed=59.999999) == 7
    assert delay(pair, 50, elapsed=60) is None


def test_stop_before_delay_looks_at_the_upcoming_sleep() -> None:
    pair = as_strategy((wait_fixed(7), stop_before_delay(60)))

    assert delay(pair, elapsed=52.999999) == 7
    assert delay(pair, elapsed=53) is None


@pytest.mark.parametrize(
    ("stop", "gives_up"),
    [
        (stop_after_attempt(3) | stop_after_delay(60), [False, True, True, True]),
        (stop_after_attempt(3) & stop_after_delay(60), [False, False, False, True]),
    ],
)
def test_combined_stops(stop: stop_base, gives_up: list[bool]) -> None:
    pair = as_strategy((wait_fixed(1), stop))

    assert [delay(pair, n, elapsed=t) is None for n, t in ((2, 59), (3, 59), (2, 60), (3, 60))] == gives_up


def test_wait_chain_follows_the_attempts() -> None:
    chain = wait_chain(*[wait_fixed(1)] * 2, wait_fixed(5), wait_incrementing(100, 10))

    assert delays(as_strategy((chain, stop_after_attempt(6))), 6) == [1, 1, 5, 130, 140, None]


def test_added_waits() -> None:
    assert delays(as_strategy((wait_fixed(1) + wait_exponential(), stop_never)), 4) == [2, 3, 5, 9]


@given(attempts)
def test_wait_random_exponential_stays_in_its_window(n: int) -> None:
    real = delay(as_strategy((wait_random_exponential(multiplier=0.5, max=60), stop_never)), n)

    assert real is not None
    assert 0 <= real <= min(0.5 * 2 ** min(n - 1, 100), 60)


class BusyError(Exception):
    retry_after = 17.0


def wait_as_told(exception: BaseException) -> float:
    return exception.retry_after if isinstance(exception, BusyError) else 1.0


def test_wait_exception_is_given_what_the_attempt_raised() -> None:
    pair = as_strategy((wait_exception(wait_as_told), stop_never))

    assert delay(pair, exception=BusyError()) == 17
    assert delay(pair, exception=KeyError("x")) == 1


def test_wait_exception_is_given_a_plain_exception_when_nothing_was_raised() -> None:
    pair = as_strategy((wait_exception(lambda exception: 3.0 if type(exception) is Exception else 4.0), stop_never))

    assert delay(pair) == 3


def test_the_state_is_tenacitys_own() -> None:
    states: list[RetryCallState] = []

    class Spy(wait_base):
        def __call__(self, retry_state: RetryCallState) -> float:
            states.append(retry_state)
            return 2.5

    error = BusyError()
    wait = Spy()
    delay(TenacityRetry(wait=wait, stop=stop_after_attempt(9)), 4, elapsed=30.5, exception=error)

    (state,) = states
    assert state.attempt_number == 4
    assert state.outcome is not None
    assert state.outcome.failed
    assert state.outcome.exception() is error
    assert state.outcome.attempt_number == 4
    assert state.seconds_since_start == 30.5
    assert state.idle_for == 30.5
    assert state.upcoming_sleep == 2.5
    assert state.retry_object.wait is wait


def test_agrees_with_tenacitys_own_loop() -> None:
    def wait() -> wait_base:
        return wait_chain(wait_fixed(3), wait_exponential(multiplier=2, max=20) + wait_fixed(1))

    slept: list[float] = []
    loop = tenacity.Retrying(wait=wait(), stop=stop_after_attempt(7), sleep=slept.append)
    with pytest.raises(tenacity.RetryError):
        loop(lambda: 1 / 0)

    assert delays(as_strategy((wait(), stop_after_attempt(7))), 7) == [*slept, None]


class Returns(wait_base):
    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, retry_state: RetryCallState) -> float:
        return self.value


@pytest.mark.parametrize(
    ("returned", "expected"),
    [(0, 0), (math.inf, MAX_DELAY_SECONDS), (10**400, MAX_DELAY_SECONDS), (2, 2)],
)
def test_what_a_wait_returns_is_cut_to_the_bound(returned: float, expected: float) -> None:
    real = delay(as_strategy((Returns(returned), stop_never)))

    assert real == expected
    assert type(real) is float


@pytest.mark.parametrize("returned", [math.nan, -1, -0.001, -math.inf])
def test_a_wait_of_no_number_or_less_than_none_is_refused(returned: float) -> None:
    with pytest.raises(ValueError, match=f"must return a number of seconds of 0 or more, got {float(returned)}"):
        delay(as_strategy((Returns(returned), stop_never)))


@pytest.mark.parametrize("wait", [wait_exponential(), wait_random_exponential(), wait_incrementing()])
def test_unbounded_waits_fit_a_timestamp(wait: wait_base) -> None:
    real = delay(as_strategy((wait, stop_never)), 10_000)

    assert real is not None
    assert START + timedelta(seconds=real) <= START + timedelta(days=3650)


# --- what may be written


class OwnStrategy:
    def get_next_attempt_delay(
        self,
        *,
        first_attempt_at: datetime,
        last_attempt_at: datetime,
        attempts_count: int,
        exception: BaseException | None = None,
    ) -> float | None:
        return 1.0 if isinstance(exception, BusyError) else None


@pytest.mark.parametrize(
    "strategy",
    [
        ExponentialRetry(),
        LinearRetry(),
        ConstantRetry(),
        NoRetry(),
        TenacityRetry(wait=wait_fixed(1), stop=stop_never),
        OwnStrategy(),
    ],
)
def test_as_strategy_keeps_a_strategy(strategy: RetryStrategy) -> None:
    assert as_strategy(strategy) is strategy


def test_as_strategy_wraps_a_pair() -> None:
    wait, stop = wait_fixed(1), stop_after_attempt(2)

    assert as_strategy((wait, stop)) == TenacityRetry(wait=wait, stop=stop)


@pytest.mark.parametrize(
    "value",
    [None, 5, NoRetry, wait_fixed(1), (wait_fixed(1),), (wait_fixed(1), stop_never, 3), tenacity.Retrying()],
    ids=lambda value: type(value).__name__,
)
def test_as_strategy_says_what_to_write(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"retry_strategy must be .* NoRetry\(\), or .* \(wait_exponential"):
        as_strategy(value)


@pytest.mark.parametrize(
    ("pair", "field"),
    [
        ((stop_after_attempt(3), wait_fixed(1)), "wait"),
        ((5, stop_never), "wait"),
        ((wait_fixed(1), 5), "stop"),
        ((wait_fixed, stop_never), "wait"),
        ((wait_fixed(1), stop_after_attempt), "stop"),
    ],
)
def test_a_wrong_pair_names_its_part(pair: Any, field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field} must be a tenacity {field} such as {field}_"):
        as_strategy(pair)


@pytest.mark.parametrize(
    ("strategy", "field", "value"),
    [
        (strategy, field, value)
        for strategy, numbers in (
            (ExponentialRetry, ["initial_delay_seconds", "max_delay_seconds", "multiplier"]),
            (LinearRetry, ["initial_delay_seconds", "max_delay_seconds", "step_seconds"]),
            (ConstantRetry, ["delay_seconds"]),
        )
        for field in (*numbers, "max_total_delay_seconds", "jitter", "max_attempts")
        for value in (-1, math.nan, math.inf, 10**400, "5", True, timedelta(seconds=5))
        if (field, value) != ("max_attempts", 10**400)
    ]
    + [
        (ExponentialRetry, "initial_delay_seconds", 0),
        (ExponentialRetry, "initial_delay_seconds", 301),
        (LinearRetry, "initial_delay_seconds", 301),
        (ExponentialRetry, "multiplier", 0.99),
        (ConstantRetry, "jitter", 1.01),
        (ConstantRetry, "max_attempts", 0),
        (ConstantRetry, "max_attempts", 1.5),
        (ConstantRetry, "delay_seconds", None),
    ],
)
def test_a_wrong_field_is_refused_with_its_name_and_value(strategy: Any, field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{field} must be") as refused:
        strategy(**{field: value})

    assert f"got {value!r}" in str(refused.value)


def test_strategies_are_frozen_values() -> None:
    strategy = ExponentialRetry(max_attempts=3)

    assert strategy == ExponentialRetry(max_attempts=3)
    assert hash(strategy) == hash(ExponentialRetry(max_attempts=3))
    with pytest.raises(AttributeError):
        strategy.max_attempts = 4  # type: ignore[misc]
    with pytest.raises(TypeError):
        ConstantRetry(5)  # type: ignore[call-arg]
