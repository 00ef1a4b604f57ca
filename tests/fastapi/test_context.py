"""The `Annotated` shortcuts: in subscribers, in HTTP routes of every kind, in dependencies of both."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, WebSocket
from faststream.context import ContextRepo as FastStreamContextRepo
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.kafka.fastapi import Context as KafkaContext
from faststream.kafka.fastapi import KafkaBroker as AnnotatedKafkaBroker
from faststream.kafka.fastapi import KafkaRouter
from faststream.message import StreamMessage
from httpx import ASGITransport, AsyncClient

from faststream_outbox import OutboxBroker as PlainBroker
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.fastapi import (
    Context,
    ContextRepo,
    Logger,
    OutboxBroker,
    OutboxMessage,
    OutboxProducer,
    OutboxRouter,
)
from faststream_outbox.publisher.producer import OutboxProducer as PlainProducer

MakeRouter = Callable[..., OutboxRouter]
Serving = Callable[..., Any]


def app_of(*routers: APIRouter) -> FastAPI:
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    return app


async def get_without_lifespan(app: FastAPI, path: str) -> Any:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client:
        return await client.get(path)


async def first_of_websocket(app: FastAPI, path: str) -> Any:
    """Open a websocket and give the JSON that the application sends first."""
    sent: list[Any] = []
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
    }

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        sent.append(event)

    await app(scope, receive, send)
    return next(json.loads(event["text"]) for event in sent if event["type"] == "websocket.send")


async def name_of(broker: OutboxBroker) -> str:
    """A dependency that takes a shortcut itself; a broker is known here by its description."""
    return broker.specification.description or ""


Name = Annotated[str, Depends(name_of)]


async def test_in_a_subscriber(router: OutboxRouter, serving: Serving) -> None:
    got: dict[str, Any] = {}

    @router.subscriber("orders")
    async def handle(
        body: dict[str, int],
        *,
        broker: OutboxBroker,
        message: OutboxMessage,
        producer: OutboxProducer,
        repo: ContextRepo,
        logger: Logger,
        headers: Annotated[dict[str, str], Context("message.headers")],
        nothing: Annotated[None, Context("no.such.thing", default=None)],
        described: Name,
    ) -> None:
        got.update(locals())
        got["expected logger"] = router.broker.config.logger.logger.logger

    async with serving(app_of(router), router):
        await router.broker.publish({"id": 1}, queue="orders", session=None, key="k", headers={"trace": "t"})

    assert got["body"] == {"id": 1}
    assert got["broker"] is router.broker
    assert (got["message"].queue, got["message"].key) == ("orders", "k")
    assert got["producer"] is router.broker.config.producer
    assert got["repo"] is router.context
    assert got["logger"] is got["expected logger"]
    assert got["headers"]["trace"] == "t"
    assert got["nothing"] is None
    assert got["described"] == ""


async def test_in_a_route_of_the_router(router: OutboxRouter, serving: Serving) -> None:
    got: dict[str, Any] = {}

    @router.get("/")
    async def get(
        *,
        broker: OutboxBroker,
        producer: OutboxProducer,
        repo: ContextRepo,
        logger: Logger,
        again: Annotated[PlainBroker, Context("broker")],
        writer: Annotated[Any, Context("broker._producer.writer")],
        nothing: Annotated[str, Context("no.such.thing", default="default")],
    ) -> None:
        got.update(locals())

    async with serving(app_of(router), router) as client:
        writer = router.broker.config.producer.writer
        assert (await client.get("/")).status_code == 200

    assert got["broker"] is got["again"] is router.broker
    assert isinstance(got["producer"], PlainProducer)
    assert got["writer"] is writer
    assert isinstance(got["repo"], FastStreamContextRepo)
    assert got["repo"] is router.context
    assert got["logger"] is not None
    assert got["nothing"] == "default"


async def test_a_route_of_the_router_needs_no_lifespan(router: OutboxRouter) -> None:
    got: dict[str, Any] = {}

    @router.get("/")
    def get(broker: OutboxBroker, logger: Logger) -> None:
        got.update(locals())

    assert (await get_without_lifespan(app_of(router), "/")).status_code == 200
    assert got["broker"] is router.broker
    assert isinstance(got["logger"], logging.Logger)


async def test_a_router_that_does_not_log(make_router: MakeRouter, serving: Serving) -> None:
    router = make_router(logger=None)

    @router.get("/")
    def get(logger: Logger) -> None:
        logger.info("to nowhere")

    assert (await get_without_lifespan(app_of(router), "/")).status_code == 200
    async with serving(app_of(router), router) as client:
        assert (await client.get("/")).status_code == 200


async def test_in_a_plain_router_of_the_application(router: OutboxRouter, serving: Serving) -> None:
    plain = APIRouter(prefix="/plain")

    @plain.get("/")
    async def get(broker: OutboxBroker) -> bool:
        return broker is router.broker

    app = app_of(plain, router)

    @app.get("/own")
    async def own(broker: OutboxBroker) -> bool:
        return broker is router.broker

    async with serving(app, router) as client:
        assert (await client.get("/plain/")).json() is True
        assert (await client.get("/own")).json() is True


async def test_a_plain_route_without_the_lifespan_says_what_is_missing(router: OutboxRouter) -> None:
    app = app_of(router)

    @app.get("/own")
    async def own(broker: OutboxBroker) -> None: ...

    with pytest.raises(ConfigError, match=r"no OutboxRouter runs in this application.*lifespan"):
        await get_without_lifespan(app, "/own")


async def test_after_the_lifespan_a_plain_route_finds_no_broker(router: OutboxRouter, serving: Serving) -> None:
    app = app_of(router)

    @app.get("/own")
    async def own(broker: OutboxBroker) -> None: ...

    async with serving(app, router) as client:
        assert (await client.get("/own")).status_code == 200
    with pytest.raises(ConfigError, match="no OutboxRouter runs"):
        await get_without_lifespan(app, "/own")


async def test_with_two_routers_a_route_has_the_broker_of_its_own(make_router: MakeRouter, serving: Serving) -> None:
    routers = [make_router(prefix=f"/{name}", description=name) for name in ("one", "two")]
    for router in routers:

        @router.get("/name", dependencies=[Depends(name_of)])
        async def get(broker: OutboxBroker, name: Name) -> list[str | None]:
            return [broker.specification.description, name]

        @router.subscriber("orders")
        async def handle(body: str, broker: OutboxBroker, name: Name) -> None:
            received.append((body, broker.specification.description, name))

    received: list[Any] = []
    app = app_of(*routers)

    @app.get("/which")
    async def which(broker: OutboxBroker) -> None: ...

    async with serving(app, *routers) as client:
        for name in ("one", "two"):
            assert (await client.get(f"/{name}/name")).json() == [name, name]
        with pytest.raises(ConfigError, match="2 OutboxRouters run in this application: put the route on the router"):
            await client.get("/which")
        for router in routers:
            await router.broker.publish("tea", queue="orders", session=None)

    assert received == [("tea", "one", "one"), ("tea", "two", "two")]


async def test_dependencies_of_a_router_and_of_its_inclusion(make_router: MakeRouter, serving: Serving) -> None:
    """They run before the route's own, and have the broker of the route's router too."""
    names: list[str] = []

    def note(name: Name) -> None:
        names.append(name)

    routers = [make_router(description=name, dependencies=[Depends(note)]) for name in ("one", "two")]
    app = FastAPI(dependencies=[Depends(note)])
    for number, router in enumerate(routers):

        @router.get("/")
        async def get() -> None: ...

        group = APIRouter(prefix="/group", dependencies=[Depends(note)])
        group.include_router(router, prefix=f"/{number}", dependencies=[Depends(note)])
        app.include_router(group, prefix="/api", dependencies=[Depends(note)])

    async with serving(app, *routers) as client:
        for number, name in enumerate(("one", "two")):
            assert (await client.get(f"/api/group/{number}/")).status_code == 200
            assert set(names) == {name}
            names.clear()


async def test_beside_a_kafka_router(router: OutboxRouter, serving: Serving) -> None:
    kafka = KafkaRouter("localhost:9092", prefix="/kafka", schema_url=None)
    got: list[Any] = []

    @kafka.subscriber("topic")
    async def on_topic(
        body: str,
        broker: AnnotatedKafkaBroker,
        again: Annotated[Any, KafkaContext("broker")],
        outbox: Annotated[Any, Depends(lambda: router.broker)],
    ) -> None:
        got.append((body, broker, again, outbox))

    @kafka.get("/broker")
    async def get(broker: OutboxBroker) -> bool:
        return broker is router.broker

    @router.subscriber("orders")
    async def on_order(body: str, broker: OutboxBroker) -> None:
        got.append((body, broker))

    @router.get("/broker")
    async def own(broker: OutboxBroker) -> bool:
        return broker is router.broker

    for app in (app_of(router, kafka), app_of(kafka, router)):
        async with TestKafkaBroker(kafka.broker), serving(app, router) as client:
            assert (await client.get("/kafka/broker")).json() is True
            assert (await client.get("/broker")).json() is True
            await kafka.broker.publish("coffee", "topic")
            await router.broker.publish("tea", queue="orders", session=None)
            await _reset(kafka)

        assert isinstance(kafka.broker, KafkaBroker)
        assert got == [("coffee", kafka.broker, kafka.broker, router.broker), ("tea", router.broker)]
        got.clear()


async def _reset(kafka: KafkaRouter) -> None:
    # FastStream starts a router's broker once in its life, and warns of the second time.
    kafka._lifespan_started = False


async def test_a_message_means_nothing_in_a_route(router: OutboxRouter, serving: Serving) -> None:
    @router.get("/message")
    async def message(message: OutboxMessage) -> None: ...

    @router.get("/headers")
    async def headers(headers: Annotated[Any, Context("message.headers")]) -> None: ...

    @router.get("/default")
    async def default(message: Annotated[Any, Context("message", default=None)]) -> bool:
        return message is None

    @router.get("/headers-or-none")
    async def headers_or_none(headers: Annotated[Any, Context("message.headers", default=None)]) -> bool:
        return headers is None

    @router.get("/nothing")
    async def nothing(nothing: Annotated[Any, Context("nothing")]) -> None: ...

    async with serving(app_of(router), router) as client:
        # As in a handler that asks a route of its own application.
        with router.broker.context.scope("message", StreamMessage(b"", b"", headers={"a": "b"})):
            assert (await client.get("/headers-or-none")).json() is True
        for path in ("/message", "/headers"):
            with pytest.raises(ConfigError, match=r"Context\('message.*'\) has no value.*a request has none"):
                await client.get(path)
        assert (await client.get("/default")).json() is True
        with pytest.raises(ConfigError, match=r"Context\('nothing'\) has no value in an HTTP route: it is not set"):
            await client.get("/nothing")


async def test_what_is_not_set_in_a_subscriber(router: OutboxRouter, serving: Serving) -> None:
    @router.subscriber("orders")
    async def handle(body: str, nothing: Annotated[Any, Context("nothing")]) -> None: ...

    async with serving(app_of(router), router):
        with pytest.raises(ConfigError, match=r"Context\('nothing'\) has no value in a subscriber: it is not set"):
            await router.broker.publish("tea", queue="orders", session=None)


async def test_an_initial_value_is_kept(router: OutboxRouter, serving: Serving) -> None:
    @router.get("/")
    async def get(numbers: Annotated[list[int], Context("numbers", initial=list)]) -> list[int]:
        numbers.append(len(numbers))
        return numbers

    async with serving(app_of(router), router) as client:
        assert (await client.get("/")).json() == [0]
        assert (await client.get("/")).json() == [0, 1]
    assert router.context.get("numbers") == [0, 1]


async def test_what_the_application_puts_into_the_context(router: OutboxRouter, serving: Serving) -> None:
    router.context.set_global("settings", {"currency": "EUR"})
    got: list[str] = []

    @router.get("/")
    async def get(currency: Annotated[str, Context("settings.currency")]) -> str:
        return currency

    @router.subscriber("orders")
    async def handle(body: str, currency: Annotated[str, Context("settings.currency")]) -> None:
        got.append(currency)

    async with serving(app_of(router), router) as client:
        assert (await client.get("/")).json() == "EUR"
        await router.broker.publish("tea", queue="orders", session=None)
    assert got == ["EUR"]


async def test_publishing_from_a_route_within_a_subscriber(router: OutboxRouter, serving: Serving) -> None:
    """A request that is served while a message is handled keeps its own context, and the message its own."""
    got: list[Any] = []

    @router.get("/")
    async def get(broker: OutboxBroker, message: Annotated[Any, Context("message", default=None)]) -> bool:
        return message is None

    @router.subscriber("orders")
    async def handle(body: str, repo: ContextRepo) -> None:
        got.append(await asyncio.create_task(client.get("/")))
        got.append(repo.get_local("message").queue)

    async with serving(app_of(router), router) as client:
        await router.broker.publish("tea", queue="orders", session=None)
    assert got[0].json() is True
    assert got[1] == "orders"


async def test_concurrent_requests(make_router: MakeRouter, serving: Serving) -> None:
    routers = [make_router(prefix=f"/{name}", description=name) for name in ("one", "two")]
    meeting = asyncio.Barrier(10)

    async def meet() -> None:
        await meeting.wait()

    for router in routers:

        @router.get("/", dependencies=[Depends(meet)])
        async def get(before: Name, met: Annotated[None, Depends(meet)], broker: OutboxBroker) -> list[str | None]:
            return [before, broker.specification.description]

    async with serving(app_of(*routers), *routers) as client:
        responses = await asyncio.gather(*(client.get(f"/{name}/") for name in ("one", "two") * 5))
    assert [response.json() for response in responses] == [["one", "one"], ["two", "two"]] * 5


async def test_in_a_synchronous_route_and_dependency(router: OutboxRouter, serving: Serving) -> None:
    def is_it(broker: OutboxBroker) -> bool:
        return broker is router.broker

    @router.get("/")
    def get(broker: OutboxBroker, it: Annotated[bool, Depends(is_it)]) -> bool:
        return it and broker is router.broker

    async with serving(app_of(router), router) as client:
        assert (await client.get("/")).json() is True


async def test_in_a_background_task(router: OutboxRouter, serving: Serving) -> None:
    got: list[str] = []

    async def later(broker: PlainBroker) -> None:
        await broker.publish("from a task", queue="orders", session=None)

    @router.post("/")
    async def post(broker: OutboxBroker, tasks: BackgroundTasks) -> None:
        tasks.add_task(later, broker)

    @router.subscriber("orders")
    async def handle(body: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(got.append, body)

    async with serving(app_of(router), router) as client:
        await client.post("/")
    assert got == ["from a task"]


async def test_in_a_websocket_route(make_router: MakeRouter) -> None:
    routers = [make_router(prefix=f"/{name}", description=name) for name in ("one", "two")]
    for router in routers:

        @router.websocket("/talk")
        async def talk(websocket: WebSocket, broker: OutboxBroker, name: Name) -> None:
            await websocket.accept()
            await websocket.send_json([broker.specification.description, name])
            await websocket.close()

    app = app_of(*routers)
    for name in ("one", "two"):
        assert await first_of_websocket(app, f"/{name}/talk") == [name, name]


async def test_the_shortcuts_are_not_parameters_of_the_api(router: OutboxRouter) -> None:
    @router.post("/orders")
    async def create(
        body: dict[str, int], broker: OutboxBroker, logger: Logger, repo: ContextRepo, producer: OutboxProducer
    ) -> None: ...

    operation = app_of(router).openapi()["paths"]["/orders"]["post"]
    assert "parameters" not in operation
    assert list(operation["requestBody"]["content"]) == ["application/json"]


async def test_they_can_be_overridden(router: OutboxRouter, serving: Serving) -> None:
    """A dependency that takes a shortcut is overridden as any other."""

    @router.get("/")
    async def get(name: Name) -> str:
        return name

    app = app_of(router)
    app.dependency_overrides[name_of] = lambda: "overridden"
    async with serving(app, router) as client:
        assert (await client.get("/")).json() == "overridden"


async def test_a_part_of_the_message_has_its_default_in_an_http_route(router: OutboxRouter, serving: Serving) -> None:
    @router.get("/trace")
    async def trace(trace: Annotated[str, Context("message.headers.trace", default="none")]) -> str:
        return trace

    app = app_of(router)
    async with serving(app, router):
        answer = await get_without_lifespan(app, "/trace")
    assert answer.json() == "none"
