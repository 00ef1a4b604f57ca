"""A message's properties, as AMQP writes them; read back by pamqp."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.frame import marshal, unmarshal
from pamqp.header import ContentHeader

from faststream_outbox._values.wire import wire_headers
from faststream_outbox.forwarders.rabbit.properties import Properties, properties_of
from tests.forwarders.rabbit.rows import CREATED_AT, row

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda name: len(name.encode()) <= 255)
texts = st.text(st.characters(exclude_categories=["Cs"]))


def read_back(properties: Properties) -> Any:
    frame = marshal(ContentHeader(body_size=3, properties=properties), 1)
    assert len(frame) == properties.frame_size
    size, _, header = unmarshal(frame)
    assert size == len(frame)
    assert isinstance(header, ContentHeader)
    return header.properties


@given(st.dictionaries(names, texts, max_size=5))
def test_headers_come_back_as_they_were(headers: dict[str, str]) -> None:
    assert read_back(Properties(headers=headers)).headers == headers


def test_a_row() -> None:
    made = properties_of(
        row(key="k", headers={"content-type": "text/x", "correlation_id": "c", "team": "row"}),
        headers={"team": "publisher", "tries": 3},
        headers_of=wire_headers,
        content_type="text/fallback",
        properties={"app_id": "shop"},
    )
    found = read_back(made)
    assert found.headers == {
        "team": "row",
        "tries": 3,
        "content-type": "text/x",
        "correlation_id": "c",
        "idempotency-key": "i",
        "outbox-id": "7",
        "outbox-queue": "orders",
        "outbox-created-at": "2026-11-24T12:30:15.123456Z",
        "outbox-key": "k",
    }
    assert (found.message_id, found.correlation_id, found.content_type, found.app_id) == ("i", "c", "text/x", "shop")
    assert found.timestamp == CREATED_AT.replace(microsecond=0)
    assert found.delivery_mode == 2


def test_a_row_without_key_and_content_type() -> None:
    found = read_back(
        properties_of(row(), headers={}, headers_of=wire_headers, content_type="text/fallback", properties={})
    )
    assert "outbox-key" not in found.headers
    assert found.content_type == "text/fallback"
    assert not found.correlation_id


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"x" * 256: ""}, "256 bytes"),
        ({"x": object()}, "'x' must be text"),
        ({"x": None}, "'x' must be text"),
        ({"x": {"a": "b"}}, "'x' must be text"),
        ({"x": ["a"]}, "'x' must be text"),
        ({"x": 1e300}, "too large"),
        ({"x": float("inf")}, "'x', which is inf"),
    ],
    ids=repr,
)
def test_what_cannot_be_carried(headers: dict[str, Any], says: str) -> None:
    with pytest.raises((ArithmeticError, TypeError, ValueError), match=says):
        Properties(headers=headers)


@pytest.mark.parametrize("name", ["CC", "BCC"])
def test_a_caller_sends_nothing_to_further_queues(name: str) -> None:
    options: dict[str, Any] = {"headers_of": wire_headers, "content_type": None, "properties": {}}
    with pytest.raises(ValueError, match=f"reads further routing keys from the header '{name}'"):
        properties_of(row(headers={name: "audit"}), headers={}, **options)
    made = properties_of(row(headers={name.lower(): "audit"}), headers={name: ["audit"]}, **options)
    found = read_back(made).headers
    assert (found[name], found[name.lower()]) == (["audit"], "audit"), "the publisher may"
