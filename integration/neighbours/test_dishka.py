"""dishka gives handlers their sessions, through its own package for FastStream."""

from collections.abc import AsyncIterable
from typing import Any

import pytest
from dishka import AsyncContainer, Provider, Scope, make_async_container, provide
from dishka.integrations.fastapi import DishkaRoute
from dishka.integrations.fastapi import FromDishka as FromDishkaInRoutes
from dishka.integrations.fastapi import setup_dishka as setup_routes
from dishka_faststream import FastStreamProvider, FromDishka, inject, setup_dishka
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from faststream_outbox import OutboxBroker, OutboxResponse
from faststream_outbox.fastapi import OutboxBroker as BrokerOfRoute
from faststream_outbox.fastapi import OutboxRouter
from integration.broker.observing import Table, eventually
from integration.fastapi.shop import Receipt, Shop, app_of, serving

from .conftest import TWICE


class Sessions(Provider):
    """As docs/neighbours.md shows it: dishka hands over a handler's exception as a value."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__()
        self._factory = async_sessionmaker(engine, expire_on_commit=False)

    @provide(scope=Scope.REQUEST)
    async def session(self) -> AsyncIterable[AsyncSession]:
        async with self._factory() as session:
            failure = yield session
            if failure is None:
                await session.commit()


class CommittingSessions(Sessions):
    """The obvious one, which is wrong."""

    @provide(scope=Scope.REQUEST)
    async def session(self) -> AsyncIterable[AsyncSession]:
        async with self._factory() as session, session.begin():
            yield session


def container_of(provider: Provider) -> AsyncContainer:
    return make_async_container(provider, FastStreamProvider())


@pytest.mark.parametrize(("provider", "left"), [(Sessions, ["good"]), (CommittingSessions, ["bad", "bad", "good"])])
async def test_the_work_of_a_handler_that_raised_is_rolled_back_by_the_right_provider(
    provider: type[Sessions], left: list[str], broker: OutboxBroker, engine: AsyncEngine, shop: Shop, table: Table
) -> None:
    container = container_of(provider(engine))
    setup_dishka(container, broker=broker)

    @broker.subscriber("orders", retry_strategy=TWICE)
    @inject
    async def handle(body: str, session: FromDishka[AsyncSession]) -> None:
        session.add(Receipt(note=body))
        if body == "bad":
            raise ValueError(body)

    await broker.start()
    async with engine.begin() as connection:
        await broker.publish_batch("bad", "good", queue="orders", session=connection)
    await eventually(lambda: _only_dead_letters(table, 1))
    assert sorted(await shop.notes()) == left
    await container.close()


async def test_a_response_is_written_in_the_session_that_dishka_gave(
    broker: OutboxBroker, engine: AsyncEngine, shop: Shop, table: Table
) -> None:
    container = container_of(Sessions(engine))
    setup_dishka(container, broker=broker, auto_inject=True)
    billed: list[Any] = []

    @broker.subscriber("orders")
    async def handle(body: str, session: FromDishka[AsyncSession]) -> OutboxResponse:
        session.add(Receipt(note=body))
        return OutboxResponse(body, queue="billed", session=session)

    @broker.subscriber("billed")
    async def bill(body: str) -> None:
        billed.append(body)

    await broker.start()
    async with engine.begin() as connection:
        await broker.publish("tea", queue="orders", session=connection)
    await eventually(lambda: bool(billed))
    await eventually(table.is_empty)
    assert (billed, await shop.notes()) == (["tea"], ["tea"])
    await container.close()


async def test_on_fastapi_routes_and_handlers_have_a_container(
    router: OutboxRouter, engine: AsyncEngine, shop: Shop, table: Table
) -> None:
    container = container_of(Sessions(engine))
    setup_dishka(container, broker=router.broker)
    router.route_class = DishkaRoute

    @router.subscriber("orders")
    @inject
    async def handle(body: dict, session: FromDishka[AsyncSession]) -> None:
        session.add(Receipt(note=body["item"]))

    @router.post("/orders")
    async def create(item: str, broker: BrokerOfRoute, session: FromDishkaInRoutes[AsyncSession]) -> None:
        await broker.publish({"item": item}, queue="orders", session=session)

    app = app_of(router)
    setup_routes(container, app)
    async with serving(app) as client:
        assert (await client.post("/orders", params={"item": "tea"})).status_code == 200
        await eventually(shop.notes)
        await eventually(table.is_empty)
    assert await shop.notes() == ["tea"]
    await container.close()


async def _only_dead_letters(table: Table, expected: int) -> bool:
    return await table.count() == await table.count("failed_at IS NOT NULL") == expected
