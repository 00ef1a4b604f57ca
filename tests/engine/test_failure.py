"""A failed attempt becomes a retry or a dead letter, whatever the user's strategy does."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tenacity import stop_never, wait_fixed

from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._values.outcome import Dead, Reason, Retry
from faststream_outbox._values.unreadable import Unreadable
from faststream_outbox.retry import MAX_DELAY_SECONDS, ConstantRetry, NoRetry, as_strategy
from tests.engine.fakes import Trouble
from tests.rows import make_row


@dataclass
class Strategy:
    answer: Any
    asked: Any = None

    def get_next_attempt_delay(self, **asked: Any) -> Any:
        self.asked = asked
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def decide(answer: Any, **row: Any) -> Retry | Dead:
    return FailurePolicy(retry=Strategy(answer)).after_failure(make_row(**row), Trouble("no"), elapsed=2.0)


def test_a_delay_becomes_a_retry_with_the_reason() -> None:
    assert decide(7) == Retry(7.0, "Trouble: no")


def test_no_delay_becomes_a_dead_letter_with_the_reason() -> None:
    assert decide(None) == Dead(Reason.RETRIES_EXHAUSTED, "Trouble: no")
    assert FailurePolicy(retry=NoRetry()).after_failure(make_row(), None, elapsed=0.0) == Dead(
        Reason.RETRIES_EXHAUSTED, None
    )


def test_the_strategy_is_told_the_databases_times_and_this_attempt() -> None:
    strategy = Strategy(1.0)
    acquired = datetime(2026, 5, 1, tzinfo=UTC)
    row = make_row(acquired_at=acquired, attempts_count=4)
    error = Trouble("no")
    FailurePolicy(retry=strategy).after_failure(row, error, elapsed=2.0)
    now = acquired + timedelta(seconds=2)
    assert strategy.asked == {
        "first_attempt_at": now,
        "last_attempt_at": now,
        "attempts_count": 5,
        "exception": error,
    }


def test_the_first_attempts_time_is_kept() -> None:
    strategy = Strategy(1.0)
    first = datetime(2026, 1, 2, tzinfo=UTC)
    FailurePolicy(retry=strategy).after_failure(make_row(first_attempt_at=first), None, elapsed=2.0)
    assert strategy.asked["first_attempt_at"] == first


@pytest.mark.parametrize(
    "answer", [Trouble("strategy"), float("nan"), -0.001, float("-inf"), "soon", timedelta(seconds=5), object()]
)
def test_a_strategy_with_a_bug_costs_no_row(answer: Any) -> None:
    outcome = decide(answer)
    assert isinstance(outcome, Retry)
    assert 0 < outcome.delay <= MAX_DELAY_SECONDS
    assert outcome.exception is not None
    assert "Trouble: no" in outcome.exception
    assert "the retry strategy failed with" in outcome.exception


@pytest.mark.parametrize("answer", [Trouble("strategy"), -5])
def test_a_strategy_with_a_bug_does_not_retry_for_ever(answer: Any) -> None:
    outcome = decide(answer, attempts_count=10_000)
    assert isinstance(outcome, Dead)


def test_tenacitys_waits_below_zero_do_not_spin() -> None:
    outcome = FailurePolicy(retry=as_strategy((wait_fixed(-1), stop_never))).after_failure(
        make_row(), Trouble("no"), elapsed=2.0
    )
    assert isinstance(outcome, Retry)
    assert outcome.delay > 0


@pytest.mark.parametrize(
    ("answer", "delay"),
    [(0, 0.0), (float("inf"), MAX_DELAY_SECONDS), (True, 1.0), (1e300, MAX_DELAY_SECONDS)],
)
def test_a_delay_is_one_that_the_database_takes(answer: float, delay: float) -> None:
    assert decide(answer) == Retry(delay, "Trouble: no")


def test_a_row_is_claimed_too_often_only_beyond_the_limit() -> None:
    policy = FailurePolicy(retry=ConstantRetry(delay_seconds=1), max_deliveries=3)
    assert policy.before_attempt(make_row(deliveries=3)) is None
    assert policy.before_attempt(make_row(deliveries=4)) == Dead("max_deliveries", "claimed 4 times")
    assert FailurePolicy(retry=NoRetry()).before_attempt(make_row(deliveries=10**6)) is None


def test_a_row_that_cannot_be_read_is_dead_before_it_is_tried() -> None:
    row = make_row(deliveries=4)._replace(headers=Unreadable("they are null"))
    dead = Dead("invalid", "the headers cannot be read: they are null")
    assert FailurePolicy(retry=NoRetry(), max_deliveries=3).before_attempt(row) == dead


@pytest.mark.parametrize("reason", ["retries_exhausted", "too_large"])
def test_a_dead_letter_holds_its_key_where_that_is_wanted(reason: str) -> None:
    dead, policy = Dead(reason, "no"), FailurePolicy(retry=NoRetry(), hold_key=True)
    assert policy.holding(make_row(key="k"), dead) == Dead(reason, "no", holds_key=True)
    assert policy.holding(make_row(key=None), dead) == dead, "nothing to hold"
    assert policy.holding(make_row(key="k"), Retry(1.0)) == Retry(1.0)
    assert FailurePolicy(retry=NoRetry()).holding(make_row(key="k"), dead) == dead


def test_what_is_kept_of_exceptions_is_what_the_application_says() -> None:
    def text_of(error: BaseException | None) -> str | None:
        return error and type(error).__name__

    failing = FailurePolicy(retry=Strategy(ValueError("secret")), text_of=text_of)
    assert failing.at_once("rejected", Trouble("secret")) == Dead("rejected", "Trouble")
    outcome = failing.after_failure(make_row(), Trouble("secret"), elapsed=2.0)
    assert outcome.exception == "Trouble; then the retry strategy failed with ValueError"
