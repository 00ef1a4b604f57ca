"""A small shop: the demo's service, and an example of how a service with an outbox is written.

An order and its messages are written in one transaction. What commits is delivered, at least once, to the subscriber
below and to Kafka; what rolls back was never there.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from faststream.kafka import KafkaBroker
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import DateTime, ForeignKey, func
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from faststream_outbox import make_outbox_table
from faststream_outbox.fastapi import OutboxBroker, OutboxMessage, OutboxRouter

# --- The tables: two of the shop's own, and the outbox beside them ----------------------------------------------------


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    item: Mapped[str]
    quantity: Mapped[int]
    status: Mapped[str] = mapped_column(default="placed")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Parcel(Base):
    __tablename__ = "parcels"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), unique=True)
    idempotency_key: Mapped[str]
    packed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


outbox_table = make_outbox_table(Base.metadata)

# --- The connections --------------------------------------------------------------------------------------------------

engine = create_async_engine(os.environ["DATABASE_URL"], hide_parameters=True)
new_session = async_sessionmaker(engine, expire_on_commit=False)
kafka = KafkaBroker(os.environ["KAFKA_BOOTSTRAP"], acks="all")


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session, session.begin():
        yield session


# --- The ways of the messages: queue "orders" goes on to a Kafka topic, queue "packing" is worked on right here -------

router = OutboxRouter(engine, outbox_table=outbox_table)
router.forwarder("orders", to=kafka.publisher("orders.v1"))

# Besides, what forwarders of other processes carry on, such as those of relay.py.
queues = ["packing", "orders", *os.environ.get("FURTHER_QUEUES", "").split()]

# PostgreSQL's text holds every character but NUL.
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40, pattern=r"^[^\x00]+$")]


class OrderIn(BaseModel):
    customer: Text
    item: Text
    quantity: int = Field(1, ge=1, le=99)


class OrderPlaced(OrderIn):
    order_id: int


@router.post("/orders", status_code=201)
async def place_order(
    order: OrderIn,
    broker: OutboxBroker,
    # "function" commits before the response is sent, so a client can rely on 201. FastAPI's default commits after it.
    session: Annotated[AsyncSession, Depends(get_session, scope="function")],
    *,
    slow: bool = False,
    fail: bool = False,
) -> OrderPlaced:
    row = Order(**order.model_dump())
    session.add(row)
    await session.flush()

    placed = OrderPlaced(order_id=row.id, **order.model_dump())
    for queue in queues:
        await broker.publish(
            placed,
            queue=queue,
            key=order.customer,  # messages of one customer arrive in the order in which they were published
            activate_in=timedelta(seconds=2) if slow else None,
            session=session,
        )

    if fail:  # the order and its messages are written by now, and all of them are rolled back
        raise HTTPException(402, {"reason": "The payment was declined", "order_id": row.id})
    return placed


@router.subscriber("packing")
async def pack(
    placed: OrderPlaced,
    message: OutboxMessage,
    session: Annotated[AsyncSession, Depends(get_session)],  # a fresh one per message; commits when the handler returns
) -> None:
    order = await session.get_one(Order, placed.order_id, with_for_update=True)
    if order.status == "packed":
        return  # a message may be delivered twice, a parcel must not be packed twice
    order.status = "packed"
    session.add(Parcel(order_id=order.id, idempotency_key=message.idempotency_key))


# --- The application --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)  # a real service leaves this to its migrations
    yield
    await engine.dispose()


app = FastAPI(title="A small shop", lifespan=lifespan)
app.include_router(router)  # its broker starts and stops with the app
