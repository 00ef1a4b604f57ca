"""One line when something goes down, one when it comes back."""

import logging

import pytest

from faststream_outbox._engine import health as health_module
from faststream_outbox._engine.health import Health, guarded
from tests.engine.fakes import Clock, Lines, Trouble


def test_an_outage_is_told_once_and_its_end_once(log: Lines) -> None:
    health = Health("kafka", log)
    health.recovered()
    for _ in range(100):
        health.failed(Trouble("gone"))
    assert health.is_down
    for _ in range(100):
        health.recovered()
    assert not health.is_down
    assert log.all == [
        (logging.ERROR, "kafka: Trouble: gone (retrying until it works)"),
        (logging.INFO, "kafka: works again"),
    ]


def test_during_an_outage_other_errors_are_told_once_each_and_a_minute_apart(
    log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(health_module, "time", clock)
    health = Health("kafka", log)
    for _ in range(1200):
        for error in (Trouble("gone"), TimeoutError(), ConnectionResetError()):
            health.failed(error)
        clock.now += 1.0
        if clock.now == 1059.0:
            assert len(log.troubles) == 1
    assert len(log.errors) == 1, "one change of state"
    assert len(log.troubles) == 3, "and a line for each other kind"


def test_the_next_outage_is_told_again(log: Lines) -> None:
    health = Health("kafka", log)
    for _ in range(3):
        health.failed(Trouble("gone"))
        health.recovered()
    assert len(log.errors) == 3
    assert len(log.recoveries) == 3


def test_the_last_error_is_kept(log: Lines) -> None:
    health = Health("kafka", log)
    health.failed(Trouble("first"))
    health.failed(Trouble("second"))
    assert str(health.last_error) == "second"


def test_a_broken_logger_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(level: int, message: str, error: BaseException | None) -> None:
        raise Trouble("disk full")

    health = Health("kafka", guarded(broken))
    health.failed(TimeoutError())
    assert health.is_down
    assert "kafka: TimeoutError" in caplog.text
