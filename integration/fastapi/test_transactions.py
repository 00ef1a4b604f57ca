"""Orders and messages commit together or not at all: in HTTP routes, and in subscribers with what they publish on."""

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import Depends, HTTPException
from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import ConstantRetry, NoRetry
from faststream_outbox.fastapi import OutboxBroker, OutboxMessage, OutboxResponse, OutboxRouter

from .shop import Order, OrderIn, Receipt, Shop, app_of, client_of, eventually, serving

QUICKLY = ConstantRetry(delay_seconds=0.02)


class OutOfStock(Exception):
    pass


async def test_a_fresh_session_for_each_delivery(router: OutboxRouter, shop: Shop) -> None:
    seen: list[tuple[AsyncSession, bool]] = []

    @router.subscriber("orders", max_workers=4)
    async def handle(body: str, session: AsyncSession = Depends(shop.get_session)) -> None:
        seen.append((session, session.in_transaction()))
        await shop.add_order(session, body)

    async with serving(app_of(router)):
        async with shop.engine.begin() as connection:
            await router.broker.publish_batch(*"abcdefgh", queue="orders", session=connection)
        await eventually(shop.items, lambda items: sorted(items) == list("abcdefgh"))

    assert all(in_transaction for _, in_transaction in seen)
    assert len({id(session) for session, _ in seen}) == 8


async def test_what_the_handler_wrote_is_rolled_back_when_it_raises(
    router: OutboxRouter, shop: Shop, outbox_table: Table
) -> None:
    attempts: list[int] = []

    @router.subscriber("orders", retry_strategy=QUICKLY)
    async def handle(body: str, message: OutboxMessage, session: AsyncSession = Depends(shop.get_session)) -> None:
        attempts.append(message.attempts_count)
        await shop.add_order(session, f"{body} {len(attempts)}")
        if len(attempts) < 3:
            raise OutOfStock

    async with serving(app_of(router)):
        async with shop.engine.begin() as connection:
            await router.broker.publish("tea", queue="orders", session=connection)
        await eventually(lambda: shop.count(outbox_table), lambda rows: rows == 0)

    assert attempts == [0, 1, 2]
    assert await shop.items() == ["tea 3"]


async def test_a_chained_publish_is_rolled_back_with_the_handler(
    router: OutboxRouter, shop: Shop, outbox_table: Table
) -> None:
    @router.subscriber("orders", retry_strategy=NoRetry())
    async def handle(body: str, broker: OutboxBroker, session: AsyncSession = Depends(shop.get_session)) -> None:
        await shop.add_order(session, body)
        await broker.publish(body, queue="invoices", session=session)
        raise OutOfStock

    async with serving(app_of(router)):
        async with shop.engine.begin() as connection:
            await router.broker.publish("tea", queue="orders", session=connection)
        await eventually(lambda: _failed(shop, outbox_table), lambda rows: len(rows) == 1)

    assert await shop.items() == []
    assert await _failed(shop, outbox_table) == ["orders"]
    # The row that failed, parked, and none for the invoice.
    assert await shop.count(outbox_table) == 1


async def test_a_response_commits_with_the_handlers_writes(
    router: OutboxRouter, shop: Shop, outbox_table: Table
) -> None:
    correlation_ids: list[str | None] = []

    @router.subscriber("orders")
    async def handle(
        body: str, message: OutboxMessage, session: AsyncSession = Depends(shop.get_session)
    ) -> OutboxResponse:
        correlation_ids.append(message.correlation_id)
        await shop.add_order(session, body)
        return OutboxResponse({"item": body}, queue="invoices", session=session, key="customer-7")

    @router.subscriber("invoices")
    async def invoice(
        body: dict[str, str], message: OutboxMessage, session: AsyncSession = Depends(shop.get_session)
    ) -> None:
        correlation_ids.append(message.correlation_id)
        session.add(Receipt(note=f"{body['item']} for {message.key}"))

    async with serving(app_of(router)):
        async with shop.engine.begin() as connection:
            await router.broker.publish("tea", queue="orders", session=connection, correlation_id="c-1")
        await eventually(shop.notes, lambda notes: notes == ["tea for customer-7"])
        await eventually(lambda: shop.count(outbox_table), lambda rows: rows == 0)

    assert await shop.items() == ["tea"]
    assert correlation_ids == ["c-1", "c-1"]


