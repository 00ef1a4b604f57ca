"""What an inbox counts, and shows where it is asked to."""

from typing import Any

import pytest
from faststream.message import StreamMessage
from prometheus_client import CollectorRegistry

from faststream_outbox import ConfigError, Inbox, TestInbox
from faststream_outbox.prometheus import OutboxMetrics


def message(number: int) -> StreamMessage[Any]:
    return StreamMessage(None, body=b"", headers={"idempotency-key": str(number), "outbox-queue": "orders"})


async def accept(inbox: Inbox) -> None:
    with TestInbox():
        for number in (1, 2, 1, 1):
            await inbox.accept(None, message(number))  # type: ignore[arg-type]  # memory needs no session


async def test_messages_and_repeats_are_counted(make_inbox: Any) -> None:
    registry = CollectorRegistry()
    inbox = make_inbox(metrics=OutboxMetrics(registry=registry))
    await accept(inbox)
    assert (inbox.accepted, inbox.repeated) == (2, 2)
    for result in ("accepted", "repeated"):
        labels = {"outbox": "inbox", "consumer": "billing", "result": result}
        assert registry.get_sample_value("outbox_inbox_messages_total", labels) == 2


async def test_without_metrics_it_counts_for_itself(make_inbox: Any) -> None:
    inbox = make_inbox()
    await accept(inbox)
    assert (inbox.accepted, inbox.repeated) == (2, 2)


def test_what_are_no_metrics_is_refused(make_inbox: Any) -> None:
    with pytest.raises(ConfigError, match=r"^metrics: must be OutboxMetrics\(...\)"):
        make_inbox(metrics=CollectorRegistry())
