"""The quickstart of the FastAPI page, word for word but for the address of the database."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import uvicorn
from fastapi import Depends, FastAPI
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from faststream_outbox.fastapi import OutboxBroker, OutboxRouter

from .shop import Order, OrderIn, Shop, eventually, serving


def quickstart(engine: AsyncEngine, outbox_table: Table, received: list[dict]) -> tuple[FastAPI, OutboxRouter]:
    session_factory = async_sessionmaker(engine, expire_on_commit=False)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with session_factory() as s, s.begin():
            yield s

    router = OutboxRouter(engine, outbox_table=outbox_table)

    @router.subscriber("orders")
    async def handle(
        body: dict,
        session: AsyncSession = Depends(get_session),
    ) -> None:
        assert session.in_transaction()
        session.add(Order(item=f"seen {body['order_id']}"))
        received.append(body)

    @router.post("/orders")
    async def create_order(
        order: OrderIn,
        broker: OutboxBroker,
        session: AsyncSession = Depends(get_session),
    ) -> dict:
        session.add(Order(item=order.item))
        await broker.publish({"order_id": order.item}, queue="orders", session=session)
        return {"ok": True}

    app = FastAPI()
    app.include_router(router)
    return app, router


async def test_an_order_reaches_the_subscriber(engine: AsyncEngine, outbox_table: Table, shop: Shop) -> None:
    received: list[dict] = []
    app, router = quickstart(engine, outbox_table, received)
    assert not router.broker.running

    async with serving(app) as client:
        assert router.broker.running
        response = await client.post("/orders", json={"item": "tea"})
        assert (response.status_code, response.json()) == (200, {"ok": True})
        await eventually(shop.items, lambda items: items == ["tea", "seen tea"])
        await eventually(lambda: shop.count(outbox_table), lambda rows: rows == 0)

    assert received == [{"order_id": "tea"}]
    assert not router.broker.running


async def test_the_engine_belongs_to_the_caller(engine: AsyncEngine, outbox_table: Table, shop: Shop) -> None:
    pool = engine.pool
    app, _ = quickstart(engine, outbox_table, [])

    async with serving(app) as client:
        await client.post("/orders", json={"item": "tea"})

    # `dispose` puts a new pool in the place of the old one.
    assert engine.pool is pool
    # Whatever the broker took from the pool is back in it.
    assert pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await shop.count(Order) >= 1


async def test_under_uvicorn(engine: AsyncEngine, outbox_table: Table, shop: Shop) -> None:
    received: list[dict] = []
    app, router = quickstart(engine, outbox_table, received)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: _is(server.started or serving.done()))
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            responses = await asyncio.gather(*(client.post("/orders", json={"item": f"{n}"}) for n in range(20)))
        assert {response.status_code for response in responses} == {200}
        await eventually(lambda: shop.count(outbox_table), lambda rows: rows == 0)
        assert sorted(int(body["order_id"]) for body in received) == list(range(20))
    finally:
        server.should_exit = True
        await serving
    assert not router.broker.running


async def _is(answer: bool) -> bool:
    return answer
