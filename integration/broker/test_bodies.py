"""What is published is what a handler receives."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from faststream_outbox import OutboxBroker, OutboxMessage
from faststream_outbox.annotations import OutboxMessage as Message

from .conftest import MakeBroker
from .observing import Inbox, Table, eventually


class Order(BaseModel):
    id: UUID
    at: datetime
    lines: list[dict[str, int]]


@dataclass
class Point:
    x: int
    y: float


ORDER = Order(id=UUID(int=7), at=datetime(2030, 1, 2, tzinfo=UTC), lines=[{"é": 1}])

# The body; the handler's annotation; what the handler gets, if it is not the body.
BODIES: dict[str, tuple[Any, Any, Any]] = {
    "bytes": (b"\x00\xff\xfe", bytes, b"\x00\xff\xfe"),
    "empty bytes": (b"", bytes, b""),
    "str": ("é\n", str, "é\n"),
    "empty str": ("", str, ""),
    "str of digits": ("007", str, "007"),
    "dict": ({"a": [1, None, {"b": True}]}, dict[str, Any], {"a": [1, None, {"b": True}]}),
    "empty dict": ({}, dict[str, Any], {}),
    "list": ([1, 2], list[int], [1, 2]),
    "int": (0, int, 0),
    "model": (ORDER, Order, ORDER),
    "model as dict": (ORDER, dict[str, Any], ORDER.model_dump(mode="json")),
    "dataclass": (Point(1, 0.5), Point, Point(1, 0.5)),
    "None": (None, Any, b""),
}


@pytest.fixture(params=BODIES.values(), ids=BODIES.keys())
def case(request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    return request.param


async def test_a_body_arrives_as_it_was_published(
    broker: OutboxBroker, session: AsyncSession, inbox: Inbox, table: Table, case: tuple[Any, Any, Any]
) -> None:
    body, annotation, expected = case
    raw: list[bytes] = []

    async def handle(body: Any, message: Message) -> None:
        raw.append(message.body)
        inbox.add(body)

    handle.__annotations__["body"] = annotation
    broker.subscriber("bodies")(handle)
    await broker.start()
    await broker.publish(body, queue="bodies", session=session)
    await broker.publish_batch(body, queue="bodies", session=session)
    written = [row.payload for row in await broker.fetch_unprocessed(session=session)]
    await session.commit()
    assert await inbox.wait_for(2) == [expected, expected]
    assert raw == written, "byte for byte"
    await eventually(table.is_empty)


async def _both_are_parked(table: Table) -> bool:
    return await table.count("failed_at IS NOT NULL") == 2


async def test_a_body_that_does_not_fit_the_handler_is_a_dead_letter_after_one_attempt(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    @broker.subscriber("bodies")
    async def handle(body: int) -> None: ...

    await broker.start()
    for body in ({"not": "an int"}, b"{"):
        await broker.publish(body, queue="bodies", session=session)
    await session.commit()
    await eventually(lambda: _both_are_parked(table))
    first, second = sorted(await broker.dead_letters.list(queue="bodies"), key=lambda letter: letter.row.id)
    assert (first.row.attempts_count, first.reason) == (1, "invalid_body")
    assert "ValidationError" in (first.exception or "")
    assert second.row.deliveries_count == 1


async def test_a_body_that_does_not_fit_is_a_failed_attempt_where_that_is_wanted(
    broker: OutboxBroker, session: AsyncSession, table: Table
) -> None:
    @broker.subscriber("bodies", retry_validation_errors=True)
    async def handle(body: int) -> None: ...

    await broker.start()
    await broker.publish({"not": "an int"}, queue="bodies", session=session)
    await session.commit()
    await eventually(lambda: table.count("attempts_count = 1 AND last_exception LIKE '%ValidationError%'"))


class Reversed:
    """A codec that turns the bytes around."""

    async def encode(self, msg: Any, serializer: Any = None) -> tuple[bytes, str | None]:
        return str(msg).encode()[::-1], "text/reversed"

    async def decode(self, msg: Any) -> Any:
        return msg.body[::-1].decode()


@pytest.mark.parametrize("where", ["broker", "subscriber"])
async def test_a_codec_encodes_at_publish_and_decodes_before_the_handler(
    make_broker: MakeBroker, session: AsyncSession, inbox: Inbox, table: Table, where: str
) -> None:
    broker = make_broker(codec=Reversed())
    reader = broker if where == "broker" else make_broker()

    @reader.subscriber("bodies", codec=None if where == "broker" else Reversed())
    async def handle(body: str) -> None:
        inbox.add(body)

    await broker.publish("abc", queue="bodies", session=session)
    await session.commit()
    (row,) = await table.rows()
    assert (bytes(row.payload), row.headers["content-type"]) == (b"cba", "text/reversed")
    await reader.start()
    assert await inbox.wait_for(1) == ["abc"]


@pytest.mark.parametrize("where", ["broker", "subscriber", "handler"])
async def test_parsers_and_decoders_of_the_user_wrap_ours(
    make_broker: MakeBroker, session: AsyncSession, inbox: Inbox, where: str
) -> None:
    async def parse(delivery: Any, original: Callable[[Any], Any]) -> OutboxMessage:
        message: OutboxMessage = await original(delivery)
        message.headers["parsed"] = "yes"
        return message

    async def decode(message: OutboxMessage, original: Callable[[Any], Any]) -> Any:
        return {"decoded": await original(message), "parsed": message.headers["parsed"]}

    custom = {"parser": parse, "decoder": decode}
    broker = make_broker(**custom if where == "broker" else {})
    subscriber = broker.subscriber("bodies", **custom if where == "subscriber" else {})

    @subscriber(**custom if where == "handler" else {})
    async def handle(body: dict[str, Any]) -> None:
        inbox.add(body)

    await broker.start()
    await broker.publish([1], queue="bodies", session=session)
    await session.commit()
    assert await inbox.wait_for(1) == [{"decoded": [1], "parsed": "yes"}]
