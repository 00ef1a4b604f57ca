"""What the tests' applications have in common: domain tables, a session for each, questions to the database."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from asgi_lifespan import LifespanManager
from fastapi import APIRouter, FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

T = TypeVar("T")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


class Customer(Base):
    __tablename__ = "customers"

    name: Mapped[str] = mapped_column(primary_key=True)
    orders: Mapped[int] = mapped_column(default=0)


class Receipt(Base):
    """What a subscriber writes when it has seen an order."""

    __tablename__ = "receipts"

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str]


class OrderIn(BaseModel):
    item: str
    quantity: int = 1


class Shop:
    """A test's database.

    `get_session` is the dependency that the documentation shows; it keeps what it handed out in `sessions`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.sessions: list[AsyncSession] = []
        self._factory = async_sessionmaker(engine, expire_on_commit=False)

    async def get_session(self) -> AsyncIterator[AsyncSession]:
        async with self._factory() as session, session.begin():
            self.sessions.append(session)
            yield session

    async def create_tables(self) -> None:
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def count(self, table: Any) -> int:
        async with self.engine.connect() as connection:
            return await connection.scalar(select(func.count()).select_from(table)) or 0

    async def notes(self) -> list[str]:
        async with self.engine.connect() as connection:
            return list(await connection.scalars(select(Receipt.note).order_by(Receipt.id)))

    async def items(self) -> list[str]:
        async with self.engine.connect() as connection:
            return list(await connection.scalars(select(Order.item).order_by(Order.id)))

    async def add_order(self, session: AsyncSession, item: str) -> Order:
        order = Order(item=item)
        session.add(order)
        await session.flush()
        return order


def app_of(*routers: APIRouter) -> FastAPI:
    """An application with these routers, all of whose routes must have been declared: FastAPI of old copies them."""
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    return app


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[AsyncClient]:
    """Run the application's lifespan, and give a client that talks to it without a network."""
    async with (
        LifespanManager(app, startup_timeout=20, shutdown_timeout=20) as manager,
        client_of(manager.app) as client,
    ):
        yield client


def client_of(app: Any, *, raise_app_exceptions: bool = True) -> AsyncClient:
    transport = ASGITransport(app, raise_app_exceptions=raise_app_exceptions)
    return AsyncClient(transport=transport, base_url="http://shop")


async def eventually(
    ask: Callable[[], Awaitable[T]], wanted: Callable[[T], bool] | None = None, *, timeout: float = 10.0
) -> T:
    """Ask until the answer is the wanted one (default: is true); raise TimeoutError with the last answer."""
    answer: Any = None
    try:
        async with asyncio.timeout(timeout):
            while not (wanted or bool)(answer := await ask()):
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise TimeoutError(f"still {answer!r} after {timeout:g} s") from None
    return answer
