"""Results as JSON."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from faststream_outbox import DeadLetter, OutboxRow
from faststream_outbox._values.facts import ServerFacts
from faststream_outbox._values.figures import Count, QueueFigures
from faststream_outbox._values.overview import Overview
from faststream_outbox.admin import Finding, Grade, to_json

ROW = OutboxRow(
    id=2**62,
    queue="q",
    key=None,
    idempotency_key="i",
    payload=b"\xc3\xa4",
    headers={"a": "b"},
    attempts_count=1,
    deliveries_count=2,
    created_at=datetime(2030, 1, 2, tzinfo=UTC),
)


def test_a_dead_letter() -> None:
    letter = DeadLetter(row=ROW, failed_at=datetime(2030, 1, 3, tzinfo=UTC), reason="rejected", exception=None)
    found = json.loads(json.dumps(to_json([letter])))
    assert found[0]["row"]["id"] == 2**62
    assert found[0]["row"]["payload"] == "ä"
    assert found[0]["row"]["headers"] == {"a": "b"}
    assert (found[0]["failed_at"], found[0]["holds_key"]) == ("2030-01-03T00:00:00+00:00", False)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (b"\xff\x00", {"base64": "/wA="}),
        (Count(3, is_whole=False), {"rows": 3, "is_whole": False}),
        ({"a": (1, None, 2.5, True)}, {"a": [1, None, 2.5, True]}),
        (
            Finding(check="c", grade=Grade.OK, text="t"),
            {"check": "c", "grade": "ok", "text": "t", "advice": None},
        ),
    ],
)
def test_values(value: Any, form: Any) -> None:
    assert to_json(value) == form
    assert json.loads(json.dumps(to_json(value))) == form


def test_what_is_reckoned_goes_along() -> None:
    figures = QueueFigures(queue="orders=>x", ready=Count(1), due=Count(2, is_whole=False), moved=Count(3))
    found = to_json(figures)
    assert found["backlog"] == {"rows": 3, "is_whole": False}
    assert found["dead"] == {"rows": 3, "is_whole": True}
    assert found["forwarder"] == "x"
    server = ServerFacts(
        version="18",
        database="d",
        role="r",
        takes_writes=False,
        is_standby=True,
        is_pooled=False,
        connections=1,
        most_connections=2,
        role_connections=1,
        role_limit=None,
        database_connections=1,
        database_limit=None,
        statement_timeout_ms=0,
    )
    assert to_json(Overview(server=server, tables=[], differences={}, queues=[]))["state"] == "broken"
