"""A router in applications that run its lifespan, share it, or leave it out."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from asgi_lifespan import LifespanManager
from fastapi import Depends, FastAPI, Request, WebSocket
from faststream.kafka import KafkaBroker
from httpx import ASGITransport, AsyncClient

from faststream_outbox import ConfigError, TestOutboxBroker
from faststream_outbox.fastapi import OutboxBroker, OutboxRouter

MakeRouter = Callable[..., OutboxRouter]
AppOf = Callable[..., FastAPI]


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[AsyncClient]:
    """A client that runs no lifespan."""
    async with AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client:
        yield client


@pytest.fixture
def router(make_router: MakeRouter) -> OutboxRouter:
    router = make_router(logger=logging.getLogger("shop"), graceful_timeout=0.1)

    @router.subscriber("orders")
    async def handle(body: str) -> None: ...

    @router.get("/")
    async def get(broker: OutboxBroker) -> bool:
        return broker.running

    return router


@pytest.fixture
def errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.ERROR and "was not started" in record.getMessage()
    ]


# ----------------------------------------------------------------------------------------------- nobody starts it


async def test_a_request_without_a_lifespan_is_an_error_once(
    router: OutboxRouter, app_of: AppOf, errors: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(app_of(router)) as client:
        for _ in range(3):
            assert (await client.get("/")).json() is False
    (error,) = errors()
    for word in ("'orders'", "mounted", "FastAPI(lifespan=...)", "--lifespan on", "TestOutboxBroker", "broker.start()"):
        assert word in error
    assert {record.name for record in caplog.records if record.levelno >= logging.ERROR} == {"shop"}


async def test_in_a_mounted_application_it_is_an_error(
    router: OutboxRouter, app_of: AppOf, errors: Callable[[], list[str]]
) -> None:
    outer = FastAPI()
    outer.mount("/api", app_of(router))
    async with LifespanManager(outer) as manager, client_of(manager.app) as client:
        assert (await client.get("/api/")).json() is False
    assert len(errors()) == 1


async def test_where_the_lifespan_was_replaced_it_is_an_error(
    router: OutboxRouter, app_of: AppOf, errors: Callable[[], list[str]]
) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    app = app_of(router)
    app.router.lifespan_context = lifespan
    async with LifespanManager(app) as manager, client_of(manager.app) as client:
        assert (await client.get("/")).json() is False
    assert len(errors()) == 1


async def test_a_websocket_is_a_request_too(
    router: OutboxRouter, app_of: AppOf, errors: Callable[[], list[str]]
) -> None:
    @router.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        await socket.close()

    scope = {"type": "websocket", "path": "/socket", "query_string": b"", "headers": [], "subprotocols": []}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        sent.append(event["type"])

    await app_of(router)(scope, receive, send)
    assert sent == ["websocket.close"]
    assert len(errors()) == 1


async def test_a_forwarder_is_a_consumer_too(
    make_router: MakeRouter, app_of: AppOf, errors: Callable[[], list[str]]
) -> None:
    router = make_router(logger=logging.getLogger("shop"))
    router.forwarder("clicks", to=KafkaBroker(acks="all").publisher("clicks.v1"))
    router.get("/")(lambda: None)
    async with client_of(app_of(router)) as client:
        await client.get("/")
    assert "'clicks'" in errors()[0]


async def test_without_consumers_there_is_nothing_to_start(
    make_router: MakeRouter, app_of: AppOf, errors: Callable[[], list[str]]
) -> None:
    router = make_router()
    router.publisher("orders")
    router.subscriber("orders")  # without a handler
    router.get("/")(lambda: None)
    async with client_of(app_of(router)) as client:
        assert (await client.get("/")).status_code == 200
    assert errors() == []


async def test_what_is_started_is_no_error(
    router: OutboxRouter, app_of: AppOf, errors: Callable[[], list[str]]
) -> None:
    app = app_of(router)
    async with TestOutboxBroker(router.broker) as broker, client_of(app) as client:
        assert (await client.get("/")).status_code == 200
        await broker.publish("tea", queue="orders", session=None)
    async with client_of(app) as client:
        await router.broker.start()
        assert (await client.get("/")).json() is True
        await router.broker.stop()
    async with LifespanManager(app) as manager, client_of(manager.app) as client:
        assert (await client.get("/")).json() is True
    assert errors() == []


async def test_a_broker_without_a_log_is_told_of_as_well(
    make_router: MakeRouter, app_of: AppOf, errors: Callable[[], list[str]]
) -> None:
    router = make_router(logger=None)
    router.subscriber("orders")(lambda body: None)
    router.get("/")(lambda: None)
    async with client_of(app_of(router)) as client:
        await client.get("/")
    assert len(errors()) == 1


# ------------------------------------------------------------------------------------------------ several applications


async def test_the_broker_runs_until_the_last_application_ends(
    router: OutboxRouter, app_of: AppOf, recwarn: pytest.WarningsRecorder
) -> None:
    events: list[tuple[str, str]] = []
    router.after_startup(lambda app: events.append(("started", app.title)))
    router.on_broker_shutdown(lambda app: events.append(("stopping", app.title)))
    shop, admin = app_of(router), app_of(router)
    shop.title, admin.title = "shop", "admin"
    for reverse in (False, True):
        events.clear()
        first, second = LifespanManager(shop), LifespanManager(admin)
        ends_first, ends_last = (second, first) if reverse else (first, second)
        await first.__aenter__()
        await second.__aenter__()
        assert router.broker.running
        await ends_first.__aexit__()
        assert router.broker.running
        async with client_of(ends_last.app) as client:
            assert (await client.get("/")).json() is True
        await ends_last.__aexit__()
        assert not router.broker.running
        assert events[:2] == [("started", "shop"), ("started", "admin")]
        assert sorted(events[2:]) == [("stopping", "admin"), ("stopping", "shop")]
    # FastStream's own wrapper of handlers, since Python 3.14.
    assert not [each for each in recwarn.list if not each.filename.endswith("faststream/_internal/fastapi/route.py")]


async def test_applications_that_start_and_end_at_the_same_time(router: OutboxRouter, app_of: AppOf) -> None:
    managers = [LifespanManager(app_of(router)) for _ in range(3)]
    await asyncio.gather(*(manager.__aenter__() for manager in managers))
    assert router.broker.running
    await asyncio.gather(managers[0].__aexit__(), managers[1].__aexit__())
    assert router.broker.running
    await managers[2].__aexit__()
    assert not router.broker.running


async def test_handlers_see_the_application_that_runs(router: OutboxRouter, app_of: AppOf, serving: Any) -> None:
    got: list[tuple[str, str]] = []

    def name() -> str:
        raise AssertionError

    @router.subscriber("names")
    async def handle(body: str, request: Request, name: Annotated[str, Depends(name)]) -> None:
        got.append((request.app.title, name))

    apps = [app_of(router), app_of(router)]
    for app, title in zip(apps, ("shop", "admin"), strict=True):
        app.title = title
        app.dependency_overrides[name] = lambda title=title: f"of {title}"

    async def publish() -> None:
        await router.broker.publish("tea", queue="names", session=None)

    for app in apps:
        async with serving(app, router):
            await publish()
    assert got == [("shop", "of shop"), ("admin", "of admin")]

    got.clear()
    async with TestOutboxBroker(router.broker):
        shop, admin = map(LifespanManager, apps)
        await shop.__aenter__()
        await admin.__aenter__()
        await publish()
        await shop.__aexit__()
        await publish()
        await admin.__aexit__()
    assert got == [("shop", "of shop"), ("admin", "of admin")]


async def test_another_event_loop_is_refused_by_name(router: OutboxRouter, app_of: AppOf) -> None:
    shop, admin = app_of(router), app_of(router)
    shop.title, admin.title = "shop", "admin"
    refused: list[ConfigError] = []

    def run() -> None:
        async def start() -> None:
            async with LifespanManager(admin):
                pass

        try:
            asyncio.run(start())
        except ConfigError as error:
            refused.append(error)

    async with LifespanManager(shop):
        thread = threading.Thread(target=run)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert router.broker.running
    (error,) = refused
    assert "'admin'" in str(error)
    assert "'shop'" in str(error)
    async with LifespanManager(admin):
        assert router.broker.running


async def test_a_start_that_fails_stops_it_and_can_be_repeated(router: OutboxRouter, app_of: AppOf) -> None:
    failing = [True]

    @router.after_startup
    async def fail(app: FastAPI) -> None:
        if failing:
            raise OSError("no")

    app = app_of(router)
    with pytest.raises(OSError, match="no"):
        async with LifespanManager(app):
            pass
    assert not router.broker.running
    failing.clear()
    async with LifespanManager(app):
        assert router.broker.running
    assert not router.broker.running
