"""The one place where a failed attempt becomes an outcome."""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from faststream_outbox._values.outcome import Dead, Reason, Retry, TextOf, describe
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.retry import DEFAULT_RETRY, MAX_DELAY_SECONDS, RetryStrategy

OutcomeT = TypeVar("OutcomeT")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """Decides between another attempt and the dead letters."""

    retry: RetryStrategy
    max_deliveries: int | None = None
    """A row claimed more often than this is dead: it kills its worker before it can fail. None: no limit."""
    hold_key: bool = False
    """Whether a dead letter holds back the later rows of its key."""
    text_of: TextOf = field(default=describe)
    """What is kept of an exception."""

    def before_attempt(self, row: OutboxRow) -> Dead | None:
        """Return what a row becomes that is not tried: it cannot be read, or was claimed more often than allowed."""
        if row.problem is not None:
            return Dead(Reason.INVALID, row.problem)
        if self.max_deliveries is not None and row.deliveries_count > self.max_deliveries:
            return Dead(Reason.MAX_DELIVERIES, f"claimed {row.deliveries_count} times")
        return None

    def after_failure(self, row: OutboxRow, exception: BaseException | None, *, elapsed: float) -> Retry | Dead:
        """Decide what follows an attempt that failed.

        Args:
            row: As it was claimed.
            exception: What the attempt raised, if anything.
            elapsed: Seconds since the claim; with the claim's time they make the database's present time.
        """
        now = (row.acquired_at or row.created_at) + timedelta(seconds=elapsed)
        text = self.text_of(exception)
        try:
            delay = self._delay(self.retry, row, now, exception)
        except Exception as error:  # noqa: BLE001 - the user's code
            # A strategy with a bug must neither lose the row nor stop the loop that asked it.
            delay = self._delay(DEFAULT_RETRY, row, now, exception)
            text = f"{text}; then the retry strategy failed with {self.text_of(error)}"
        if delay is None:
            return Dead(Reason.RETRIES_EXHAUSTED, text)
        return Retry(delay, text)

    def at_once(self, reason: str, exception: BaseException | None) -> Dead:
        """Return the dead letter of a row that is not tried again, whatever the strategy says."""
        return Dead(reason, self.text_of(exception))

    def holding(self, row: OutboxRow, outcome: OutcomeT) -> OutcomeT | Dead:
        """Return the outcome with a dead letter that holds its key, if that is wanted; other outcomes unchanged."""
        if self.hold_key and row.key is not None and isinstance(outcome, Dead):
            return replace(outcome, holds_key=True)
        return outcome

    @staticmethod
    def _delay(strategy: RetryStrategy, row: OutboxRow, now: datetime, exception: BaseException | None) -> float | None:
        delay = strategy.get_next_attempt_delay(
            first_attempt_at=row.first_attempt_at or now,
            last_attempt_at=now,
            attempts_count=row.attempts_count + 1,
            exception=exception,
        )
        if delay is None:
            return None
        if math.isnan(delay):
            # The database would refuse it, and with it every outcome of the same write.
            msg = "a delay that is not a number"
            raise ValueError(msg)
        if delay < 0:
            # Taken for none, it would let the row fail as fast as it can be claimed; without a limit, for ever.
            msg = f"a delay of {delay} seconds"
            raise ValueError(msg)
        return float(min(delay, MAX_DELAY_SECONDS))
