from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox import TestOutboxBroker, make_outbox_table
from faststream_outbox.fastapi import OutboxRouter

MakeRouter = Callable[..., OutboxRouter]


@pytest.fixture
def engine() -> AsyncEngine:
    """There is nothing behind it: whoever connects fails."""
    return create_async_engine("postgresql+asyncpg://clerk:s3cret@database.invalid/shop")


@pytest.fixture
def make_router(engine: AsyncEngine) -> MakeRouter:
    return lambda **options: OutboxRouter(engine, outbox_table=make_outbox_table(MetaData()), **options)


@pytest.fixture
def router(make_router: MakeRouter) -> OutboxRouter:
    return make_router()


@pytest.fixture
def app_of() -> Callable[..., FastAPI]:
    """Makes an application that includes routers."""

    def make(*routers: OutboxRouter) -> FastAPI:
        app = FastAPI()
        for router in routers:
            app.include_router(router)
        return app

    return make


@pytest.fixture
def serving() -> Callable[..., Any]:
    """Runs an application whose routers' brokers are on memory, and gives a client of it."""

    @asynccontextmanager
    async def serve(app: FastAPI, *routers: OutboxRouter) -> AsyncIterator[AsyncClient]:
        async with AsyncExitStack() as stack:
            for router in routers:
                await stack.enter_async_context(TestOutboxBroker(router.broker))
            manager = await stack.enter_async_context(LifespanManager(app))
            transport = ASGITransport(manager.app)
            yield await stack.enter_async_context(AsyncClient(transport=transport, base_url="http://shop"))

    return serve
