"""The broker lives within the application's lifespan, on a real database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import Depends, FastAPI
from faststream.kafka import KafkaBroker
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from faststream_outbox.exceptions import ConfigError
from faststream_outbox.fastapi import Logger, OutboxBroker, OutboxRouter
from integration.servers.process import ReservedPort

from .shop import Receipt, Shop, app_of, client_of, eventually, serving


def with_orders(router: OutboxRouter, shop: Shop) -> OutboxRouter:
    """A subscriber, and a route that publishes to it."""

    @router.subscriber("orders", max_workers=2)
    async def handle(body: str, session: AsyncSession = Depends(shop.get_session)) -> None:
        session.add(Receipt(note=body))

    @router.post("/orders/{item}")
    async def create(
        item: str, broker: OutboxBroker, logger: Logger, session: AsyncSession = Depends(shop.get_session)
    ) -> None:
        logger.info("ordered %s", item)
        await broker.publish(item, queue="orders", session=session)

    return router


async def test_the_application_opens_before_the_broker_and_closes_after_it(
    outbox_table: Table, database_url: str, shop: Shop
) -> None:
    """As its engine does: it is there when the broker starts, and disposed when the broker has stopped."""
    engine = create_async_engine(database_url)
    router = with_orders(OutboxRouter(engine, outbox_table=outbox_table), shop)
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        events.append(f"begins, broker runs: {router.broker.running}")
        yield
        events.append(f"ends, broker runs: {router.broker.running}")
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    async with serving(app) as client:
        await client.post("/orders/tea")
        await eventually(shop.notes, lambda notes: notes == ["tea"])

    assert events == ["begins, broker runs: False", "ends, broker runs: False"]


async def test_an_engine_disposed_by_a_shutdown_handler(outbox_table: Table, database_url: str, shop: Shop) -> None:
    """FastAPI's older way to the same end."""
    engine = create_async_engine(database_url)
    router = with_orders(OutboxRouter(engine, outbox_table=outbox_table), shop)
    app = app_of(router)
    pool = engine.pool

    async def dispose() -> None:
        assert not router.broker.running
        await engine.dispose()

    app.router.add_event_handler("shutdown", dispose)
    async with serving(app) as client:
        await client.post("/orders/tea")
        await eventually(shop.notes, lambda notes: notes == ["tea"])
        assert engine.pool is pool
    assert engine.pool is not pool


async def test_it_runs_again_and_finds_what_was_published_meanwhile(router: OutboxRouter, shop: Shop) -> None:
    app = app_of(with_orders(router, shop))
    items: list[str] = []

    async def all_noted() -> bool:
        return sorted(await shop.notes()) == sorted(items)

    for name in ("a", "b", "c"):
        items += [f"{name}, without a broker", f"{name}, with one"]
        async with client_of(app) as client:
            # No lifespan runs: the row is written all the same, and waits.
            await client.post(f"/orders/{items[-2]}")
        async with serving(app) as client:
            await client.post(f"/orders/{items[-1]}")
            await eventually(all_noted)


async def test_no_connection_is_left_behind(router: OutboxRouter, shop: Shop, engine: AsyncEngine) -> None:
    app = app_of(with_orders(router, shop))
    async with serving(app) as client:
        await client.post("/orders/tea")
        await eventually(shop.notes, lambda notes: notes == ["tea"])
    await engine.dispose()

    async def others() -> int:
        async with AsyncSession(engine) as session:
            count = text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return await session.scalar(count) or 0

    await eventually(others, lambda count: count == 0)


async def test_log_lines_of_a_route(
    router: OutboxRouter, shop: Shop, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """FastStream's format has fields of a message, which a request does not have."""
    app = app_of(with_orders(router, shop))
    with caplog.at_level("INFO"):
        async with serving(app) as client:
            await client.post("/orders/tea")
            await eventually(shop.notes, lambda notes: notes == ["tea"])
    assert "ordered tea" in caplog.messages
    assert "Logging error" not in capfd.readouterr().err


async def test_a_destination_that_is_down(router: OutboxRouter, outbox_table: Table, shop: Shop) -> None:
    """The application starts, serves and handles its own queues; what is for the destination waits."""
    port = ReservedPort()
    kafka = KafkaBroker(f"127.0.0.1:{port.number}", acks="all", logger=None)
    with_orders(router, shop).forwarder("exports", to=kafka.publisher("exports"))

    @router.post("/exports")
    async def export(broker: OutboxBroker, session: AsyncSession = Depends(shop.get_session)) -> None:
        await broker.publish("tea", queue="exports", session=session)

    try:
        async with asyncio.timeout(30), serving(app_of(router)) as client:
            assert (await client.post("/exports")).status_code == 200
            assert (await client.post("/orders/tea")).status_code == 200
            await eventually(shop.notes, lambda notes: notes == ["tea"])
            await eventually(lambda: shop.count(outbox_table), lambda rows: rows == 1)
    finally:
        port.release()


async def test_unsafe_settings_of_a_destination_stop_the_start(router: OutboxRouter, shop: Shop) -> None:
    kafka = KafkaBroker("127.0.0.1:9", acks=1)
    with_orders(router, shop).forwarder("exports", to=kafka.publisher("exports"))

    with pytest.raises(ConfigError, match="acks"):
        async with serving(app_of(router)):
            pass
    assert not router.broker.running


async def test_a_hook_that_fails_after_the_start_stops_the_broker(
    router: OutboxRouter, outbox_table: Table, shop: Shop
) -> None:
    """Else its loops would go on in an application that serves nobody."""
    hooks: list[bool] = []

    @with_orders(router, shop).after_startup
    async def fail(app: FastAPI) -> None:
        hooks.append(router.broker.running)
        raise LookupError

    app = app_of(router)
    with pytest.raises(LookupError):
        async with serving(app):
            pass
    assert hooks == [True]
    assert not router.broker.running
    async with client_of(app) as client:
        assert (await client.post("/orders/tea")).status_code == 200
    assert await shop.count(outbox_table) == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_database_that_is_down_at_the_start(outbox_table: Table, database_url: str, shop: Shop) -> None:
    """The lifespan does not wait for it; ``ping`` tells."""
    port = ReservedPort()
    engine = create_async_engine(f"postgresql+asyncpg://nobody@127.0.0.1:{port.number}/nothing")
    router = with_orders(OutboxRouter(engine, outbox_table=outbox_table), shop)

    @router.get("/health")
    async def health(broker: OutboxBroker) -> bool:
        return await broker.ping(timeout=5)

    try:
        async with asyncio.timeout(20), serving(app_of(router)) as client:
            assert (await client.get("/health")).json() is False
    finally:
        await engine.dispose()
        port.release()
