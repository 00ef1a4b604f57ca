"""Handlers, routes and dependencies of a module whose annotations are strings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel

from faststream_outbox.fastapi import Logger, OutboxBroker, OutboxMessage, OutboxResponse, OutboxRouter


class Order(BaseModel):
    item: str


class Session:
    pass


async def get_session(broker: OutboxBroker) -> Session:
    return Session()


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_chain_of_handlers(router: OutboxRouter, serving: Callable[..., Any], is_async: bool) -> None:
    got: list[Any] = []

    def take(
        order: Order,
        message: OutboxMessage,
        broker: OutboxBroker,
        session: Annotated[Session, Depends(get_session)],
    ) -> OutboxResponse:
        got.extend([order, message.queue, broker, type(session)])
        return OutboxResponse("an invoice", queue="invoices", session=session)  # type: ignore[arg-type]

    async def take_async(
        order: Order,
        message: OutboxMessage,
        broker: OutboxBroker,
        session: Session = Depends(get_session),
    ) -> OutboxResponse:
        return take(order, message, broker, session)

    @router.subscriber("invoices")
    async def invoice(body: str) -> None:
        got.append(body)

    router.subscriber("orders")(take_async if is_async else take)

    @router.post("/orders")
    async def create(order: Order, broker: OutboxBroker, logger: Logger) -> dict[str, str]:
        await broker.publish(order, queue="orders", session=None)  # type: ignore[arg-type]
        return {"item": order.item}

    app = FastAPI()
    app.include_router(router)
    async with serving(app, router) as client:
        response = await client.post("/orders", json={"item": "tea"})

    assert (response.status_code, response.json()) == (200, {"item": "tea"})
    assert got == [Order(item="tea"), "orders", router.broker, Session, "an invoice"]
