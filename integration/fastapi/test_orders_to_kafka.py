"""The whole journey: orders posted over HTTP reach a Kafka topic, exactly those whose transaction was committed."""

import asyncio
import json
from collections import Counter, defaultdict
from typing import Any

from fastapi import Depends
from faststream.kafka import KafkaBroker
from httpx import AsyncClient
from sqlalchemy import Table, event, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from faststream_outbox.fastapi import OutboxBroker, OutboxRouter
from integration.servers.kafka import KafkaServer
from integration.servers.topics import Record, read_topic

from .shop import Customer, Order, OrderIn, Shop, app_of, client_of, eventually, serving

ORDERS = 1000
CUSTOMERS = [f"customer-{number}" for number in range(17)]
IN_FLIGHT = 20


class OutOfStock(Exception):
    pass


async def test_exactly_the_committed_orders_arrive(
    router: OutboxRouter, outbox_table: Table, shop: Shop, kafka_server: KafkaServer, kafka_topic: str
) -> None:
    kafka = KafkaBroker(kafka_server.bootstrap, acks="all")
    router.forwarder("orders", to=kafka.publisher(kafka_topic))
    staged: dict[int, tuple[str, str]] = {}

    @router.post("/orders/{customer}")
    async def create(
        customer: str, order: OrderIn, broker: OutboxBroker, session: AsyncSession = Depends(shop.get_session)
    ) -> None:
        # Whoever has the customer's row has the next place in the customer's order.
        place = await session.scalar(
            update(Customer)
            .where(Customer.name == customer)
            .values(orders=Customer.orders + 1)
            .returning(Customer.orders)
        )
        session.add(Order(item=order.item))
        body = {"item": order.item, "place": place}
        row_id = await broker.publish(body, queue="orders", key=customer, session=session)
        assert row_id is not None
        # A forwarder may take the row as soon as it is committed: its identity is looked up before.
        key = await session.scalar(select(outbox_table.c.idempotency_key).where(outbox_table.c.id == row_id))
        event.listen(session.sync_session, "after_commit", lambda _: staged.update({row_id: (customer, key or "")}))
        if order.quantity == 0:
            raise OutOfStock

    async with AsyncSession(shop.engine) as session, session.begin():
        session.add_all(Customer(name=name) for name in CUSTOMERS)

    app = app_of(router)
    async with serving(app), client_of(app, raise_app_exceptions=False) as client:
        statuses = await _post_all(client)
        await eventually(lambda: shop.count(outbox_table), lambda rows: rows == 0, timeout=30)
        records = await read_topic(kafka_server.bootstrap, kafka_topic, expected=len(staged), timeout=30)

    assert statuses == {200: ORDERS * 9 // 10, 500: ORDERS // 10}
    assert len(records) == len(staged) == await shop.count(Order) == 900
    assert sorted(await shop.items()) == sorted(_body(record)["item"] for record in records)
    assert {
        int(_header(record, "outbox-id")): (_key(record), _header(record, "idempotency-key")) for record in records
    } == staged

    places: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        places[_key(record)].append(_body(record)["place"])
    assert set(places) == set(CUSTOMERS)
    for customers_places in places.values():
        assert customers_places == list(range(1, len(customers_places) + 1))


async def _post_all(client: AsyncClient) -> Counter[int]:
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def post(number: int) -> int:
        order = {"item": f"item {number}", "quantity": 0 if number % 10 == 3 else 1}
        async with slots:
            response = await client.post(f"/orders/{CUSTOMERS[number % len(CUSTOMERS)]}", json=order)
        return response.status_code

    return Counter(await asyncio.gather(*map(post, range(ORDERS))))


def _body(record: Record) -> Any:
    return json.loads(record.value or b"")


def _key(record: Record) -> str:
    return (record.key or b"").decode()


def _header(record: Record, name: str) -> str:
    return dict(record.headers)[name].decode()