async def test_a_response_is_in_the_handlers_transaction(router: OutboxRouter, shop: Shop, outbox_table: Table) -> None:
    """Seen from inside, where the session closes: the row is there, and for nobody else yet."""
    seen: list[tuple[int, int]] = []

    async def get_session() -> Any:
        async with AsyncSession(shop.engine) as session, session.begin():
            yield session
            rows = select(outbox_table.c.id).where(outbox_table.c.queue == "invoices")
            inside = len((await session.scalars(rows)).all())
            async with shop.engine.connect() as other:
                seen.append((inside, len((await other.scalars(rows)).all())))

    @router.subscriber("orders")
    async def handle(body: str, session: AsyncSession = Depends(get_session)) -> OutboxResponse:
        return OutboxResponse(body, queue="invoices", session=session)

    async with serving(app_of(router)):
        async with shop.engine.begin() as connection:
            await router.broker.publish("tea", queue="orders", session=connection)
        await eventually(lambda: _queues(shop, outbox_table), lambda queues: queues == ["invoices"])

    assert seen == [(1, 0)]


async def test_a_response_goes_with_the_transaction_when_the_commit_fails(
    router: OutboxRouter, shop: Shop, outbox_table: Table
) -> None:
    attempts: list[None] = []

    async def get_session() -> Any:
        async with AsyncSession(shop.engine, expire_on_commit=False) as session, session.begin():
            yield session
            # After the handler has returned and its response was written.
            if len(attempts) == 1:
                raise OutOfStock

    @router.subscriber("orders", retry_strategy=QUICKLY)
    async def handle(body: str, session: AsyncSession = Depends(get_session)) -> OutboxResponse:
        attempts.append(None)
        await shop.add_order(session, f"{body} {len(attempts)}")
        return OutboxResponse(f"{body} {len(attempts)}", queue="invoices", session=session)

    async with serving(app_of(router)):
        async with shop.engine.begin() as connection:
            await router.broker.publish("tea", queue="orders", session=connection)
        await eventually(lambda: _queues(shop, outbox_table), lambda queues: queues == ["invoices"])

    assert await shop.items() == ["tea 2"]


async def test_a_refused_response_rolls_the_handler_back(router: OutboxRouter, shop: Shop, outbox_table: Table) -> None:
    @router.subscriber("orders", retry_strategy=NoRetry())
    async def handle(body: str, session: AsyncSession = Depends(shop.get_session)) -> OutboxResponse:
        await shop.add_order(session, body)
        return OutboxResponse(body, queue="", session=session)

    async with serving(app_of(router)):
        async with shop.engine.begin() as connection:
            await router.broker.publish("tea", queue="orders", session=connection)
        await eventually(lambda: _failed(shop, outbox_table), lambda rows: rows == ["orders"])

    assert await shop.items() == []


async def test_a_route_that_raises_leaves_neither_order_nor_row(
    router: OutboxRouter, shop: Shop, outbox_table: Table
) -> None:
    @router.post("/orders")
    async def create(
        order: OrderIn, broker: OutboxBroker, session: AsyncSession = Depends(shop.get_session)
    ) -> dict[str, int]:
        row = await shop.add_order(session, order.item)
        await broker.publish({"id": row.id}, queue="orders", session=session)
        if order.quantity == 0:
            raise HTTPException(409, "nothing ordered")
        if order.quantity < 0:
            raise OutOfStock
        return {"id": row.id}

    async with serving(app := app_of(router)), client_of(app, raise_app_exceptions=False) as client:
        refused = await client.post("/orders", json={"item": "nothing", "quantity": 0})
        failed = await client.post("/orders", json={"item": "less", "quantity": -1})
        taken = await client.post("/orders", json={"item": "tea"})

    assert [response.status_code for response in (refused, failed, taken)] == [409, 500, 200]
    assert await shop.items() == ["tea"]
    assert await _queues(shop, outbox_table) == ["orders"]


