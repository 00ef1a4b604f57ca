"""`OutboxRouter` as a FastAPI router: options, lifespan, subscribers' arguments, the AsyncAPI page."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Annotated, Any
from unittest import mock

import faststream
import pytest
from asgi_lifespan import LifespanManager
from fastapi import APIRouter, Depends, FastAPI, Header
from fastapi.exceptions import RequestValidationError
from faststream.exceptions import SetupError
from faststream.middlewares import BaseMiddleware
from pydantic import BaseModel
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine

import faststream_outbox
from faststream_outbox import TestOutboxBroker, make_dlq_table, make_outbox_table
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.fastapi import OutboxBroker, OutboxResponse, OutboxRouter

MakeRouter = Callable[..., OutboxRouter]
Serving = Callable[..., Any]


class Order(BaseModel):
    item: str
    quantity: int = 1


def app_of(*routers: APIRouter, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    for router in routers:
        app.include_router(router)
    return app


# ------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("option", "value", "hint"),
    [
        ("apply_types", False, "FastAPI resolves"),
        ("apply_types", True, "FastAPI resolves"),
        ("provider", None, "dependency_overrides"),
        ("routers", (), "include_router"),
    ],
)
def test_options_that_do_not_fit_are_refused(make_router: MakeRouter, option: str, value: Any, hint: str) -> None:
    with pytest.raises(TypeError, match=f"OutboxRouter does not take {option}: .*{hint}"):
        make_router(**{option: value})


def test_dependencies_of_faststream_are_refused(make_router: MakeRouter) -> None:
    def dependency() -> None: ...

    with pytest.raises(TypeError, match=r"dependencies: .*FastAPI's Depends"):
        make_router(dependencies=[faststream.Depends(dependency)])
    with pytest.raises(TypeError, match=r"dependencies: .*FastAPI's Depends"):
        make_router().subscriber("orders", dependencies=[faststream.Depends(dependency)])


async def test_a_handler_with_faststreams_depends_is_refused(router: OutboxRouter) -> None:
    @router.subscriber("orders")
    async def handle(body: str, it: Annotated[int, faststream.Depends(lambda: 1)]) -> None: ...

    with pytest.raises(SetupError, match=r"fastapi\.Depends"):
        await router.broker.start()


def test_unknown_options_are_refused(make_router: MakeRouter) -> None:
    with pytest.raises(TypeError, match="max_payload"):
        make_router(max_payload=3)
    with pytest.raises(TypeError, match="max_worker"):
        make_router().subscriber("orders", max_worker=3)


def test_the_brokers_options_go_through(engine: AsyncEngine) -> None:
    class Middleware(BaseMiddleware):
        pass

    metadata = MetaData()
    dlq_table = make_dlq_table(metadata)
    router = OutboxRouter(
        engine,
        outbox_table=make_outbox_table(metadata),
        dlq_table=dlq_table,
        graceful_timeout=3.5,
        max_payload_bytes=10,
        middlewares=[Middleware],
        id_generator=lambda: "id",
        description="the shop's outbox",
        specification_url="postgresql://public/shop",
        prefix="/api",
        tags=["shop"],
    )

    broker = router.broker
    assert broker.engine is engine
    assert broker.config.graceful_timeout == 3.5
    assert Middleware in broker.config.broker_middlewares
    assert broker.config.id_generator() == "id"
    assert broker.specification.description == "the shop's outbox"
    assert broker.specification.url == ["postgresql://public/shop"]
    assert (router.prefix, router.tags) == ("/api", ["shop"])


async def test_a_payload_over_the_limit_is_refused(make_router: MakeRouter, serving: Serving) -> None:
    router = make_router(max_payload_bytes=10)
    async with serving(app_of(router), router):
        with pytest.raises(ValueError, match="10"):
            await router.broker.publish("eleven chars", queue="orders", session=None)


def test_a_second_consumer_of_a_queue_is_refused(router: OutboxRouter) -> None:
    router.subscriber("orders")(lambda body: None)
    with pytest.raises(ConfigError, match="'orders' has a consumer already"):
        router.subscriber(["returns", "orders"])


# ------------------------------------------------------------------------------------------------------------ lifespan


async def test_it_starts_and_stops_with_the_application(router: OutboxRouter) -> None:
    events: list[str] = []

    @router.after_startup
    async def started(app: FastAPI) -> dict[str, str]:
        events.append("started")
        return {"shop": "open"}

    @router.on_broker_shutdown
    async def stopping(app: FastAPI) -> None:
        events.append("stopping")

    app = app_of(router)
    with (
        mock.patch.object(router.broker, "start", side_effect=lambda: events.append("broker starts")),
        mock.patch.object(router.broker, "stop", side_effect=lambda: events.append("broker stops")),
    ):
        async with LifespanManager(app) as manager:
            assert events == ["broker starts", "started"]
            assert manager._state["broker"] is router.broker
            assert manager._state["shop"] == "open"
    assert events == ["broker starts", "started", "stopping", "broker stops"]


async def test_the_applications_lifespan_is_around_the_routers(make_router: MakeRouter) -> None:
    events: list[str] = []

    def lifespan(name: str) -> Any:
        @asynccontextmanager
        async def run(app: FastAPI) -> AsyncIterator[dict[str, str]]:
            events.append(f"{name} begins")
            yield {name: "runs"}
            events.append(f"{name} ends")

        return run

    router = make_router(lifespan=lifespan("router"))
    app = app_of(router, lifespan=lifespan("app"))
    with (
        mock.patch.object(router.broker, "start", side_effect=lambda: events.append("broker starts")),
        mock.patch.object(router.broker, "stop", side_effect=lambda: events.append("broker stops")),
    ):
        async with LifespanManager(app) as manager:
            assert {"app", "router", "broker"} <= set(manager._state)

    begin, end = events[:3], events[3:]
    assert begin == ["app begins", "router begins", "broker starts"]
    assert end == ["broker stops", "router ends", "app ends"]


async def test_a_lifespan_that_fails_stops_the_broker(router: OutboxRouter) -> None:
    class Trouble(Exception):
        pass

    @router.after_startup
    async def fail(app: FastAPI) -> None:
        raise Trouble

    app = app_of(router)
    async with TestOutboxBroker(router.broker):
        with pytest.raises(Trouble):
            async with LifespanManager(app):
                pass
        router._after_startup_hooks.clear()
        async with LifespanManager(app):
            assert app.state.faststream_outbox_brokers == [router.broker]
    assert app.state.faststream_outbox_brokers == []


async def test_the_lifespan_runs_many_times(router: OutboxRouter, serving: Serving) -> None:
    got: list[str] = []

    @router.subscriber("orders")
    async def handle(body: str) -> None:
        got.append(body)

    @router.post("/orders")
    async def post(broker: OutboxBroker) -> None:
        await broker.publish("tea", queue="orders", session=None)

    app = app_of(router)
    for run in range(3):
        async with serving(app, router) as client:
            assert (await client.post("/orders")).status_code == 200
            assert (await client.get("/asyncapi.json")).status_code == 200
            app.openapi_schema = None
            # FastAPI warns of operations that are there twice.
            paths = (await client.get("/openapi.json")).json()["paths"]
            assert set(paths) == {"/orders", "/asyncapi", "/asyncapi.json", "/asyncapi.yaml"}
        assert got == ["tea"] * (run + 1)


async def test_in_two_applications_one_after_the_other(router: OutboxRouter, serving: Serving) -> None:
    one, two = app_of(router, title="one"), app_of(router, title="two")
    for app in (one, one, two):
        async with serving(app, router) as client:
            assert (await client.get("/asyncapi.json")).json()["info"]["title"] == app.title


async def test_the_lifespan_handed_to_the_application_as_well(router: OutboxRouter, serving: Serving) -> None:
    """As FastAPI before 0.112.2 needed it; FastStream warns that it no longer does."""
    app = app_of(router, lifespan=router.lifespan_context)

    @app.get("/")
    async def get(broker: OutboxBroker) -> bool:
        return broker is router.broker

    with pytest.warns(RuntimeWarning, match="lifespan_context"):
        async with serving(app, router) as client:
            assert (await client.get("/")).json() is True


# --------------------------------------------------------------------------------------------------------- subscribers


async def test_a_model_as_the_body(router: OutboxRouter, serving: Serving) -> None:
    got: list[Any] = []

    @router.subscriber("orders")
    async def handle(order: Order) -> None:
        got.append(order)

    async with serving(app_of(router), router):
        await router.broker.publish(Order(item="tea", quantity=2), queue="orders", session=None)
        await router.broker.publish({"item": "milk"}, queue="orders", session=None)
        with pytest.raises(RequestValidationError, match="item"):
            await router.broker.publish({"quantity": 2}, queue="orders", session=None)
    assert got == [Order(item="tea", quantity=2), Order(item="milk")]


async def test_several_parameters(router: OutboxRouter, serving: Serving) -> None:
    got: list[Any] = []

    @router.subscriber("orders")
    async def handle(item: str, quantity: int, trace: Annotated[str, Header()], note: str = "none") -> None:
        got.append((item, quantity, trace, note))

    async with serving(app_of(router), router):
        headers = {"trace": "t-1"}
        await router.broker.publish({"item": "tea", "quantity": "2"}, queue="orders", session=None, headers=headers)
    assert got == [("tea", 2, "t-1", "none")]


@pytest.mark.parametrize(
    ("kind", "body"),
    [(str, "tea"), (int, 7), (list[int], [1, 2]), (dict, {"a": {"b": 1}}), (dict, {}), (bytes, b"\xff\x00")],
)
async def test_bodies_of_every_kind(router: OutboxRouter, serving: Serving, kind: Any, body: Any) -> None:
    got: list[Any] = []

    @router.subscriber("orders")
    async def handle(body: kind) -> None:  # type: ignore[valid-type]
        got.append(body)

    async with serving(app_of(router), router):
        await router.broker.publish(body, queue="orders", session=None)
    assert got == [body]


async def test_a_handler_without_parameters(router: OutboxRouter, serving: Serving) -> None:
    got: list[None] = []

    @router.subscriber("orders")
    async def handle() -> None:
        got.append(None)

    async with serving(app_of(router), router):
        await router.broker.publish("tea", queue="orders", session=None)
    assert got == [None]


async def test_a_synchronous_handler(router: OutboxRouter, serving: Serving) -> None:
    got: list[Any] = []

    def dependency(broker: OutboxBroker) -> str:
        return type(broker).__name__

    @router.subscriber("orders")
    def handle(order: Order, name: Annotated[str, Depends(dependency)]) -> OutboxResponse:
        return OutboxResponse(f"{order.item} {name}", queue="invoices", session=None)  # type: ignore[arg-type]

    @router.subscriber("invoices")
    def invoice(body: str) -> None:
        got.append(body)

    async with serving(app_of(router), router):
        await router.broker.publish({"item": "tea"}, queue="orders", session=None)
    assert got == ["tea OutboxBroker"]


async def test_dependencies_of_router_and_subscriber_run_for_each_message(
    make_router: MakeRouter, serving: Serving
) -> None:
    events: list[str] = []

    def note(name: str) -> Any:
        async def run() -> AsyncIterator[None]:
            events.append(f"{name} opens")
            yield
            events.append(f"{name} closes")

        return Depends(run)

    router = make_router(dependencies=[note("router")])

    @router.subscriber("orders", dependencies=[note("subscriber")])
    async def handle(body: str, own: Annotated[None, note("own")]) -> None:
        events.append(body)

    @router.get("/")
    async def get() -> None:
        events.append("get")

    async with serving(app_of(router), router) as client:
        await router.broker.publish("tea", queue="orders", session=None)
        opens, closes = events[:3], events[4:]
        assert opens == ["router opens", "subscriber opens", "own opens"]
        assert events[3] == "tea"
        assert closes == ["own closes", "subscriber closes", "router closes"]
        events.clear()
        await client.get("/")
        assert events == ["router opens", "get", "router closes"]


async def test_overridden_dependencies(router: OutboxRouter, serving: Serving) -> None:
    got: list[str] = []

    def name() -> str:
        raise AssertionError

    @router.subscriber("orders")
    async def handle(body: str, name: Annotated[str, Depends(name)]) -> None:
        got.append(name)

    @router.get("/")
    async def get(name: Annotated[str, Depends(name)]) -> str:
        return name

    app = app_of(router)
    app.dependency_overrides[name] = lambda: "overridden"
    async with serving(app, router) as client:
        await router.broker.publish("tea", queue="orders", session=None)
        assert (await client.get("/")).json() == "overridden"
    assert got == ["overridden"]


async def test_overridden_dependencies_without_a_lifespan(make_router: MakeRouter) -> None:
    got: list[str] = []
    app = FastAPI()
    router = make_router(dependency_overrides_provider=app)

    def name() -> str:
        raise AssertionError

    @router.subscriber("orders")
    async def handle(body: str, name: Annotated[str, Depends(name)]) -> None:
        got.append(name)

    app.include_router(router)
    app.dependency_overrides[name] = lambda: "overridden"
    async with TestOutboxBroker(router.broker) as broker:
        await broker.publish("tea", queue="orders", session=None)
    assert got == ["overridden"]


async def test_a_response_model(router: OutboxRouter, serving: Serving) -> None:
    got: list[Any] = []
    to_invoices = router.publisher("invoices")

    @to_invoices
    @router.subscriber("orders", response_model=Order, response_model_exclude={"quantity"})
    async def handle(body: str) -> dict[str, Any]:
        return {"item": body, "quantity": 2, "secret": 1}

    @router.subscriber("invoices")
    async def invoice(body: dict[str, Any]) -> None:
        got.append(body)

    async with serving(app_of(router), router):
        await router.broker.publish("tea", queue="orders", session=None)
    assert got == [{"item": "tea"}]


async def test_a_subscriber_of_many_queues(router: OutboxRouter, serving: Serving) -> None:
    got: list[str] = []

    @router.subscriber(["orders", "returns"])
    async def handle(body: str) -> None:
        got.append(body)

    async with serving(app_of(router), router):
        await router.broker.publish("tea", queue="orders", session=None)
        await router.broker.publish("milk", queue="returns", session=None)
    assert got == ["tea", "milk"]


async def test_a_router_of_faststream_inside(router: OutboxRouter, serving: Serving) -> None:
    got: list[Any] = []
    inner = faststream_outbox.OutboxRouter(prefix="shop-")

    @inner.subscriber("orders")
    async def handle(order: Order, broker: OutboxBroker, one: Annotated[int, Depends(lambda: 1)]) -> OutboxResponse:
        got.append((order, broker, one))
        return OutboxResponse("an invoice", queue="shop-invoices", session=None)  # type: ignore[arg-type]

    @inner.subscriber("invoices")
    async def invoice(body: str) -> None:
        got.append(body)

    router.include_router(inner)
    async with serving(app_of(router), router):
        await router.broker.publish({"item": "tea"}, queue="shop-orders", session=None)
    assert got == [(Order(item="tea"), router.broker, 1), "an invoice"]


# --------------------------------------------------------------------------------------------------- the AsyncAPI page


async def test_the_asyncapi_page(make_router: MakeRouter, serving: Serving) -> None:
    router = make_router(description="the shop's outbox", specification_tags=[{"name": "shop"}])

    @router.subscriber(["orders", "returns"], description="Takes orders.")
    async def handle(order: Order) -> None: ...

    @router.subscriber("hidden", include_in_schema=False)
    async def hidden(body: str) -> None: ...

    router.publisher("invoices", title="Invoices", schema=Order)

    async with serving(app_of(router, title="The shop"), router) as client:
        texts = {}
        # FastStream writes YAML with a package that it does not install.
        for page in ("", ".json", *([".yaml"] if find_spec("yaml") else [])):
            response = await client.get(f"/asyncapi{page}")
            assert response.status_code == 200
            texts[page] = response.text
        # The page would let everyone publish to the live broker.
        assert (await client.post("/asyncapi/try", json={})).status_code == 404

    for text in texts.values():
        for word in ("orders", "returns", "invoices", "Takes orders.", "quantity", "The shop", "the shop"):
            assert word in text
        for secret in ("s3cret", "clerk", "hidden"):
            assert secret not in text
    document = json.loads(texts[".json"])
    [server] = document["servers"].values()
    assert (server["host"], server["pathname"], server["protocol"]) == (
        "database.invalid:5432",
        "/shop",
        "postgresql",
    )


async def test_without_pyyaml_there_is_no_yaml(
    make_router: MakeRouter, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> Any:
        return None if name == "yaml" else find_spec(name)

    monkeypatch.setattr("faststream_outbox.fastapi.router.find_spec", find)
    router = make_router(prefix="/api", schema_url="/docs/asyncapi")
    async with serving(app_of(router), router) as client:
        assert (await client.get("/api/docs/asyncapi.yaml")).status_code == 404
        assert (await client.get("/api/docs/asyncapi.json")).status_code == 200
        assert (await client.get("/api/docs/asyncapi")).status_code == 200
        assert (await client.post("/api/docs/asyncapi/try", json={})).status_code == 404


async def test_no_asyncapi_page(make_router: MakeRouter, serving: Serving) -> None:
    for options in ({"schema_url": None}, {"include_in_schema": False}):
        router = make_router(**options)
        async with serving(app_of(router), router) as client:
            assert (await client.get("/asyncapi")).status_code == 404


async def test_two_asyncapi_pages(make_router: MakeRouter, serving: Serving) -> None:
    routers = [make_router(schema_url=f"/asyncapi/{name}", description=name) for name in ("one", "two")]
    app = app_of(*routers)
    async with serving(app, *routers) as client:
        for name in ("one", "two"):
            [server] = (await client.get(f"/asyncapi/{name}.json")).json()["servers"].values()
            assert server["description"] == name
        app.openapi()
