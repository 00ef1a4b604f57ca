"""`TestOutboxBroker(..., with_real=True)`: mocks on the real database."""

from fastapi import Depends
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from faststream_outbox import TestOutboxBroker
from faststream_outbox.fastapi import OutboxBroker, OutboxResponse, OutboxRouter

from .shop import Order, Shop, app_of, eventually, serving


async def test_mocks_on_the_real_database(router: OutboxRouter, outbox_table: Table, shop: Shop) -> None:
    invoices = router.publisher("invoices")

    @router.subscriber("orders")
    async def handle(body: str, session: AsyncSession = Depends(shop.get_session)) -> OutboxResponse:
        session.add(Order(item=body))
        return OutboxResponse(f"an invoice for {body}", queue="invoices", session=session)

    @router.post("/orders/{item}")
    async def create(item: str, broker: OutboxBroker, session: AsyncSession = Depends(shop.get_session)) -> None:
        await broker.publish(item, queue="orders", session=session)

    store = router.broker.config.broker_config.storage
    app = app_of(router)
    for item in ("tea", "milk"):
        async with TestOutboxBroker(router.broker, with_real=True), serving(app) as client:
            assert router.broker.config.broker_config.storage is store
            await client.post(f"/orders/{item}")
            await eventually(lambda: shop.count(outbox_table), lambda rows: rows == 0)
            handle.mock.assert_called_once_with(item)
            # Nobody else consumes that queue: the test broker does, to record what comes.
            invoices.mock.assert_called_once_with(f"an invoice for {item}")

    assert await shop.items() == ["tea", "milk"]
    assert not router.broker.running
    assert len(router.broker.subscribers) == 1
