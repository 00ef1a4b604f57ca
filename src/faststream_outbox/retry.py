"""When a failed row is attempted again, and when it is given up. Tenacity computes; the row keeps the state."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from tenacity import Future, RetryCallState, Retrying
from tenacity.stop import stop_after_attempt, stop_base, stop_never
from tenacity.wait import wait_base, wait_exponential, wait_fixed, wait_incrementing, wait_none, wait_random

from faststream_outbox.exceptions import ConfigError

MAX_DELAY_SECONDS = 315_360_000.0
"""Ten years. A longer delay is cut to it: tenacity's own bound, ``sys.maxsize / 2``, overflows a timestamp."""


@runtime_checkable
class RetryStrategy(Protocol):
    """Decides after each failed attempt; write your own by giving a class this one method."""

    def get_next_attempt_delay(
        self,
        *,
        first_attempt_at: datetime,
        last_attempt_at: datetime,
        attempts_count: int,
        exception: BaseException | None = None,
    ) -> float | None:
        """Return the seconds until the row's next attempt, or None to give it up (dead letter).

        A strategy that raises, or returns less than 0 or no number, is a fault of its own, which is written down with
        the row: the default strategy decides in its place.

        Args:
            first_attempt_at: When the first attempt was made; aware, by the database's clock.
            last_attempt_at: When the attempt that just failed was made; aware, by the database's clock.
            attempts_count: The failed attempts so far, the one that just failed included; 1 or more.
            exception: What the attempt raised; None if it failed without raising.

        Raises:
            ValueError: ``attempts_count`` is below 1, or a tenacity wait returned less than 0 or NaN. Whatever a wait,
                stop or strategy of the user's own raises is passed on.

        Example::

            strategy = ConstantRetry(delay_seconds=5)
            strategy.get_next_attempt_delay(first_attempt_at=now, last_attempt_at=now, attempts_count=1)  # 5.0
        """


class _PairRetry(ABC):
    """A strategy that is a pair of tenacity objects: the one way in which this module computes."""

    @abstractmethod
    def _pair(self) -> tuple[wait_base, stop_base]: ...

    def get_next_attempt_delay(
        self,
        *,
        first_attempt_at: datetime,
        last_attempt_at: datetime,
        attempts_count: int,
        exception: BaseException | None = None,
    ) -> float | None:
        """Return the seconds until the next attempt, 0 to ``MAX_DELAY_SECONDS``, or None; see ``RetryStrategy``."""
        if attempts_count < 1:
            raise ValueError(f"attempts_count must be 1 or more, got {attempts_count!r}")
        if exception is None:
            exception = Exception("the attempt failed without an exception")
        wait, stop = self._pair()
        # In UTC: Python subtracts two times of one zone by the wall clock, an hour off when summer time ends.
        elapsed = max((last_attempt_at.astimezone(UTC) - first_attempt_at.astimezone(UTC)).total_seconds(), 0.0)
        state = RetryCallState(Retrying(wait=wait, stop=stop), fn=None, args=(), kwargs={})
        state.attempt_number = attempts_count
        state.outcome = Future.construct(attempts_count, exception, has_exception=True)
        # A start at 0 keeps ``seconds_since_start``, the difference, exact.
        state.start_time, state.outcome_timestamp, state.idle_for = 0.0, elapsed, elapsed
        # The wait comes first, as in tenacity's own loop: a stop may look at the upcoming sleep.
        state.upcoming_sleep = delay = float(min(wait(state), MAX_DELAY_SECONDS))
        if math.isnan(delay) or delay < 0:
            raise ValueError(f"a wait must return a number of seconds of 0 or more, got {delay} from {wait!r}")
        return None if stop(state) else delay


@dataclass(frozen=True, kw_only=True)
class TenacityRetry(_PairRetry):
    """Retries by a wait and a stop object of tenacity; its ``+``, ``|`` and ``&`` combine several.

    They are given what tenacity gives them: the attempt's number and exception (a plain ``Exception`` if it raised
    none), the seconds since the first attempt, and to the stop the upcoming sleep.

    Raises:
        ConfigError: ``wait`` or ``stop`` is not tenacity's.

    Example::

        TenacityRetry(wait=wait_random_exponential(max=60), stop=stop_after_attempt(5) | stop_after_delay(600))
    """

    wait: wait_base
    """Gives the seconds until the next attempt."""
    stop: stop_base
    """Says when to give up; ``tenacity.stop_never``: never."""

    def __post_init__(self) -> None:
        if not isinstance(self.wait, wait_base):
            raise ConfigError(f"wait must be a tenacity wait such as wait_exponential(max=60), got {self.wait!r}")
        if not isinstance(self.stop, stop_base):
            raise ConfigError(f"stop must be a tenacity stop such as stop_after_attempt(5), got {self.stop!r}")

    def _pair(self) -> tuple[wait_base, stop_base]:
        return self.wait, self.stop


