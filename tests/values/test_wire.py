"""What every consumer gets beside the body."""

import contextlib
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from faststream.message import decode_message
from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._values import wire
from faststream_outbox._values.limits import RESERVED_HEADERS
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import beside, rfc3339, type_of_bytes, wire_headers


def row(**options: Any) -> OutboxRow:
    defaults: dict[str, Any] = {
        "id": 7,
        "queue": "orders",
        "key": "k",
        "idempotency_key": "i",
        "payload": b"",
        "headers": {},
        "attempts_count": 0,
        "deliveries_count": 0,
        "created_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    }
    return OutboxRow(**(defaults | options))


def test_the_callers_headers_come_with_those_of_the_row() -> None:
    assert wire_headers(row(headers={"traceparent": "00", "correlation_id": "c"})) == {
        "traceparent": "00",
        "correlation_id": "c",
        "idempotency-key": "i",
        "outbox-id": "7",
        "outbox-queue": "orders",
        "outbox-created-at": "2026-01-02T03:04:05.678901Z",
    }


def test_a_copy_names_the_queue_that_was_published_to() -> None:
    assert wire_headers(row(queue="orders=>redis:orders"))["outbox-queue"] == "orders"


def test_the_rows_own_headers_win() -> None:
    assert wire_headers(row(headers={"outbox-id": "forged"}))["outbox-id"] == "7"


@pytest.mark.parametrize("name", ["reply_to", "Reply_To", "REPLY_TO", "rEpLy_tO"])
def test_a_row_does_not_say_where_its_consumers_reply(name: str) -> None:
    made = wire_headers(row(headers={name: "elsewhere", "reply_to_all": "x", "replyto": "y"}))
    assert {"reply_to_all", "replyto", "outbox-id"} <= made.keys()
    assert name not in made


def test_headers_that_are_left_out_do_not_change_the_row() -> None:
    its_row = row(headers={"reply_to": "elsewhere"})
    wire_headers(its_row)
    assert its_row.headers == {"reply_to": "elsewhere"}


def test_every_attempt_carries_the_same() -> None:
    assert wire_headers(row(attempts_count=3, deliveries_count=4)) == wire_headers(row())


def test_callers_cannot_write_what_the_bridge_writes() -> None:
    assert set(wire_headers(row())) | {wire.ROW_KEY} <= RESERVED_HEADERS


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (
            datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            "2026-01-01T21:34:05.000006Z",
        ),
    ],
)
def test_times_are_written_in_utc(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text


def test_times_that_come_again_and_others_between_them() -> None:
    one = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    later, abroad = one + timedelta(microseconds=1), one.astimezone(timezone(timedelta(hours=1)))
    texts = ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000001Z"]
    assert [rfc3339(moment) for moment in (one, one, later, abroad, one)] == [
        texts[number] for number in (0, 0, 1, 0, 0)
    ]


@given(st.datetimes(timezones=st.timezones()).filter(lambda moment: 1900 < moment.year < 2200))
def test_a_written_time_reads_back_as_the_same_moment(moment: datetime) -> None:
    assert datetime.fromisoformat(rfc3339(moment)) == moment.astimezone(UTC)
    assert rfc3339(moment).endswith("Z")


BYTES = [
    (b"\x00\xff", "application/octet-stream"),
    (b"{", "application/octet-stream"),
    (b"1" * 5000, "application/octet-stream"),  # Python reads no number of so many digits
    (b"[" * 60_000, "application/octet-stream"),
    (b'{"a": [1, null]}', "application/json"),
    (b" 3.5\n", "application/json"),
    (b"", None),
]


@pytest.mark.parametrize(("payload", "expected"), BYTES, ids=lambda value: repr(value)[:20])
def test_bytes_have_the_type_that_faststream_reads_them_by(payload: bytes, expected: str | None) -> None:
    assert wire_headers(row(payload=payload)).get("content-type") == expected
    assert wire_headers(row(payload=payload, headers={"content-type": "a/b"}))["content-type"] == "a/b"
    with contextlib.suppress(ValueError, RecursionError):  # as a handler there would fail
        is_json = decode_message(payload) is not payload  # type: ignore[arg-type]
        assert is_json == (expected == "application/json")


def test_the_publishers_type_is_for_rows_without_one() -> None:
    publishers = {"content-type": "application/x-protobuf"}
    headers_of = beside(publishers, wire_headers)
    assert "content-type" not in headers_of(row(payload=b"\x08\x07"))
    assert "content-type" not in headers_of(row(payload=b"7"))
    assert headers_of(row(payload=b"7", headers={"content-type": "a/b"}))["content-type"] == "a/b"
    assert beside({"team": "shop"}, wire_headers)(row(payload=b"7"))["content-type"] == "application/json"


IN_DOUBT = [
    struct.pack("<h", 53),
    struct.pack("<i", 53),
    b"NaN",
    b'{"x": -Infinity}',
    b"1e999",
    b'\xef\xbb\xbf{"a": 1}',
    '{"a": 1}'.encode("utf-16"),
    '{"a": 1}'.encode("utf-32-be"),
]


@pytest.mark.parametrize("payload", IN_DOUBT)
def test_what_python_alone_reads_as_json_is_not_called_json(payload: bytes) -> None:
    """FastStream's consumers read it as they did, and nobody is told what is not so."""
    assert decode_message(payload) is not payload  # type: ignore[arg-type]
    assert "content-type" not in wire_headers(row(payload=payload))


def test_what_is_too_large_to_try_is_in_doubt_unless_its_first_byte_tells() -> None:
    longest = b"[" + b" " * (64 * 1024 - 2) + b"]"
    assert wire_headers(row(payload=longest))["content-type"] == "application/json"
    assert "content-type" not in wire_headers(row(payload=longest + b" "))
    assert wire_headers(row(payload=b"\x89PNG" * 100_000))["content-type"] == "application/octet-stream"


@given(st.binary(min_size=1, max_size=8))
def test_no_bytes_are_read_otherwise_than_without_a_type(payload: bytes) -> None:
    is_json = decode_message(payload) is not payload  # type: ignore[arg-type]
    assert type_of_bytes(payload) in (("application/json", None) if is_json else ("application/octet-stream",))


BEGINNINGS = [
    *"0123456789",
    "-1",
    "true",
    "false",
    "null",
    "NaN",
    "Infinity",
    '"x"',
    "{}",
    "[]",
    " 1",
    "\t1",
    "\r1",
    "\n1",
]


@pytest.mark.parametrize("text", BEGINNINGS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-16", "utf-32-be"])
def test_every_beginning_of_json_is_known(text: str, encoding: str) -> None:
    payload = text.encode(encoding)
    assert decode_message(payload) is not payload  # type: ignore[arg-type]
    is_strict = encoding == "utf-8" and text not in ("NaN", "Infinity")
    assert type_of_bytes(payload) == ("application/json" if is_strict else None)
