"""What a handler's result inherits from the message that was handled, and through which middlewares it goes."""

from typing import Any

from faststream import BaseMiddleware, Response
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.kafka.annotations import KafkaMessage

from faststream_outbox import OutboxBroker, OutboxResponse, TestOutboxBroker
from faststream_outbox.annotations import OutboxMessage
from faststream_outbox.subscriber.inheritance import inherited_headers
from tests.rows import make_row

NO_SESSION: Any = None


async def test_a_response_has_the_content_type_of_its_own_body(engine: Any, outbox_table: Any) -> None:
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    seen: list[tuple[str | None, str]] = []

    @broker.subscriber("in", propagate_inbound_headers=True)
    async def handle(body: dict[str, int]) -> OutboxResponse:
        return OutboxResponse("plain", queue="out", session=NO_SESSION)

    @broker.subscriber("out")
    async def look(body: str, message: OutboxMessage) -> None:
        seen.append((message.content_type, message.headers["tenant"]))

    async with TestOutboxBroker(broker):
        await broker.publish({"id": 1}, queue="in", session=NO_SESSION, headers={"tenant": "t"})
    assert seen == [("text/plain", "t")]


async def test_a_response_passes_the_middlewares_in_the_order_of_any_message(engine: Any, outbox_table: Any) -> None:
    seen: list[str] = []

    def named(name: str) -> type[BaseMiddleware]:
        class Named(BaseMiddleware):
            async def publish_scope(self, call_next: Any, cmd: Any) -> Any:
                seen.append(f"{name} to {cmd.destination}")
                return await call_next(cmd)

        return Named

    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None, middlewares=[named("outer"), named("inner")])

    @broker.subscriber("in")
    async def handle(body: int) -> OutboxResponse:
        return OutboxResponse(body, queue="out", session=NO_SESSION)

    async with TestOutboxBroker(broker):
        await broker.publish(1, queue="in", session=NO_SESSION)
    assert seen == ["outer to in", "inner to in", "outer to out", "inner to out"]


async def test_headers_of_the_handlers_own_response_win(engine: Any, outbox_table: Any) -> None:
    broker, kafka = OutboxBroker(engine, outbox_table=outbox_table, logger=None), KafkaBroker()
    seen: list[tuple[str, str]] = []

    @kafka.publisher("out")
    @broker.subscriber("in", propagate_inbound_headers=True)
    async def handle(body: int) -> Response:
        return Response(body, headers={"tenant": "own"})

    @kafka.subscriber("out")
    async def look(body: int, message: KafkaMessage) -> None:
        seen.append((message.headers["tenant"], message.headers["trace"]))

    async with TestKafkaBroker(kafka), TestOutboxBroker(broker):
        await broker.publish(1, queue="in", session=NO_SESSION, headers={"tenant": "inbound", "trace": "t"})
    assert seen == [("own", "t")]


async def test_the_messages_of_a_batch_do_not_share_one_identity(engine: Any, outbox_table: Any) -> None:
    broker, kafka = OutboxBroker(engine, outbox_table=outbox_table, logger=None), KafkaBroker()
    seen: list[list[str]] = []

    @kafka.publisher("out", batch=True)
    @broker.subscriber("in")
    async def handle(body: int) -> tuple[int, int]:
        return body, body + 1

    @kafka.subscriber("out", batch=True)
    async def look(bodies: list[int], message: KafkaMessage) -> None:
        seen.append(sorted(message.headers))

    async with TestKafkaBroker(kafka), TestOutboxBroker(broker):
        await broker.publish(1, queue="in", session=NO_SESSION)
    [names] = seen
    assert "idempotency-key" not in names


def test_a_row_written_by_sql_does_not_say_where_the_result_goes() -> None:
    """As a caller's header the name is refused: a handler whose result inherits it would fail each time."""
    row = make_row(
        7,
        idempotency_key="once",
        headers={"reply_to": "victim", "Reply_To": "victim", "message_id": "x", "content-type": "text/plain", "a": "b"},
        deliveries=0,
    )
    assert inherited_headers(row) == {"a": "b"}
