"""Several routers in one application, each with a broker that runs."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends
from faststream.kafka import KafkaBroker
from faststream.kafka.fastapi import KafkaBroker as KafkaOfRoute
from faststream.kafka.fastapi import KafkaMessage, KafkaRouter
from sqlalchemy import MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from faststream_outbox import make_outbox_table
from faststream_outbox.fastapi import OutboxBroker, OutboxRouter
from integration.servers.kafka import KafkaServer
from integration.servers.topics import read_topic

from .shop import Receipt, Shop, app_of, client_of, eventually, serving


async def test_two_outbox_routers(engine: AsyncEngine, shop: Shop) -> None:
    """With two tables: a row in the wrong one would be handled by the other router's subscriber."""
    metadata = MetaData()
    tables = {name: make_outbox_table(metadata, table_name=f"outbox_{name}") for name in ("one", "two")}
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    routers = [
        OutboxRouter(engine, outbox_table=table, prefix=f"/{name}", schema_url=f"/asyncapi/{name}")
        for name, table in tables.items()
    ]
    for name, router in zip(tables, routers, strict=True):

        @router.subscriber("orders")
        async def handle(
            body: str,
            broker: OutboxBroker,
            name: Annotated[str, Depends(lambda name=name: name)],
            session: AsyncSession = Depends(shop.get_session),
        ) -> None:
            assert broker.running
            session.add(Receipt(note=f"{body} at {name}"))

        @router.post("/orders/{item}")
        async def create(item: str, broker: OutboxBroker, session: AsyncSession = Depends(shop.get_session)) -> None:
            await broker.publish(item, queue="orders", session=session)

    async with serving(app_of(*routers)) as client:
        await asyncio.gather(*(client.post(f"/{name}/orders/{number}") for name in tables for number in range(5)))
        notes = await eventually(shop.notes, lambda notes: len(notes) == 10)
        for table in tables.values():
            await eventually(lambda table=table: shop.count(table), lambda rows: rows == 0)

    assert sorted(notes) == sorted(f"{number} at {name}" for name in tables for number in range(5))
    assert not any(router.broker.running for router in routers)


async def test_beside_a_kafka_router_and_forwarding_through_it(
    router: OutboxRouter, outbox_table: Table, shop: Shop, kafka_server: KafkaServer, kafka_topic: str
) -> None:
    """The whole circle in one application: route, outbox, Kafka, and the Kafka router's own subscriber."""
    kafka = KafkaRouter(kafka_server.bootstrap, acks="all", schema_url=None)
    plain = APIRouter(prefix="/plain")
    router.forwarder("orders", to=kafka.publisher(kafka_topic))

    @router.post("/orders/{item}")
    @plain.post("/orders/{item}")
    @kafka.post("/kafka/orders/{item}")
    async def create(item: str, broker: OutboxBroker, session: AsyncSession = Depends(shop.get_session)) -> None:
        await broker.publish({"item": item}, queue="orders", session=session, key=item)

    @kafka.subscriber(kafka_topic, auto_offset_reset="earliest")
    async def arrived(
        body: dict[str, str],
        broker: KafkaOfRoute,
        message: KafkaMessage,
        session: AsyncSession = Depends(shop.get_session),
    ) -> None:
        assert isinstance(broker, KafkaBroker)
        session.add(Receipt(note=f"{body['item']} {message.headers['outbox-queue']}"))

    async with serving(app_of(router, kafka, plain)) as client:
        for path, item in (("/orders", "tea"), ("/plain/orders", "milk"), ("/kafka/orders", "rice")):
            assert (await client.post(f"{path}/{item}")).status_code == 200
        notes = await eventually(shop.notes, lambda notes: len(notes) == 3, timeout=20)
        await eventually(lambda: shop.count(outbox_table), lambda rows: rows == 0)

    assert sorted(notes) == ["milk orders", "rice orders", "tea orders"]
    assert len(await read_topic(kafka_server.bootstrap, kafka_topic, expected=3)) == 3


async def test_a_route_of_the_router_works_without_a_lifespan(
    router: OutboxRouter, outbox_table: Table, shop: Shop
) -> None:
    @router.post("/orders")
    async def create(broker: OutboxBroker, session: AsyncSession = Depends(shop.get_session)) -> None:
        await broker.publish("tea", queue="orders", session=session)

    async with client_of(app_of(router)) as client:
        assert (await client.post("/orders")).status_code == 200
    assert await shop.count(outbox_table) == 1
