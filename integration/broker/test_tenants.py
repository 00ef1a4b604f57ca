"""An engine's schema_translate_map says in which schema the outbox is, as it does for all other tables."""

from typing import Any

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, insert, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from faststream_outbox import InvalidSessionError, NoRetry, OutboxBroker, SchemaError, make_dlq_table, make_outbox_table

from .observing import Inbox, eventually

TENANTS = ("tenant_a", 'Tenant "B"')


class Shop:
    """Orders, and an outbox, for each tenant; nothing in the schema that the tables name."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.metadata = MetaData()
        self.outbox = make_outbox_table(self.metadata)
        self.dlq = make_dlq_table(self.metadata)
        self.orders = Table("orders", self.metadata, Column("id", Integer, primary_key=True))
        self.engine = engine

    def engine_of(self, tenant: str) -> AsyncEngine:
        return self.engine.execution_options(schema_translate_map={None: tenant})

    def broker_of(self, tenant: str, **options: Any) -> OutboxBroker:
        return OutboxBroker(
            self.engine_of(tenant), outbox_table=self.outbox, dlq_table=self.dlq, **{"logger": None} | options
        )

    async def order(self, broker: OutboxBroker, session: Any, number: int) -> None:
        await session.execute(insert(self.orders).values(id=number))
        await broker.publish({"id": number}, queue="orders", session=session, idempotency_key=f"order {number}")

    async def count(self, schema: str, table: str) -> int:
        quoted = schema.replace('"', '""')
        async with self.engine.connect() as connection:
            return int((await connection.execute(text(f'SELECT count(*) FROM "{quoted}".{table}'))).scalar_one())


@pytest.fixture
async def shop(engine: AsyncEngine) -> Shop:
    shop = Shop(engine)
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE outbox, outbox_dlq"))
        for tenant in TENANTS:
            await connection.execute(text('CREATE SCHEMA "{}"'.format(tenant.replace('"', '""'))))
    for tenant in TENANTS:
        async with shop.engine_of(tenant).begin() as connection:
            await connection.run_sync(shop.metadata.create_all)
    return shop


async def test_each_tenants_broker_works_in_its_own_schema(shop: Shop, inbox: Inbox) -> None:
    brokers = {tenant: shop.broker_of(tenant) for tenant in TENANTS}

    def subscribe(tenant: str) -> None:
        @brokers[tenant].subscriber("orders", retry_strategy=NoRetry())
        async def handle(body: dict[str, int]) -> None:
            inbox.add((tenant, body["id"]))
            if body["id"] == 2:
                raise ValueError

    for number, tenant in enumerate(TENANTS, start=1):
        subscribe(tenant)
        await brokers[tenant].validate_schema()
        await brokers[tenant].start()
        async with AsyncSession(shop.engine_of(tenant)) as session, session.begin():
            await shop.order(brokers[tenant], session, number)
    try:
        assert sorted(await inbox.wait_for(2)) == sorted(zip(TENANTS, (1, 2), strict=True))
        await eventually(brokers[TENANTS[1]].dead_letters.count)
    finally:
        for broker in brokers.values():
            await broker.stop()
    assert [await shop.count(tenant, "outbox") for tenant in TENANTS] == [0, 0]
    assert [await shop.count(tenant, "outbox_dlq") for tenant in TENANTS] == [0, 1]
    [letter] = await brokers[TENANTS[1]].dead_letters.list()
    assert letter.row.idempotency_key == "order 2"
    async with AsyncSession(shop.engine_of(TENANTS[1])) as session, session.begin():
        assert await brokers[TENANTS[1]].dead_letters.replay(queue="orders", session=session) == 1
        assert len(await brokers[TENANTS[1]].fetch_unprocessed(session=session)) == 1
    assert await shop.count(TENANTS[1], "outbox") == 1


async def test_a_message_never_goes_to_another_schema_than_the_session_writes_to(shop: Shop) -> None:
    broker = shop.broker_of("tenant_a")
    others = {
        "schema 'Tenant \"B\"'": shop.engine_of('Tenant "B"'),
        "the schema of the search path": shop.engine,
    }
    for named, engine in others.items():
        refusal = f"puts 'outbox' into {named}, and this broker works in schema 'tenant_a'; publish with a broker for"
        async with AsyncSession(engine) as session, engine.connect() as connection:
            for each in (session, connection):
                for refused in (
                    lambda each=each: broker.publish({}, queue="orders", session=each),
                    lambda each=each: broker.publish_batch({}, queue="orders", session=each),
                    lambda each=each: broker.cancel_timer(queue="orders", timer_id="t", session=each),
                    lambda each=each: broker.fetch_unprocessed(session=each),
                    lambda each=each: broker.dead_letters.count(session=each),
                ):
                    with pytest.raises(InvalidSessionError) as caught:
                        await refused()
                    assert refusal in str(caught.value)
    assert [await shop.count(tenant, "outbox") for tenant in TENANTS] == [0, 0]


async def test_a_map_of_one_transaction_counts(shop: Shop) -> None:
    broker = shop.broker_of("tenant_a")
    async with AsyncSession(shop.engine) as session, session.begin():
        await session.connection(execution_options={"schema_translate_map": {None: "tenant_a"}})
        await shop.order(broker, session, 1)
    assert await shop.count("tenant_a", "orders") == await shop.count("tenant_a", "outbox") == 1


async def test_a_map_that_does_not_concern_the_table_is_none(engine: AsyncEngine, outbox_table: Table) -> None:
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None)
    elsewhere = engine.execution_options(schema_translate_map={"shared": "tenant_a"})
    async with AsyncSession(elsewhere) as session, session.begin():
        assert await broker.publish({}, queue="orders", session=session)


async def test_a_map_may_take_the_schema_away(engine: AsyncEngine, outbox_table: Table) -> None:
    declared = make_outbox_table(MetaData(), schema="declared")
    translating = engine.execution_options(schema_translate_map={"declared": None})
    broker = OutboxBroker(translating, outbox_table=declared, logger=None)
    await broker.validate_schema()
    async with AsyncSession(translating) as session, session.begin():
        assert await broker.publish({}, queue="orders", session=session)
    async with AsyncSession(engine) as session:
        with pytest.raises(InvalidSessionError, match="puts 'outbox' into schema 'declared'"):
            await broker.publish({}, queue="orders", session=session)


@pytest.fixture
def sync_engine(database_url: str) -> Engine:
    return create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))


async def test_plain_sessions(shop: Shop, sync_engine: Engine) -> None:
    broker = shop.broker_of("tenant_a")
    tenant = sync_engine.execution_options(schema_translate_map={None: "tenant_a"})
    with Session(tenant) as session, session.begin():
        assert broker.publish_sync({}, queue="orders", session=session)
    with Session(sync_engine) as session, pytest.raises(InvalidSessionError, match="search path"):
        broker.publish_sync({}, queue="orders", session=session)
    sync_engine.dispose()
    assert await shop.count("tenant_a", "outbox") == 1


async def test_the_check_of_the_schema_names_the_tenants_tables(shop: Shop) -> None:
    async with shop.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE tenant_a.outbox DROP COLUMN timer_id CASCADE"))
    with pytest.raises(SchemaError, match=r"tenant_a\.outbox: column 'timer_id' is missing"):
        await shop.broker_of("tenant_a").validate_schema()
