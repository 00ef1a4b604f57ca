"""One line when something goes down, one when it comes back."""

import logging

import pytest

from faststream_outbox._engine import health as health_module
from faststream_outbox._engine.health import Health, guarded, in_words
from faststream_outbox._values.explanation import Explanation
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


def test_it_is_down_until_those_that_failed_have_worked_again(log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(health_module, "time", clock)
    health = Health("database", log)
    for _ in range(20):
        health.failed(Trouble("permission denied"), "writing")
        health.recovered("reading")
        clock.now += health_module.FAILING_SECONDS - 1.0
    assert (len(log.errors), log.recoveries) == (1, [])
    health.recovered("writing")
    assert len(log.recoveries) == 1


def test_a_loop_whose_round_passed_or_that_fails_no_more_keeps_nothing_down(
    log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(health_module, "time", clock)
    health = Health("database", log)
    health.failed(Trouble("gone"), "one")
    health.passed("one")
    assert health.is_down, "it may have had nothing to do"
    health.recovered("another")
    assert not health.is_down
    health.failed(Trouble("gone"), "one")
    clock.now += health_module.FAILING_SECONDS
    health.recovered("another")
    assert not health.is_down, "it waits for something else"


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


def reminded_at(health: Health, clock: Clock, seconds: int) -> list[int]:
    """Fail every five seconds for so long; return when reminders were due, and said."""
    began, times = clock.now, []
    while clock.now < began + seconds:
        health.failed(Trouble("gone"))
        if health.is_reminder_due:
            health.remind()
            times.append(int(clock.now - began))
        clock.now += 5.0
    return times


def test_an_outage_that_lasts_is_told_again_at_growing_intervals(log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(health_module, "time", clock)
    health = Health("kafka", log)
    minutes = [seconds // 60 for seconds in reminded_at(health, clock, 5 * 3600)]
    assert minutes == [1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert log.all[0] == (logging.ERROR, "kafka: Trouble: gone (retrying until it works)")
    assert log.all[1] == (logging.WARNING, "kafka: still so after 60 s: Trouble: gone")
    assert log.all[-1] == (logging.WARNING, "kafka: still so after 4 h: Trouble: gone")
    assert len(log.all) == 1 + len(minutes)


def test_the_next_outage_begins_with_short_intervals(log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(health_module, "time", clock)
    health = Health("kafka", log)
    assert reminded_at(health, clock, 3600)
    health.recovered()
    clock.now += 24 * 3600.0
    assert not health.is_reminder_due
    health.remind()
    assert log.all[-1] == (logging.INFO, "kafka: works again"), "there is nothing to be reminded of"
    assert reminded_at(health, clock, 200) == [60, 180]


def test_a_reminder_tells_what_waits_and_the_last_error(log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(health_module, "time", clock)
    health = Health("kafka", log)
    health.failed(Trouble("first"))
    clock.now += 90.0
    health.failed(Trouble("second"))
    health.remind("3 rows wait")
    assert log.all[-1] == (logging.WARNING, "kafka: still so after 90 s: Trouble: second; 3 rows wait")


def test_an_error_that_needs_no_traceback_has_none() -> None:
    lines: list[tuple[str, BaseException | None]] = []
    known, unknown = Trouble("no table"), Trouble("?")
    health = Health(
        "database",
        lambda _level, message, error: lines.append((message, error)),
        lambda error: Explanation("run the migration", is_whole=True) if error is known else Explanation("a riddle"),
    )
    health.failed(known)
    health.recovered()
    health.failed(unknown)
    assert lines == [
        ("database: run the migration (retrying until it works)", None),
        ("database: works again", None),
        ("database: a riddle (retrying until it works)", unknown),
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (7200.0, "2 h"), (86_400.0, "24 h")],
)
def test_spans_of_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


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


def test_a_message_is_one_line(log: Lines) -> None:
    guarded(log)(logging.INFO, "key 'a\n2030-01-01 all is lost'", None)
    assert log.all == [(logging.INFO, r"key 'a\n2030-01-01 all is lost'")]


def test_a_broken_logger_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(level: int, message: str, error: BaseException | None) -> None:
        raise Trouble("disk full")

    health = Health("kafka", guarded(broken))
    health.failed(TimeoutError())
    assert health.is_down
    assert "kafka: TimeoutError" in caplog.text
