"""What the user's function may say of a message, and what becomes of one that it fails for."""

import functools
from typing import Any

import pytest
from faststream.kafka import KafkaBroker
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import ConfigError, Forward, OutboxBroker, OutboxMessage, OutboxRow, make_outbox_table
from faststream_outbox._values.outcome import Dropped, Refused
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.transform import Preparer
from tests.rows import make_row

ROW = make_row(
    7,
    key="k",
    idempotency_key="once",
    payload=b'{"id": 1}',
    headers={"content-type": "application/json", "correlation_id": "c", "country": "de", "size": "5 µm"},
    attempts_count=2,
    deliveries=0,
)


def prepared(change: Any) -> Any:
    return Preparer(lambda message: change)(ROW)


def sent_row(change: Forward) -> OutboxRow:
    result = prepared(change)
    assert isinstance(result, Parcel)
    return result.row


def test_it_sees_the_message_as_a_subscriber_would() -> None:
    seen: list[OutboxMessage] = []

    def look(message: OutboxMessage) -> Forward:
        seen.append(message)
        return Forward()

    assert Preparer(look)(ROW) == Parcel(ROW)
    [message] = seen
    assert (message.body, message.queue, message.key, message.row_id) == (b'{"id": 1}', "orders", "k", 7)
    assert (message.idempotency_key, message.correlation_id, message.attempts_count) == ("once", "c", 2)
    assert message.headers["country"] == "de"
    assert message.headers["idempotency-key"] == "once"


def test_without_changes_the_row_is_sent_as_it_is() -> None:
    parcel = prepared(Forward())
    assert parcel.row is ROW
    assert parcel.address is None


def test_none_drops_the_message() -> None:
    assert prepared(None) == Dropped()


def test_another_address() -> None:
    assert prepared(Forward(to="orders.de")) == Parcel(ROW, "orders.de")


@pytest.mark.parametrize("key", ["other", None])
def test_another_key(key: str | None) -> None:
    row = sent_row(Forward(key=key))
    assert row.key == key
    assert (row.id, row.payload, row.idempotency_key, row.headers) == (7, ROW.payload, "once", ROW.headers)


def test_headers_are_put_over_those_of_the_message() -> None:
    row = sent_row(Forward(headers={"country": None, "region": "de", "size": "6 µm", "content-type": "text/plain"}))
    assert row.headers == {"content-type": "text/plain", "correlation_id": "c", "size": "6 µm", "region": "de"}
    assert ROW.headers["country"] == "de"


def test_a_header_that_is_not_there_can_be_removed() -> None:
    assert sent_row(Forward(headers={"unknown": None})).headers == ROW.headers


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (Forward(key=""), "key: must be 1 to 1024 bytes"),
        (Forward(key=7), "key: must be a str, got int"),  # type: ignore[arg-type]
        (Forward(key="a\x00b"), "key: holds a NUL"),
        (Forward(to=""), "to: must be 1 to 1024 bytes"),
        (Forward(to=b"x"), "to: must be a str, got bytes"),  # type: ignore[arg-type]
        (Forward(headers={"n": 5}), "headers: the value of 'n' must be a str, got int"),  # type: ignore[dict-item]
        (Forward(headers={"": "x"}), "headers: a header name must be 1 to 255 bytes"),
        (Forward(headers={"n": "\ud800"}), "lone surrogate"),
        (Forward(headers={"n": "x" * 40_000}), "the limit is 32768"),
        (Forward(headers={"idempotency-key": "x"}), "'idempotency-key' is written by the package itself; leave it out"),
        (Forward(headers={"correlation_id": None}), "'correlation_id' is written by the package itself; leave it out"),
        (Forward(headers={"outbox-key": "x"}), "'outbox-key' is written by the package itself; give key= instead"),
        (Forward(headers=[1]), "TypeError"),  # type: ignore[arg-type]
        ({"key": "x"}, "transform must return a Forward or None, got dict"),
        (Parcel(ROW), "got Parcel"),
        (True, "got bool"),
    ],
)
def test_what_no_message_could_be_is_refused(change: Any, problem: str) -> None:
    refused = prepared(change)
    assert isinstance(refused, Refused)
    assert problem in f"{type(refused.exception).__name__}: {refused.exception}"


def test_an_exception_is_the_failure_of_the_row() -> None:
    def fail(message: OutboxMessage) -> Forward:
        return Forward(key=message.headers["no such header"])

    refused = Preparer(fail)(ROW)
    assert isinstance(refused, Refused)
    assert isinstance(refused.exception, KeyError)


async def to_be_awaited(message: OutboxMessage) -> Forward:
    return Forward()


class Callee:
    async def __call__(self, message: OutboxMessage) -> Forward:
        return Forward()


@pytest.fixture
def broker() -> OutboxBroker:
    engine = create_async_engine("postgresql+asyncpg://database.invalid/shop")
    return OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()))


@pytest.mark.parametrize("transform", [to_be_awaited, functools.partial(to_be_awaited), Callee(), Callee().__call__])
def test_an_async_function_is_refused_where_it_is_declared(broker: OutboxBroker, transform: Any) -> None:
    with pytest.raises(ConfigError, match=r"must be a plain function, .* is async; to await something"):
        broker.forwarder("orders", to=KafkaBroker().publisher("orders"), transform=transform)
    assert broker.forwarders == []


def test_what_cannot_be_called_is_refused(broker: OutboxBroker) -> None:
    transform: Any = Forward()
    with pytest.raises(ConfigError, match="must be a function of an OutboxMessage, got Forward"):
        broker.forwarder("orders", to=KafkaBroker().publisher("orders"), transform=transform)


def test_a_coroutine_that_comes_out_after_all_is_the_failure_of_the_row() -> None:
    def hidden(message: OutboxMessage) -> Any:
        return to_be_awaited(message)

    refused = Preparer(hidden)(ROW)
    assert isinstance(refused, Refused)
    assert "got coroutine" in str(refused.exception)


def test_a_reserved_header_that_a_row_has_already_is_not_held_against_its_changes() -> None:
    row = ROW._replace(headers={"reply_to": "x", "a": "b"})
    parcel = Preparer(lambda _message: Forward(headers={"c": "d"}))(row)
    assert isinstance(parcel, Parcel)
    assert parcel.row.headers["c"] == "d"
    assert isinstance(Preparer(lambda _message: Forward(headers={"Reply_To": "x"}))(row), Refused)


def test_a_key_from_before_control_characters_were_refused_is_still_sent() -> None:
    assert sent_row(Forward(key="a\nb")).key == "a\nb"


def test_headers_of_message_and_change_are_bounded_together() -> None:
    row = ROW._replace(headers={"large": "x" * 32_000})
    assert isinstance(Preparer(lambda _: Forward(headers={"more": "y" * 500}))(row), Parcel)
    refused = Preparer(lambda _: Forward(headers={"more": "y" * 1000}))(row)
    assert isinstance(refused, Refused)
    assert "the limit is 32768" in str(refused.exception)
