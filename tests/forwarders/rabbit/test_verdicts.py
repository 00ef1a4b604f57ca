"""The table of failure classes."""

import pytest
from aiormq import exceptions as amqp

from faststream_outbox.forwarders.rabbit.verdicts import BlockedError, Meaning, meaning, poison


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (amqp.DeliveryError(None, None), Meaning.QUEUE_DOWN),  # type: ignore[arg-type]
        (amqp.ChannelPreconditionFailed(""), Meaning.POISON_AMONG_THEM),
        (amqp.ConnectionFrameError(""), Meaning.SUSPECT),
        (amqp.ConnectionInternalError(""), Meaning.SUSPECT),
        (amqp.AMQPConnectionError("lost"), Meaning.SUSPECT),
        (ConnectionResetError(), Meaning.SUSPECT),
        (amqp.ConnectionClosed(320, "CONNECTION_FORCED"), Meaning.OUTAGE),
        (amqp.ConnectionNotAllowed(""), Meaning.OUTAGE),
        (amqp.ChannelNotFoundEntity(""), Meaning.OUTAGE),
        (amqp.ChannelAccessRefused(""), Meaning.OUTAGE),
        (amqp.ChannelInvalidStateError(), Meaning.OUTAGE),
        (TimeoutError(), Meaning.OUTAGE),
        (RuntimeError("anything else"), Meaning.OUTAGE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_meaning(error: BaseException, expected: Meaning) -> None:
    assert meaning(error) is expected


def test_the_reason_of_poison() -> None:
    assert poison(amqp.ChannelPreconditionFailed("message size 9 is larger than ...")).reason == "too_large"
    assert poison(amqp.ChannelPreconditionFailed("invalid message")).reason == "invalid"


def test_an_alarm_says_what_it_is() -> None:
    assert "memory" in str(BlockedError())
