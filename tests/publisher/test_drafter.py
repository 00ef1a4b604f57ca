"""Bad input is refused with one error that names the argument and its limit; what is accepted can be stored."""

import json
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._store.postgres.writer import headers_json, headers_json_of_each
from faststream_outbox._values.draft import Draft
from faststream_outbox._values.limits import (
    DEFAULT_MAX_PAYLOAD_BYTES,
    MAX_DELAY,
    MAX_HEADER_NAME_BYTES,
    MAX_HEADERS_BYTES,
    MAX_IDEMPOTENCY_KEY_BYTES,
    MAX_KEY_BYTES,
    MAX_QUEUE_BYTES,
    RESERVED_HEADERS,
    check_queue,
)
from faststream_outbox.exceptions import InvalidMessageError, OutboxError
from faststream_outbox.publisher.drafter import Drafter

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LONE_SURROGATE = "a\ud800"


def make(payload: bytes = b"body", **options: Any) -> Draft:
    own = {name: options.pop(name) for name in ("key", "idempotency_key") if name in options}
    content_type = options.pop("content_type", None)
    drafter = Drafter(**({"queue": "q", "max_payload_bytes": DEFAULT_MAX_PAYLOAD_BYTES} | options))
    return drafter.draft(payload, content_type, **own)


def refused(argument: str, **options: Any) -> str:
    with pytest.raises(InvalidMessageError) as caught:
        make(**options)
    assert caught.value.argument == argument
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, OutboxError)
    message = str(caught.value)
    assert message.startswith(f"{argument}: ")
    return message


# --- names and keys