async def test_bad_input_leaves_the_routes_transaction_usable(
    router: OutboxRouter, shop: Shop, outbox_table: Table
) -> None:
    @router.post("/orders")
    async def create(broker: OutboxBroker, session: AsyncSession = Depends(shop.get_session)) -> str:
        await shop.add_order(session, "tea")
        with pytest.raises(ValueError, match="queue") as refusal:
            await broker.publish({}, queue="", session=session)
        return str(refusal.value)

    async with serving(app_of(router)) as client:
        assert (await client.post("/orders")).status_code == 200

    assert await shop.items() == ["tea"]
    assert await shop.count(outbox_table) == 0


@pytest.mark.parametrize("scope", ["function", "request"])
async def test_the_scopes_of_a_dependency(router: OutboxRouter, shop: Shop, scope: Any) -> None:
    """`scope="function"` commits before the response is sent: the client that has its answer finds its order."""

    @router.subscriber("orders")
    async def handle(body: str, session: AsyncSession = Depends(shop.get_session, scope=scope)) -> None:
        session.add(Receipt(note=body))

    @router.post("/orders")
    async def create(
        order: OrderIn, broker: OutboxBroker, session: AsyncSession = Depends(shop.get_session, scope=scope)
    ) -> None:
        session.add(Order(item=order.item))
        await broker.publish(order.item, queue="orders", session=session)

    async with serving(app_of(router)) as client:
        await client.post("/orders", json={"item": "tea"})
        if scope == "function":
            assert await shop.items() == ["tea"]
        await eventually(shop.notes, lambda notes: notes == ["tea"])


async def test_concurrent_requests_and_deliveries_have_sessions_of_their_own(
    router: OutboxRouter, shop: Shop, outbox_table: Table
) -> None:
    async def two_at_a_time(session: AsyncSession = Depends(shop.get_session)) -> AsyncSession:
        await asyncio.sleep(0)
        return session

    @router.subscriber("orders", max_workers=4)
    async def handle(
        body: str,
        one: AsyncSession = Depends(shop.get_session),
        other: AsyncSession = Depends(two_at_a_time),
    ) -> None:
        # Within one delivery, FastAPI's cache gives both the same.
        assert one is other
        one.add(Receipt(note=body))

    @router.post("/orders/{item}")
    async def create(
        item: str,
        broker: OutboxBroker,
        one: AsyncSession = Depends(shop.get_session),
        other: AsyncSession = Depends(two_at_a_time),
    ) -> None:
        assert one is other
        await broker.publish(item, queue="orders", session=one)

    items = [f"{n:02}" for n in range(30)]
    async with serving(app_of(router)) as client:
        responses = await asyncio.gather(*(client.post(f"/orders/{item}") for item in items))
        assert {response.status_code for response in responses} == {200}
        await eventually(shop.notes, lambda notes: sorted(notes) == items)

    assert len({id(session) for session in shop.sessions}) == 60


async def test_a_raw_connection_as_the_dependency(router: OutboxRouter, shop: Shop) -> None:
    async def get_connection(engine: Annotated[AsyncEngine, Depends(lambda: shop.engine)]) -> Any:
        async with engine.begin() as connection:
            yield connection

    @router.subscriber("orders")
    async def handle(body: str, connection: Annotated[Any, Depends(get_connection)]) -> OutboxResponse:
        return OutboxResponse(body, queue="invoices", session=connection)

    @router.subscriber("invoices")
    async def invoice(body: str, session: AsyncSession = Depends(shop.get_session)) -> None:
        session.add(Receipt(note=body))

    async with serving(app_of(router)):
        async with shop.engine.begin() as connection:
            await router.broker.publish("tea", queue="orders", session=connection)
        await eventually(shop.notes, lambda notes: notes == ["tea"])


async def _queues(shop: Shop, outbox_table: Table) -> list[str]:
    async with shop.engine.connect() as connection:
        return list(await connection.scalars(select(outbox_table.c.queue).order_by(outbox_table.c.id)))


async def _failed(shop: Shop, outbox_table: Table) -> list[str]:
    statement = select(outbox_table.c.queue).where(outbox_table.c.failed_at.is_not(None))
    async with shop.engine.connect() as connection:
        return list(await connection.scalars(statement))
