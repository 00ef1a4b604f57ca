"""How the outbox appears in AsyncAPI, and that nothing secret does."""

import json
from typing import Any

import pytest
from faststream.specification import AsyncAPI
from pydantic import BaseModel
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from faststream_outbox import OutboxBroker, OutboxRouter

from .conftest import PASSWORD


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
