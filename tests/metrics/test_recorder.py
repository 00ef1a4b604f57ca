"""What the loops tell, as values of instruments: their labels are bounded, and nothing of them can hurt a loop."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from faststream_outbox._engine.meter import HandedOver
from faststream_outbox._values.outcome import (
    ACCEPTED,
    DEDUPLICATED,
    DELIVERED,
    Dead,
    Deferred,
    Dropped,
    Poison,
    Reason,
    Refused,
    Released,
    Retry,
    Settlement,
    Unsent,
    Unwritten,
)
from faststream_outbox.metrics import instruments as of
from faststream_outbox.metrics.instruments import ALL, Instrument, Kind
from faststream_outbox.metrics.recorder import Names, Recorder
from tests.rows import make_row

Labels = tuple[str, ...]


class Written:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, Labels], int] = {}
        self.values: dict[tuple[str, Labels], list[float]] = {}

    def add(self, instrument: Instrument, labels: Sequence[str], amount: int) -> None:
        assert instrument.kind is Kind.COUNTER
        assert len(labels) == 1 + len(instrument.labels)
        key = instrument.name, tuple(labels)
        self.counts[key] = self.counts.get(key, 0) + amount

    def observe(self, instrument: Instrument, labels: Sequence[str], values: Sequence[float]) -> None:
        assert instrument.kind is Kind.HISTOGRAM
        assert len(labels) == 1 + len(instrument.labels)
        self.values.setdefault((instrument.name, tuple(labels)), []).extend(values)


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def recorder(written: Written) -> Recorder:
    return Recorder("shop", written, Names(2))


def hand_over(**changes: Any) -> HandedOver:
    whole: dict[str, Any] = {
        "forwarder": "kafka:orders",
        "address": "kafka:orders.v1",
        "rows": [make_row(acquired_at=datetime.now(UTC))],
        "verdicts": [],
        "settlements": [],
        "taking_seconds": 0.01,
        "sending_seconds": 0.02,
        "seconds": 0.04,
    }
    return HandedOver(**whole | changes)


def test_every_outcome_and_verdict_has_a_name(recorder: Recorder, written: Written) -> None:
    row = make_row(queue="a")
    outcomes = [DELIVERED, Retry(1.0), Released(), Deferred(0), Dead(Reason.REJECTED)]
    verdicts = [ACCEPTED, DEDUPLICATED, Refused(ValueError()), Poison("x", ValueError()), Unsent(), Dropped()]
    recorder.handed_over(hand_over(verdicts=verdicts, settlements=[Settlement(row, each) for each in outcomes]))
    names = ("delivered", "retry", "released", "deferred", "dead")
    assert {key: count for key, count in written.counts.items() if key[0] == "outbox_outcomes"} == {
        ("outbox_outcomes", ("shop", "a", name)): 1 for name in names
    }
    names = ("accepted", "deduplicated", "refused", "poison", "unsent", "dropped")
    assert {key: count for key, count in written.counts.items() if key[0] == "outbox_forwarder_messages"} == {
        ("outbox_forwarder_messages", ("shop", "kafka:orders", name)): 1 for name in names
    }
    assert written.values["outbox_hand_over_seconds", ("shop", "kafka:orders")] == [0.04]
    assert written.values["outbox_take_seconds", ("shop", "kafka:orders")] == [0.01]
    assert written.values["outbox_send_seconds", ("shop", "kafka:orders")] == [0.02]


def test_labels_are_bounded_whatever_rows_contain(recorder: Recorder, written: Written) -> None:
    for number in range(10):
        row = make_row(queue=f"queue-{number}", key=f"key-{number}")
        dead = Dead(f"reason-{number}", f"text-{number}")
        recorder.settled([Settlement(row, dead)], (), 0.1)
        recorder.handled(row, dead, 0.1)
        recorder.published(row.queue, rows=1, duplicates=1, seconds=0.1)
        recorder.leases_lost([row])
        recorder.taken_over([row.queue])
    labels = {label for _, labels in [*written.counts, *written.values] for label in labels}
    assert labels == {"shop", "queue-0", "queue-1", "other", "dead"}
    assert written.counts["outbox_dead_letters", ("shop", "other", "other")] == 8


def test_known_reasons_are_labels(recorder: Recorder, written: Written) -> None:
    recorder.settled([Settlement(make_row(queue="a"), Dead(Reason.TOO_LARGE))], (), 0.1)
    assert written.counts["outbox_dead_letters", ("shop", "a", "too_large")] == 1


def test_from_the_commit_to_the_end_by_the_clock_of_the_database(recorder: Recorder, written: Written) -> None:
    """The database's clock is an hour ahead; a row was published there two seconds before it was claimed."""
    there = datetime.now(UTC) + timedelta(hours=1)
    row = make_row(queue="a", created_at=there - timedelta(seconds=2), acquired_at=there)
    recorder.claimed("handle", [row], 0.001)
    timer = row._replace(timer_id="later", created_at=there - timedelta(days=1))
    recorder.settled([Settlement(row, DELIVERED), Settlement(timer, DELIVERED)], (), 0.001)
    [age] = written.values["outbox_commit_to_ack_seconds", ("shop", "a")]
    assert 2.0 <= age < 3.0


def test_what_could_not_be_written_has_no_outcome(recorder: Recorder, written: Written) -> None:
    rows = [make_row(number, queue="a") for number in (1, 2)]
    settlements = [Settlement(row, DELIVERED) for row in rows]
    recorder.settled(settlements, [Unwritten(settlements[0], ValueError())], 0.1)
    assert written.counts["outbox_outcomes", ("shop", "a", "delivered")] == 1
    assert len(written.values["outbox_commit_to_ack_seconds", ("shop", "a")]) == 1
    assert written.values["outbox_settle_rows", ("shop",)] == [2]


def test_a_row_that_comes_again_without_a_failure_was_repeated(recorder: Recorder, written: Written) -> None:
    first, retried = make_row(queue="a", deliveries=1), make_row(queue="a", deliveries=2, attempts_count=1)
    recorder.claimed("handle", [first, retried], 0.1)
    assert written.counts == {}
    recorder.claimed("handle", [make_row(queue="a", deliveries=2)], 0.1)
    assert written.counts == {("outbox_redelivered", ("shop", "a")): 1}
    recorder.claimed("handle", [], 0.1)
    assert written.values["outbox_claim_seconds", ("shop", "handle")] == [0.1] * 3
    assert written.values["outbox_claim_rows", ("shop", "handle")] == [2, 1]


def test_a_sink_that_fails_hurts_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Written):
        def add(self, instrument: Instrument, labels: Sequence[str], amount: int) -> None:
            raise RuntimeError("the registry is gone")

    recorder = Recorder("shop", Broken(), Names(2))
    recorder.published("a", rows=1, duplicates=0, seconds=0.1)
    assert "the registry is gone" in caplog.text


def test_names_of_instruments_are_those_of_both_worlds() -> None:
    assert len({each.name for each in ALL}) == len(ALL)
    assert len({each.dotted for each in ALL}) == len(ALL), "no two become one without their units"
    assert {each.unit for each in ALL} <= {"s", "By", "{row}", "1"}
    assert (of.ACK_SECONDS.dotted, of.ACK_SECONDS.unit) == ("outbox.commit_to_ack", "s")
    assert all(each.bounds for each in ALL if each.kind is Kind.HISTOGRAM)
    forbidden = {"id", "key", "error", "exception", "message_id", "idempotency_key"}
    assert forbidden.isdisjoint(label for each in ALL for label in each.labels)