CONTROLS = [*map(chr, range(1, 0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029"]

TEXTS = [
    ("queue", MAX_QUEUE_BYTES),
    ("key", MAX_KEY_BYTES),
    ("idempotency_key", MAX_IDEMPOTENCY_KEY_BYTES),
    ("timer_id", MAX_IDEMPOTENCY_KEY_BYTES),
    ("correlation_id", MAX_IDEMPOTENCY_KEY_BYTES),
]


@pytest.mark.parametrize(("argument", "limit"), TEXTS)
class TestTexts:
    def test_the_limit_itself_is_accepted(self, argument: str, limit: int) -> None:
        make(**{argument: "x" * limit})

    def test_a_byte_more_is_refused_and_the_limit_is_named(self, argument: str, limit: int) -> None:
        message = refused(argument, **{argument: "x" * (limit + 1)})
        assert str(limit) in message
        assert str(limit + 1) in message

    def test_bytes_count_not_characters(self, argument: str, limit: int) -> None:
        refused(argument, **{argument: "é" * (limit // 2 + 1)})

    def test_nothing_is_no_name(self, argument: str, limit: int) -> None:
        assert "got 0" in refused(argument, **{argument: ""})

    @pytest.mark.parametrize("value", [b"bytes", 5, ["list"], 1.5])
    def test_only_text_is_text(self, argument: str, limit: int, value: object) -> None:
        assert f"must be a str, got {type(value).__name__}" in refused(argument, **{argument: value})

    def test_postgresql_stores_no_nul(self, argument: str, limit: int) -> None:
        assert "NUL" in refused(argument, **{argument: "a\x00b"})

    def test_a_lone_surrogate_is_no_text(self, argument: str, limit: int) -> None:
        assert "lone surrogate at position 1" in refused(argument, **{argument: LONE_SURROGATE})

    @pytest.mark.parametrize("character", CONTROLS, ids=ascii)
    def test_nothing_that_could_look_like_another_line_of_a_log(
        self, argument: str, limit: int, character: str
    ) -> None:
        for value, position in ((f"a{character}b", 1), (f"é{character}", 1), (character, 0)):
            message = refused(argument, **{argument: value})
            assert f"the control character U+{ord(character):04X} at position {position}" in message
            assert character not in message

    def test_every_other_character_is_a_letter_of_a_name(self, argument: str, limit: int) -> None:
        make(**{argument: " ~\xa0é\u200d\u202f\ufeff😀"})


def test_a_queue_must_be_given() -> None:
    assert "got NoneType" in refused("queue", queue=None)


def test_a_queue_can_be_checked_alone() -> None:
    check_queue("q")
    with pytest.raises(InvalidMessageError, match="queue: must be 1 to 255 bytes"):
        check_queue("")


def test_parts_that_are_not_given_stay_away() -> None:
    draft = make()
    assert (draft.key, draft.timer_id, draft.activate_in, draft.activate_at) == (None, None, None, None)
    assert draft.headers == {}


# --- the identity


def test_a_given_idempotency_key_is_kept_and_deduplicates() -> None:
    draft = make(idempotency_key="mine")
    assert (draft.idempotency_key, draft.deduplicate) == ("mine", True)


def test_without_one_each_message_gets_a_uuid7() -> None:
    first, second = make(), make()
    assert UUID(first.idempotency_key).version == 7
    assert first.idempotency_key != second.idempotency_key
    assert first.deduplicate is False


# --- the body


def test_a_body_of_the_limit_is_accepted() -> None:
    assert make(b"x" * 10, max_payload_bytes=10).payload == b"x" * 10
    assert make(b"", max_payload_bytes=10).payload == b""


def test_a_larger_body_is_refused_and_the_option_is_named() -> None:
    message = refused("body", payload=b"x" * 11, max_payload_bytes=10)
    assert "11" in message
    assert "max_payload_bytes is 10" in message


# --- headers


def test_headers_are_kept_beside_content_type_and_correlation_id() -> None:
    draft = make(content_type="application/json", headers={"traceparent": "00"}, correlation_id="c")
    assert draft.headers == {"content-type": "application/json", "traceparent": "00", "correlation_id": "c"}


def test_the_callers_content_type_wins() -> None:
    assert make(content_type="a/b", headers={"content-type": "c/d"}).headers == {"content-type": "c/d"}


def test_the_callers_headers_are_copied() -> None:
    headers = {"a": "b"}
    draft = make(headers=headers)
    headers["a"] = "changed"
    assert draft.headers == {"a": "b"}


def test_headers_that_drafts_share_are_written_once() -> None:
    drafter = Drafter(queue="q", max_payload_bytes=DEFAULT_MAX_PAYLOAD_BYTES, correlation_id="c")
    first, equal = drafter.draft(b"", None, headers={"a": "b"}), drafter.draft(b"", None, headers={"a": "b"})
    own = drafter.draft(b"", "text/plain", headers={"ü": '"'})
    assert headers_json_of_each([first, own, first, equal, own]) == (
        '{"a":"b","correlation_id":"c"}',
        [
            None,
            '{"content-type":"text/plain","ü":"\\"","correlation_id":"c"}',
            None,
            '{"a":"b","correlation_id":"c"}',
            '{"content-type":"text/plain","ü":"\\"","correlation_id":"c"}',
        ],
    )


@pytest.mark.parametrize("headers", [[("a", "b")], "a=b", 5, [], "", 0])
def test_headers_must_be_a_mapping(headers: object) -> None:
    assert f"got {type(headers).__name__}" in refused("headers", headers=headers)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(5, "int"), (1.5, "float"), (float("nan"), "float (NaN)"), (None, "NoneType"), (b"b", "bytes"), ({}, "dict")],
)
def test_a_header_value_must_be_text(value: object, shown: str) -> None:
    message = refused("headers", headers={"good": "x", "bad": value})
    assert f"the value of 'bad' must be a str, got {shown}" in message


@pytest.mark.parametrize(("value", "problem"), [("a\x00", "NUL"), (LONE_SURROGATE, "lone surrogate at position 1")])
def test_a_header_value_must_be_storable(value: str, problem: str) -> None:
    message = refused("headers", headers={"bad": value})
    assert problem in message
    assert "the value of 'bad'" in message


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "got 0"),
        ("x" * (MAX_HEADER_NAME_BYTES + 1), f"1 to {MAX_HEADER_NAME_BYTES} bytes"),
        ("é" * (MAX_HEADER_NAME_BYTES // 2 + 1), f"1 to {MAX_HEADER_NAME_BYTES} bytes"),
        ("a\x00", "NUL"),
        (LONE_SURROGATE, "lone surrogate"),
        (5, "must be a str, got int"),
        (None, "must be a str, got NoneType"),
    ],
    ids=repr,
)
def test_a_header_name_must_be_a_name(name: object, problem: str) -> None:
    message = refused("headers", headers={name: "x"})
    assert problem in message
    assert "a header name" in message


def test_a_header_name_of_the_limit_is_accepted() -> None:
    make(headers={"x" * MAX_HEADER_NAME_BYTES: ""})


def test_headers_together_have_a_limit() -> None:
    make(headers={"a": "x" * (MAX_HEADERS_BYTES - 1)})
    message = refused("headers", headers={"a": "x" * MAX_HEADERS_BYTES})
    assert str(MAX_HEADERS_BYTES) in message
    assert str(MAX_HEADERS_BYTES + 1) in message
    many = {f"{n:04}": "x" * 28 for n in range(MAX_HEADERS_BYTES // 32)}
    make(headers=many)
    refused("headers", headers=many | {"one": "more"})


@pytest.mark.parametrize("name", sorted(RESERVED_HEADERS))
def test_headers_that_the_bridge_writes_are_refused(name: str) -> None:
    steps = {
        "idempotency-key": "give idempotency_key= instead",
        "message_id": "give idempotency_key= instead",
        "correlation_id": "give correlation_id= instead",
        "outbox-key": "give key= instead",
    }
    step = steps.get(name, "leave it out, or choose another name")
    assert refused("headers", headers={name: "x"}).endswith(f"'{name}' is written by the package itself; {step}")


@pytest.mark.parametrize("name", ["reply_to", "Reply_To", "REPLY_TO"])
@pytest.mark.parametrize("headers", [{}, {"é": "x"}, {"reply_to_all": "x"}])
def test_a_header_by_which_a_consumer_would_publish_is_refused(name: str, headers: dict[str, str]) -> None:
    message = refused("headers", headers=headers | {name: "victim"})
    assert f"'{name}' tells a FastStream consumer where to publish what its handler returns" in message
    assert "give reply_to= to the forwarder's publisher" in message


def test_headers_that_only_look_like_it_are_taken() -> None:
    headers = {"reply_to_all": "reply_to", "reply-to": "x", "my_reply_to": "x", "Idempotency-Key": "x"}
    assert make(headers=headers).headers == headers


def test_header_values_may_have_several_lines() -> None:
    make(headers={"traceback": "a\nb\u2028"})


# --- time


@pytest.mark.parametrize("delay", [timedelta(0), timedelta(microseconds=1), MAX_DELAY])
def test_a_delay_within_the_limits_is_kept(delay: timedelta) -> None:
    assert make(activate_in=delay).activate_in == delay


@pytest.mark.parametrize("delay", [timedelta(microseconds=-1), MAX_DELAY + timedelta(microseconds=1)])
def test_a_delay_outside_of_them_is_refused(delay: timedelta) -> None:
    assert f"between 0 and {MAX_DELAY.days} days" in refused("activate_in", activate_in=delay)


@pytest.mark.parametrize("delay", [5, 5.0, "5s"])
def test_a_delay_is_a_timedelta(delay: object) -> None:
    assert f"must be a timedelta, got {type(delay).__name__}" in refused("activate_in", activate_in=delay)


@pytest.mark.parametrize(
    "moment",
    [NOON, NOON.astimezone(timezone(timedelta(hours=5, minutes=30))), NOON - timedelta(days=10_000)],
)
def test_an_aware_time_is_kept(moment: datetime) -> None:
    assert make(activate_at=moment).activate_at == moment


def test_a_naive_time_is_refused() -> None:
    message = refused("activate_at", activate_at=NOON.replace(tzinfo=None))
    assert "timezone-aware" in message
    assert "2026-01-01T12:00:00" in message


class Nowhere(tzinfo):
    """A time zone that does not know how far it is from UTC."""

    def utcoffset(self, _moment: datetime | None) -> timedelta | None:
        return None


def test_a_time_whose_zone_has_no_offset_is_naive() -> None:
    assert "timezone-aware" in refused("activate_at", activate_at=NOON.replace(tzinfo=Nowhere()))


@pytest.mark.parametrize("moment", [NOON.date(), "2026-01-01T12:00:00Z", 1.0])
def test_a_time_is_a_datetime(moment: object) -> None:
    assert f"must be a datetime, got {type(moment).__name__}" in refused("activate_at", activate_at=moment)


@pytest.mark.parametrize(
    "moment",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ],
    ids=["late", "early"],
)
def test_a_time_that_utc_cannot_write_is_refused(moment: datetime) -> None:
    assert "years 1 to 9999 in UTC" in refused("activate_at", activate_at=moment)


def test_one_time_is_enough() -> None:
    message = refused("activate_in", activate_in=timedelta(0), activate_at=NOON)
    assert "activate_in or activate_at, not both" in message


# --- whatever is accepted

anything = st.text(st.characters(codec=None, categories=None), max_size=40) | st.none() | st.integers() | st.binary()
messages = st.fixed_dictionaries(
    {},
    optional={
        "queue": anything,
        "key": anything,
        "idempotency_key": anything,
        "timer_id": anything,
        "correlation_id": anything,
        "headers": st.dictionaries(anything, anything, max_size=4),
        "activate_in": st.timedeltas(timedelta(days=-1), timedelta(days=5000)) | st.none() | st.integers(),
        "activate_at": st.datetimes(timezones=st.none() | st.timezones()) | st.none(),
    },
)


def accepted(options: dict[str, Any], payload: bytes) -> Draft | None:
    try:
        return make(payload, **options)
    except InvalidMessageError as refusal:
        argument = refusal.argument
    # Nothing is refused for what was not given.
    assert argument in options
    return None


def is_storable(text: str) -> bool:
    return "\x00" not in text and text == text.encode().decode()


@given(messages, st.binary(max_size=40))
def test_whatever_is_accepted_can_be_stored(options: dict[str, Any], payload: bytes) -> None:
    draft = accepted(options, payload)
    if draft is None:
        return
    for text in (draft.queue, draft.key, draft.idempotency_key, draft.timer_id):
        assert text is None or (is_storable(text) and text != "")
    assert len(draft.queue.encode()) <= MAX_QUEUE_BYTES
    # JSON as jsonb takes it: text alone, no NaN, no NUL, no lone surrogate.
    text = headers_json(draft.headers)
    assert json.loads(text) == draft.headers
    assert "\\u0000" not in text
    assert is_storable(text)
    assert all(isinstance(value, str) for value in draft.headers.values())
    assert draft.activate_at is None or draft.activate_at.astimezone(UTC).year > 0
    assert draft.activate_in is None or timedelta(0) <= draft.activate_in <= MAX_DELAY


# --- timers that are published again


def test_a_timer_takes_the_place_of_a_live_one_only_where_that_is_asked_for() -> None:
    assert not make(timer_id="t").moves_timer
    assert not make(timer_id="t", timer_conflict="keep").moves_timer
    assert make(timer_id="t", timer_conflict="extend").moves_timer


def test_what_cannot_become_of_a_timer() -> None:
    assert "'keep' or 'extend', got 'replace'" in refused("timer_conflict", timer_id="t", timer_conflict="replace")
    assert "needs a timer_id" in refused("timer_conflict", timer_conflict="extend")
    with pytest.raises(
        InvalidMessageError, match=r"^timer_conflict: 'extend' and an idempotency_key exclude each other"
    ):
        Drafter(queue="q", max_payload_bytes=1, timer_id="t", timer_conflict="extend", idempotency_key="i")
