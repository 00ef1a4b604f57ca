"""The envelope is read by FastStream's own reader, whatever is in it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from faststream.redis.parser import BinaryMessageFormatV1, MessageFormat
from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.wire import type_of_bytes
from faststream_outbox.forwarders.redis.encoding import encode, fields_of
from tests.rows import make_row

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)


def row(payload: bytes = b"", headers: dict[str, str] | None = None, key: str | None = None) -> OutboxRow:
    created_at = datetime(2026, 1, 2, tzinfo=UTC)
    values = {
        "key": key,
        "idempotency_key": "i",
        "payload": payload,
        "headers": headers or {},
        "created_at": created_at,
    }
    return make_row(7, deliveries=0, **values)


@given(
    payload=st.binary(max_size=200),
    headers=st.dictionaries(TEXT.filter(len).map("x-{}".format), TEXT, max_size=8),
    key=st.none() | TEXT.filter(len),
)
async def test_everything_that_a_row_can_hold_is_read_back(
    payload: bytes, headers: dict[str, str], key: str | None
) -> None:
    body, read = BinaryMessageFormatV1.parse(await encode(row(payload, headers, key), {}, BinaryMessageFormatV1))
    assert body == payload
    expected = headers | {
        "idempotency-key": "i",
        "message_id": "i",
        "outbox-id": "7",
        "outbox-queue": "orders",
        "outbox-created-at": "2026-01-02T00:00:00Z",
    }
    if payload and (kind := type_of_bytes(payload)) is not None:
        expected["content-type"] = kind
    assert read == expected | ({} if key is None else {"outbox-key": key})


async def test_the_largest_headers_that_a_row_can_have() -> None:
    headers = {f"{number:x}": "" for number in range(7000)} | {"ä": "ü" * 16_000}
    _, read = BinaryMessageFormatV1.parse(await encode(row(headers=headers), {}, BinaryMessageFormatV1))
    assert headers.items() <= read.items()


async def test_for_ascii_it_is_what_faststream_writes() -> None:
    headers = {"content-type": "text/plain", "correlation_id": "c", "x": "y"}
    ours = await encode(row(b"body", headers), {}, BinaryMessageFormatV1)
    _, all_headers = BinaryMessageFormatV1.parse(ours)
    theirs = await BinaryMessageFormatV1.encode(
        message=b"body", reply_to=None, headers=all_headers, correlation_id="c", serializer=None
    )
    assert BinaryMessageFormatV1.parse(theirs) == BinaryMessageFormatV1.parse(ours)
    assert len(theirs) == len(ours)


async def test_the_rows_headers_win_over_the_publishers() -> None:
    ours = await encode(row(headers={"x": "row"}), {"x": "publisher", "reply_to": "r"}, BinaryMessageFormatV1)
    _, read = BinaryMessageFormatV1.parse(ours)
    assert (read["x"], read["reply_to"]) == ("row", "r")


class Shouting(MessageFormat):
    @classmethod
    async def encode(cls, *, message: Any, **parts: Any) -> bytes:
        return json.dumps({"message": message.decode().upper(), **parts}).encode()

    @classmethod
    def parse(cls, data: bytes) -> tuple[bytes, dict[str, Any]]:
        raise NotImplementedError


async def test_a_format_of_the_users_own() -> None:
    written = json.loads(await encode(row(b"body", {"correlation_id": "c"}), {}, Shouting))
    assert written["message"] == "BODY"
    assert written["correlation_id"] == "c"
    assert written["headers"]["outbox-id"] == "7"
    with pytest.raises(UnicodeDecodeError):
        await encode(row(b"\xff"), {}, Shouting)


@given(
    headers=st.dictionaries(TEXT.filter(len).map("x-{}".format), TEXT, max_size=8),
    key=st.none() | TEXT.filter(len),
)
def test_a_plain_entry_has_each_header_in_a_field(headers: dict[str, str], key: str | None) -> None:
    fields = [field.decode() for field in fields_of(row(b"", headers, key), {"x": "publisher"})]
    read = dict(zip(fields[::2], fields[1::2], strict=True))
    assert len(read) == len(fields) / 2
    own = {"idempotency-key": "i", "outbox-id": "7", "outbox-queue": "orders"}
    own["outbox-created-at"] = "2026-01-02T00:00:00Z"
    assert read == {"x": "publisher"} | headers | own | ({} if key is None else {"outbox-key": key})


def test_a_header_cannot_take_the_field_of_the_body() -> None:
    with pytest.raises(ValueError, match="a header 'body' cannot stand beside the field of this name"):
        fields_of(row(headers={"body": "x"}), {})


async def test_the_publishers_content_type_is_for_rows_without_one() -> None:
    publishers = {"content-type": "application/x-protobuf"}
    for its_row, expected in ((row(b"\x08"), "application/x-protobuf"), (row(b"7", {"content-type": "a/b"}), "a/b")):
        _, read = BinaryMessageFormatV1.parse(await encode(its_row, publishers, BinaryMessageFormatV1))
        fields = fields_of(its_row, publishers)
        assert read["content-type"] == fields[fields.index(b"content-type") + 1].decode() == expected
