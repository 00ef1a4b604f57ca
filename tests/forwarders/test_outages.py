"""When a message may try a routing key that is down, and how many may follow."""

from itertools import pairwise

import pytest

from faststream_outbox.forwarders import outages as module
from faststream_outbox.forwarders.outages import FORGOTTEN_SECONDS, GRANTED, HEALTHY, RETRY_SECONDS, Outages
from faststream_outbox.forwarders.rabbit.verdicts import QueueOutageError
from faststream_outbox.forwarders.status import PartDown
from tests.forwarders.rabbit.rows import Clock

FIRST, LONGEST = RETRY_SECONDS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What says how long parts are down."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_nothing_is_kept_back_before_a_nack() -> None:
    outages = Outages()
    assert not outages
    assert outages.keeps_back("k") is None
    outages.taken("k")
    assert outages.down() == []


def test_tries_are_ever_further_apart_up_to_a_minute(clock: Clock) -> None:
    outages, began, tried = Outages(), clock.now, []
    outages.failed("k", QueueOutageError("down"))
    while clock.now < began + 600.0:
        if outages.keeps_back("k") is None:
            tried.append(clock.now - began)
            outages.failed("k", QueueOutageError("down"))
        clock.now += 0.01
    assert tried[0] <= FIRST + 0.02
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    assert max(gaps) <= LONGEST + 0.02
    assert min(gaps[-5:]) >= LONGEST / 2
    assert len(tried) < 30


def test_one_message_tries_at_a_time(clock: Clock) -> None:
    outages = Outages()
    outages.failed("k", error := QueueOutageError("down"))
    clock.now += FIRST
    assert outages.keeps_back("k") is None
    assert outages.keeps_back("k") is error, "until the other one has its answer"
    clock.now += 2 * FIRST
    assert outages.keeps_back("k") is None, "which may never come"


def test_those_that_were_in_flight_together_put_nothing_off(clock: Clock) -> None:
    outages = Outages()
    for _ in range(200):
        outages.failed("k", QueueOutageError("down"))
    clock.now += FIRST
    assert outages.keeps_back("k") is None
    [down] = outages.down()
    assert down.tries == 200


def test_a_part_for_which_no_messages_come_any_more_is_forgotten(clock: Clock) -> None:
    """Another process has sent them, or somebody has deleted them: nothing would ever say that the part is back."""
    outages = Outages()
    outages.failed("k", QueueOutageError("down"))
    clock.now += FIRST + FORGOTTEN_SECONDS - 1.0
    assert outages.is_down("k")
    assert [part.name for part in outages.down()] == ["k"]
    clock.now += 2.0
    assert outages.down() == []
    assert not outages.is_due
    assert not outages
    outages.failed("k", QueueOutageError("down"))
    clock.now += FIRST + FORGOTTEN_SECONDS + 1.0
    assert outages.seconds_to_next_try("k") is None
    assert outages.keeps_back("k") is None
    assert not outages


def test_a_routing_key_is_no_matter_of_another(clock: Clock) -> None:
    outages = Outages()
    outages.failed("k", QueueOutageError("down"))
    assert outages.keeps_back("other") is None
    outages.taken("other")
    assert outages.keeps_back("k") is not None


def test_one_that_is_taken_lets_two_follow_until_all_may(clock: Clock) -> None:
    outages, sizes = Outages(), []
    outages.failed("k", QueueOutageError("down"))
    clock.now += FIRST
    while outages:
        wave = 0
        while outages.keeps_back("k") is None:
            wave += 1
        sizes.append(wave)
        for _ in range(wave):
            outages.taken("k")
    assert sizes == [GRANTED**n for n in range(len(sizes))]
    assert sizes[-1] * GRANTED >= HEALTHY


def test_a_nack_among_those_that_follow_ends_it_at_once(clock: Clock) -> None:
    outages = Outages()
    outages.failed("k", QueueOutageError("down"))
    clock.now += FIRST
    assert outages.keeps_back("k") is None
    for _ in range(20):
        outages.taken("k")
    assert outages.down() == [], "messages flow"
    outages.failed("k", QueueOutageError("down"))
    assert outages.keeps_back("k") is not None
    [down] = outages.down()
    assert (down.seconds, down.tries) == (0.0, 2)


def test_a_queue_that_takes_some_now_and_then_is_tried_about_as_often(clock: Clock) -> None:
    """A consumer makes room for one message each second; each try beyond that gives other queues a copy in vain."""
    outages, room, taken, in_vain = Outages(), 0.0, 0, 0
    outages.failed("k", QueueOutageError("down"))
    for _ in range(60_000):
        clock.now += 0.01
        room = min(1.0, room + 0.01)
        while outages.keeps_back("k") is None:
            if room >= 1.0:
                room, taken = room - 1.0, taken + 1
                outages.taken("k")
            else:
                in_vain += 1
                outages.failed("k", QueueOutageError("down"))
    assert taken > 200
    assert in_vain < 2.5 * taken


def test_what_is_shown(clock: Clock) -> None:
    outages = Outages()
    outages.failed("k", QueueOutageError("one reason"))
    outages.failed("k", QueueOutageError("another"))
    clock.now += 5.0
    assert outages.down() == [PartDown(name="k", error="another", seconds=5.0, tries=2)]


def test_the_reasons() -> None:
    of_exchange = str(QueueOutageError.of_nack("events", "k"))
    assert of_exchange.startswith("RabbitMQ answered basic.nack for the exchange 'events' with the routing key 'k'")
    assert "for 'q':" in str(QueueOutageError.of_nack("", "q")), "on the default exchange it is a queue"


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OUTAGES", 3)
    outages = Outages()
    for number in range(10):
        outages.failed(f"k{number}", QueueOutageError("down"))
    assert [down.name for down in outages.down()] == ["k7", "k8", "k9"]


def test_when_a_part_is_tried_again_is_known_until_it_takes_a_message(clock: Clock) -> None:
    outages = Outages((2.0, 2.0))
    assert outages.seconds_to_next_try("k") is None
    assert not outages.is_down("k")
    outages.failed("k", QueueOutageError("down"))
    seconds = outages.seconds_to_next_try("k")
    assert seconds is not None
    assert 1.0 <= seconds <= 2.0
    assert outages.is_down("k")
    assert not outages.is_due
    clock.now += seconds
    assert outages.is_due
    assert outages.seconds_to_next_try("k") == 0.0
    assert outages.keeps_back("k") is None
    assert not outages.is_due, "one tries at a time"
    outages.taken("k")
    assert outages.seconds_to_next_try("k") is None
    assert not outages.is_down("k")


def test_a_part_that_takes_all_again_is_forgotten(clock: Clock) -> None:
    outages = Outages()
    outages.failed("k", QueueOutageError("down"))
    outages.over("k")
    assert not outages
    outages.over("k")
