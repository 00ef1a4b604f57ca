"""How the outbox appears in AsyncAPI, and that nothing secret does."""

import json
from typing import Any
from unittest import mock

import pytest
from faststream.asgi import AsgiFastStream
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.redis import RedisBroker
from faststream.specification import AsyncAPI
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox import OutboxBroker, OutboxRouter, TestOutboxBroker
from tests.conftest import PASSWORD


class Order(BaseModel):
    id: int


def schema_of(broker: OutboxBroker) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(AsyncAPI(broker, schema_version="3.0.0").to_specification().to_json())
    return schema


def test_subscribers_and_publishers_are_channels_of_their_queues(broker: OutboxBroker) -> None:
    router = OutboxRouter(prefix="shop-")

    @router.subscriber(["orders", "returns"])
    @broker.publisher("invoices", description="What to pay.", title="Invoices")
    async def handle(order: Order) -> list[int]:
        """Takes orders."""
        return []

    @broker.subscriber("hidden", include_in_schema=False)
    async def hidden(order: Order) -> None: ...

    @broker.subscriber("titled", title="Titled", description="Described.")
    async def titled(order: Order) -> None: ...

    broker.publisher("secret", include_in_schema=False)
    broker.publisher("typed", schema=int)
    broker.include_router(router)

    schema = schema_of(broker)
    addresses = sorted(channel["address"] for channel in schema["channels"].values())
    assert addresses == ["invoices", "shop-orders", "shop-returns", "titled", "typed"]
    channels = {channel["address"]: (name, channel) for name, channel in schema["channels"].items()}
    assert channels["shop-orders"][1]["description"] == "Takes orders."
    assert channels["titled"][0] == "Titled"
    assert channels["titled"][1]["description"] == "Described."
    assert channels["invoices"][0] == "Invoices"
    assert channels["invoices"][1]["description"] == "What to pay."
    actions = sorted(operation["action"] for operation in schema["operations"].values())
    assert actions == ["receive", "receive", "receive", "send", "send"]
    assert "Order" in schema["components"]["schemas"]
    assert "array" in json.dumps(schema), "what the handler returns is the publisher's payload"


def test_the_engines_password_and_user_appear_nowhere(broker: OutboxBroker) -> None:
    text = json.dumps(schema_of(broker))
    assert PASSWORD not in text
    assert "user-of-db" not in text
    (server,) = schema_of(broker)["servers"].values()
    assert (server["host"], server["pathname"], server["protocol"]) == ("127.0.0.1:1", "/shop", "postgresql")
    assert PASSWORD not in repr(broker)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("postgresql+asyncpg:///shop", "localhost:5432"),
        ("postgresql+asyncpg://u:p@[::1]:5433/shop", "[::1]:5433"),
        ("postgresql+asyncpg://u:p@db/shop?ssl=require&password=p2", "db:5432"),
    ],
)
async def test_the_address_of_the_server_is_shown(outbox_table: Table, url: str, host: str) -> None:
    engine = create_async_engine(url)
    (server,) = schema_of(OutboxBroker(engine, outbox_table=outbox_table))["servers"].values()
    assert (server["host"], server["pathname"]) == (host, "/shop")
    await engine.dispose()


def test_the_options_for_the_servers_entry_are_honoured(engine: AsyncEngine, outbox_table: Table) -> None:
    broker = OutboxBroker(
        engine,
        outbox_table=outbox_table,
        specification_url="postgresql://public:1/other",
        protocol="outbox",
        protocol_version="18",
        description="The shop's.",
        tags=[{"name": "tagged"}],
    )
    (server,) = schema_of(broker)["servers"].values()
    assert server["host"] == "public:1"
    assert (server["protocol"], server["protocolVersion"], server["description"]) == ("outbox", "18", "The shop's.")
    assert server["tags"] == [{"name": "tagged"}]


@pytest.mark.parametrize("version", ["3.0.0", "2.6.0"])
def test_forwarders_send_to_the_channels_of_their_destinations(broker: OutboxBroker, version: str) -> None:
    kafka, redis = KafkaBroker(acks="all"), RedisBroker()
    router = OutboxRouter(prefix="shop-")
    router.forwarder("orders", to=kafka.publisher("orders.v1", description="Orders.", schema=Order))
    broker.forwarder("clicks", to=redis.publisher(stream="clicks.v1"))
    broker.forwarder("clicks", to=kafka.publisher("clicks.v1"), tee=True)
    broker.forwarder("hidden", to=kafka.publisher("hidden.v1", include_in_schema=False))
    unsafe = KafkaBroker(acks=0).publisher("unsafe.v1")
    broker.forwarder("unsafe", to=unsafe)
    broker.include_router(router)

    schema = json.loads(AsyncAPI(broker, schema_version=version).to_specification().to_json())
    channels = schema["channels"]
    assert set(channels) == {
        "shop-orders:kafka:orders.v1:Forwarder",
        "clicks:redis:clicks.v1:Forwarder",
        "clicks:kafka:clicks.v1:Forwarder",
        "unsafe:unsafe.v1:Forwarder",
    }
    orders = channels["shop-orders:kafka:orders.v1:Forwarder"]
    assert orders["description"] == "Orders."
    assert orders["bindings"]["kafka"]["topic"] == "orders.v1"
    assert "clicks" in channels["clicks:redis:clicks.v1:Forwarder"]["description"]
    assert "Order" in schema["components"]["schemas"]
    if version == "3.0.0":
        assert orders["address"] == "orders.v1"
        actions = {name: operation["action"] for name, operation in schema["operations"].items()}
        assert actions == dict.fromkeys(channels, "send")
    else:
        # In version 2 an application says what others may do: they subscribe to what it sends.
        assert all("subscribe" in channel for channel in channels.values())


async def test_what_stands_among_the_publishers_for_a_forwarder_does_nothing(broker: OutboxBroker) -> None:
    kafka = KafkaBroker(acks="all")
    broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    (entry,) = broker.publishers
    async with TestOutboxBroker(broker), TestKafkaBroker(kafka):
        assert await broker.publish({}, queue="orders", session=None)
        kafka.publishers[0].mock.assert_called_once_with({})
    await entry.start()


def test_what_is_no_publisher_is_not_in_the_document(broker: OutboxBroker) -> None:
    broker.forwarder("orders", to=KafkaBroker())  # refused when the broker starts
    assert schema_of(broker)["channels"] == {}


async def test_the_page_of_an_application_works_and_tries_nothing_out(broker: OutboxBroker) -> None:
    """FastStream's page would put the live broker into test mode, and what others publish then would be lost."""

    @broker.subscriber("orders")
    async def handle(order: Order) -> None:
        raise AssertionError

    app = AsgiFastStream(broker, asyncapi_path="/docs")
    async with AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client:
        assert "orders" in (await client.get("/docs")).text
        assert "orders" in (await client.get("/docs.json")).json()["channels"]["orders:Handle"]["address"]
        for options in ({}, {"sendToRealBroker": True}):
            body = {"channelName": "orders:Handle", "message": {"message": {"id": 1}}, "options": options}
            response = await client.post("/docs/try", json=body)
            assert response.status_code == 500
            assert not isinstance(broker.start, mock.NonCallableMock)
        assert "cannot be tried out" in (await client.post("/docs/try", json={"channelName": "orders:Handle"})).text
