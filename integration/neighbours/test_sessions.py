"""Sessions of other kinds than SQLAlchemy's plain one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from advanced_alchemy.extensions.fastapi import AdvancedAlchemy, AsyncSessionConfig, SQLAlchemyAsyncConfig
from fastapi import Depends
from faststream.exceptions import SetupError
from sqlalchemy import Table as SqlTable
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession

from faststream_outbox import ConfigError, OutboxBroker
from faststream_outbox.exceptions import InvalidSessionError
from faststream_outbox.fastapi import OutboxBroker as BrokerOfRoute
from faststream_outbox.fastapi import OutboxResponse, OutboxRouter
from integration.broker.observing import Table, eventually
from integration.fastapi.shop import Receipt, Shop, app_of, serving


class Bill(SQLModel, table=True):
    __tablename__ = "bills"

    id: int | None = Field(default=None, primary_key=True)
    item: str


async def test_sqlmodels_session_in_routes_and_handlers(
    router: OutboxRouter, engine: AsyncEngine, table: Table
) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.tables["bills"].create)

    async def get_session() -> AsyncIterator[SQLModelSession]:
        async with SQLModelSession(engine) as session, session.begin():
            yield session

    @router.subscriber("orders")
    async def bill(body: dict, session: SQLModelSession = Depends(get_session)) -> OutboxResponse:
        session.add(Bill(item=body["item"]))
        return OutboxResponse(body, queue="billed", session=session)

    seen: list[str] = []

    @router.subscriber("billed")
    async def see(body: dict, session: SQLModelSession = Depends(get_session)) -> None:
        seen.extend((await session.exec(select(Bill.item))).scalars())

    @router.post("/orders")
    async def create(
        item: str, broker: BrokerOfRoute, session: SQLModelSession = Depends(get_session, scope="function")
    ) -> None:
        await broker.publish({"item": item}, queue="orders", session=session)

    async with serving(app_of(router)) as client:
        assert (await client.post("/orders", params={"item": "tea"})).status_code == 200
        await eventually(lambda: bool(seen))
        await eventually(table.is_empty)
    assert seen == ["tea"]


async def test_a_scoped_session_is_the_one_of_its_scope(
    broker: OutboxBroker, engine: AsyncEngine, shop: Shop, table: Table
) -> None:
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)

    async def work(item: str, *, fails: bool) -> None:
        scoped.add(Receipt(note=item))
        await broker.publish(item, queue="orders", session=scoped)
        await (scoped.rollback() if fails else scoped.commit())
        await scoped.remove()

    await asyncio.gather(*(work(f"item {n}", fails=n % 2 == 1) for n in range(10)))
    expected = [f"item {n}" for n in range(0, 10, 2)]
    assert sorted(await shop.notes()) == expected
    assert sorted(row.payload.decode() for row in await table.rows()) == expected


@pytest.mark.parametrize("provided", ["provide_session", "get_session"])
async def test_advanced_alchemys_session_is_refused_in_a_handler_and_welcome_in_a_route(
    provided: str, router: OutboxRouter, engine: AsyncEngine, outbox_table: SqlTable, shop: Shop, table: Table
) -> None:
    """Its middleware commits and closes it behind a response, so a handler would lose all that it writes."""
    session_config = AsyncSessionConfig(expire_on_commit=False)
    config = SQLAlchemyAsyncConfig(engine_instance=engine, session_config=session_config, commit_mode="autocommit")
    alchemy = AdvancedAlchemy(config=config)
    of_routes = alchemy.provide_session()
    of_http = of_routes if provided == "provide_session" else alchemy.get_async_session

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with config.create_session_maker()() as session, session.begin():
            yield session

    @router.subscriber("orders")
    async def handle(body: dict, session: AsyncSession = Depends(get_session)) -> None:
        session.add(Receipt(note=body["item"]))

    @router.post("/orders")
    async def create(item: str, broker: BrokerOfRoute, session: AsyncSession = Depends(of_routes)) -> None:
        await broker.publish({"item": item}, queue="orders", session=session)

    app = app_of(router)
    alchemy.init_app(app)
    async with serving(app) as client:
        assert (await client.post("/orders", params={"item": "tea"})).status_code == 200
        await eventually(shop.notes)
        await eventually(table.is_empty)
    assert await shop.notes() == ["tea"]

    losing = OutboxRouter(engine, outbox_table=outbox_table)

    @losing.subscriber("orders")
    async def lose(body: dict, session: AsyncSession = Depends(of_http)) -> None: ...

    with pytest.raises((ConfigError, SetupError), match="committed and closed after an HTTP response, and never after"):
        await losing.broker.start()


async def test_a_two_phase_session_needs_notify_false(
    engine: AsyncEngine, outbox_table: SqlTable, broker: OutboxBroker, table: Table
) -> None:
    async with AsyncSession(engine, sync_session_class=TwoPhase) as session:
        with pytest.raises(InvalidSessionError, match=r"twophase=True.*OutboxBroker\(\.\.\., notify=False\)"):
            await broker.publish("x", queue="orders", session=session)
        silent = OutboxBroker(engine, outbox_table=outbox_table, notify=False, logger=None)
        await silent.publish("x", queue="orders", session=session)
        await session.commit()
    assert await table.count() == 1


class TwoPhase(Session):
    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, twophase=True, **options)  # type: ignore[arg-type]
