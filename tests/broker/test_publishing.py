"""Messages of a batch share what is said of all of them, and nothing else."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from faststream_outbox import InvalidMessageError, OutboxBroker, Outgoing, TestOutboxBroker

NO_SESSION: Any = None


async def written(broker: OutboxBroker, *messages: Any, **options: Any) -> list[dict[str, str]]:
    """Publish a batch and give the headers of its rows, as far as they are not the same in all of these tests."""
    tester = TestOutboxBroker(broker)
    async with tester:
        await broker.publish_batch(*messages, queue="orders", session=NO_SESSION, correlation_id="c", **options)
    headers = [dict(row.headers) for row in tester.store.rows]
    assert [each.pop("correlation_id") for each in headers] == ["c"] * len(messages)
    return headers


async def test_each_body_keeps_its_content_type(broker: OutboxBroker) -> None:
    assert await written(broker, {"n": 0}, "text", b"bytes", {"n": 1}, headers={"x": "y"}) == [
        {"content-type": "application/json", "x": "y"},
        {"content-type": "text/plain", "x": "y"},
        {"x": "y"},
        {"content-type": "application/json", "x": "y"},
    ]


async def test_own_headers_stay_with_their_message(broker: OutboxBroker) -> None:
    messages = [b"0", Outgoing(b"1", headers={"x": "own", "z": "own"}), Outgoing(b"2", headers={}), b"3"]
    assert await written(broker, *messages, headers={"x": "y"}) == [
        {"x": "y"},
        {"x": "own", "z": "own"},
        {"x": "y"},
        {"x": "y"},
    ]


async def test_without_headers_there_is_only_the_correlation_id(broker: OutboxBroker) -> None:
    assert await written(broker, b"0", Outgoing(b"1", headers={"a": "b"}), b"2") == [{}, {"a": "b"}, {}]


async def test_a_shared_header_that_every_message_replaces_may_be_anything(broker: OutboxBroker) -> None:
    shared: dict[str, Any] = {"x": 5}
    assert await written(broker, Outgoing(b"", headers={"x": "y"}), headers=shared) == [{"x": "y"}]
    with pytest.raises(InvalidMessageError, match="the value of 'x' must be a str, got int"):
        await written(broker, Outgoing(b"", headers={"x": "y"}), b"", headers=shared)


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ({"headers": {"outbox-id": "7"}}, "headers: 'outbox-id' is written by the package"),
        ({"headers": ["x"]}, "headers: must be a mapping"),
        ({"key": ""}, "key: must be 1 to 1024 bytes"),
        ({"key": ["unhashable"]}, "key: must be a str, got list"),
        ({"idempotency_key": "i\x00"}, "idempotency_key: holds a NUL"),
        ({"body": "x" * 2**20 + "x"}, "body: is 1048577 bytes encoded"),
    ],
    ids=repr,
)
async def test_one_bad_message_is_refused_with_all_others(
    broker: OutboxBroker, own: Mapping[str, Any], problem: str
) -> None:
    tester = TestOutboxBroker(broker)
    async with tester:
        with pytest.raises(InvalidMessageError, match=problem):
            await broker.publish_batch(
                "good", Outgoing(**({"body": ""} | own)), "good", queue="orders", session=NO_SESSION
            )
        assert tester.store.rows == []


async def test_each_message_has_an_identity_of_its_own(broker: OutboxBroker) -> None:
    tester = TestOutboxBroker(broker)
    async with tester:
        await broker.publish_batch(*range(50), Outgoing(50, idempotency_key="i"), queue="orders", session=NO_SESSION)
    *made, given = [row.idempotency_key for row in tester.store.rows]
    assert given == "i"
    assert len({UUID(key) for key in made}) == 50
    assert {UUID(key).version for key in made} == {7}