@dataclass(frozen=True, kw_only=True)
class _LimitedRetry(_PairRetry):
    max_attempts: int | None = 10
    """Attempts in all, the first included; None: no limit."""
    max_total_delay_seconds: float | None = None
    """Give up when the next attempt, jitter included, would fall later than this after the first; None: no limit."""
    jitter: float = 0.0
    """By what part of itself a delay may turn out shorter or longer: 0 (no jitter) to 1."""

    def __post_init__(self) -> None:
        if self.max_attempts is not None and (type(self.max_attempts) is not int or self.max_attempts < 1):
            raise ConfigError(f"max_attempts must be an integer of 1 or more, or None, got {self.max_attempts!r}")
        if self.max_total_delay_seconds is not None:
            self._check("max_total_delay_seconds")
        self._check("jitter", high=1.0)

    def _check(self, field: str, low: float = 0.0, high: float = MAX_DELAY_SECONDS, note: str = "") -> None:
        value = getattr(self, field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(f"{field} must be a number from {low:.9g} to {high:.9g}{note}, got {value!r}")

    @abstractmethod
    def _wait(self) -> wait_base: ...

    def _pair(self) -> tuple[wait_base, stop_base]:
        stop: stop_base = stop_never if self.max_attempts is None else stop_after_attempt(self.max_attempts)
        if self.max_total_delay_seconds is not None:
            stop |= _StopPast(self.max_total_delay_seconds)
        return self._wait(), stop


@dataclass(frozen=True, kw_only=True)
class _GrowingRetry(_LimitedRetry):
    initial_delay_seconds: float = 1.0
    """Delay after the first failed attempt; at most ``max_delay_seconds``."""
    max_delay_seconds: float = 300.0
    """No delay is longer, jitter included."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("max_delay_seconds")
        self._check("initial_delay_seconds", high=self.max_delay_seconds, note=" (max_delay_seconds)")


@dataclass(frozen=True, kw_only=True)
class ExponentialRetry(_GrowingRetry):
    """Delays that grow by a factor: after failed attempt n, d = initial_delay_seconds * multiplier ** (n - 1).

    d is at most ``max_delay_seconds``. Jitter is on by default, so that rows which failed together do not come back
    together: the real delay is drawn evenly from d * (1 - jitter) to d * (1 + jitter), or to ``max_delay_seconds`` if
    that is less. The defaults give up after about 8.5 minutes.

    Raises:
        ConfigError: A field is out of its range; the message names the field, the range and the value.

    Example::

        @broker.subscriber("orders", retry_strategy=ExponentialRetry(max_attempts=5))
        async def handle(body: dict) -> None: ...
    """

    jitter: float = 0.1
    """By what part of itself a delay may turn out shorter or longer: 0 (no jitter) to 1."""
    multiplier: float = 2.0
    """Growth of the delay from attempt to attempt; 1 or more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("initial_delay_seconds", low=1e-6)  # 0 cannot grow by a factor
        self._check("multiplier", low=1.0)

    def _wait(self) -> wait_base:
        wait = wait_exponential(self.initial_delay_seconds, self.max_delay_seconds, self.multiplier)
        return _Jittered(wait, self.jitter, self.max_delay_seconds)


@dataclass(frozen=True, kw_only=True)
class LinearRetry(_GrowingRetry):
    """Delays that grow by a step: after failed attempt n, d = initial_delay_seconds + step_seconds * (n - 1).

    All else is as in ``ExponentialRetry``, but without jitter by default.

    Example::

        broker.subscriber("emails", retry_strategy=LinearRetry(step_seconds=30))  # 1 s, 31 s, 61 s ...
    """

    step_seconds: float = 10.0
    """Growth of the delay from attempt to attempt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("step_seconds")

    def _wait(self) -> wait_base:
        wait = wait_incrementing(self.initial_delay_seconds, self.step_seconds, self.max_delay_seconds)
        return _Jittered(wait, self.jitter, self.max_delay_seconds)


@dataclass(frozen=True, kw_only=True)
class ConstantRetry(_LimitedRetry):
    """The same delay after each failed attempt; all else is as in ``ExponentialRetry``, without jitter by default.

    Example::

        broker.subscriber("clicks", retry_strategy=ConstantRetry(delay_seconds=5, max_attempts=3))
    """

    delay_seconds: float = 10.0
    """Delay after each failed attempt; 0: at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("delay_seconds")

    def _wait(self) -> wait_base:
        return _Jittered(wait_fixed(self.delay_seconds), self.jitter, MAX_DELAY_SECONDS)


@dataclass(frozen=True, kw_only=True)
class NoRetry(_PairRetry):
    """Gives up after the first failed attempt: ``broker.subscriber("audit", retry_strategy=NoRetry())``."""

    def _pair(self) -> tuple[wait_base, stop_base]:
        return wait_none(), stop_after_attempt(1)


class _Jittered(wait_base):
    def __init__(self, wait: wait_base, jitter: float, max_delay: float) -> None:
        self.wait, self.spread, self.max_delay = wait, jitter, max_delay

    def __call__(self, retry_state: RetryCallState) -> float:
        delay = self.wait(retry_state)
        # The window is cut before the draw, so that the delays at the maximum are spread as well.
        low, high = delay * (1 - self.spread), min(delay * (1 + self.spread), self.max_delay)
        return wait_random(low, high)(retry_state)


class _StopPast(stop_base):
    """Unlike ``stop_before_delay`` this lets an attempt fall on the limit, to the microsecond of PostgreSQL's times."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, retry_state: RetryCallState) -> bool:
        next_attempt = (retry_state.seconds_since_start or 0.0) + retry_state.upcoming_sleep
        return round(next_attempt - self.seconds, 6) > 0


DEFAULT_RETRY = ExponentialRetry()
"""The strategy of a subscriber or forwarder that was given none."""


def as_strategy(value: RetryStrategy | tuple[wait_base, stop_base]) -> RetryStrategy:
    """Return ``value`` if it is a strategy, or the ``TenacityRetry`` of a ``(wait, stop)`` pair.

    Raises:
        ConfigError: It is neither; the message says what to write.

    Example::

        as_strategy((wait_fixed(5), stop_after_attempt(3)))
    """
    match value:
        case (wait, stop):
            return TenacityRetry(wait=wait, stop=stop)
        case RetryStrategy() if not isinstance(value, type):  # a class has the method as well
            return value
    raise ConfigError(
        "retry_strategy must be a strategy such as ExponentialRetry(max_attempts=5) or NoRetry(), or a pair of "
        f"tenacity objects such as (wait_exponential(max=60), stop_after_attempt(5)), got {value!r}",
    )
