"""Where the page may be, and for whom."""

import asyncio
from typing import Annotated, Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import APIRouter, Depends, FastAPI, Header
from sqlalchemy import Table
from sqlalchemy.exc import NoResultFound, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import ConfigError
from faststream_outbox.admin import make_admin_router
from faststream_outbox.admin.admin import OutboxAdmin
from faststream_outbox.fastapi import OutboxRouter

from .served import make_app, operator, person

GUARD = [Depends(person)]


@pytest.fixture
def outbox(engine: AsyncEngine, outbox_table: Table, dlq_table: Table) -> OutboxRouter:
    return OutboxRouter(engine, outbox_table=outbox_table, dlq_table=dlq_table)


async def get(app: Any, path: str, *, root_path: str = "", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example", headers=headers) as client:
        return await client.get(path)


def test_it_refuses_to_be_made_without_a_guard(outbox: OutboxRouter) -> None:
    with pytest.raises(ConfigError, match="give dependencies"):
        make_admin_router(outbox.broker)
    with pytest.raises(ConfigError, match="give dependencies"):
        make_admin_router(outbox.broker, dependencies=[], unguarded="no")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be FastAPI's Depends"):
        make_admin_router(outbox.broker, dependencies=[person])  # type: ignore[list-item]
    for prefix in ("outbox", "/outbox/", "/"):
        with pytest.raises(ConfigError, match="prefix: must begin"):
            make_admin_router(outbox.broker, dependencies=GUARD, prefix=prefix)
    assert isinstance(make_admin_router(outbox.broker, unguarded=True), APIRouter)


async def test_errors_of_a_guard_are_the_applications(outbox: OutboxRouter) -> None:
    """Their words may have what a stranger may not know."""
    errors = {"sql": NoResultFound("no session with the token 123"), "os": ConnectionResetError("of the users")}

    def guard(x_error: Annotated[str, Header()]) -> None:
        raise errors[x_error]

    app = FastAPI()
    app.include_router(make_admin_router(outbox.broker, dependencies=[Depends(guard)]))
    for name, error in errors.items():
        with pytest.raises(type(error)):
            await get(app, "/outbox/", **{"x-error": name})


async def test_errors_show_no_statement(outbox: OutboxRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    async def overview(self: OutboxAdmin) -> None:
        raise OperationalError("SELECT secret", {"secret": 1}, RuntimeError("the driver has words"))

    monkeypatch.setattr(OutboxAdmin, "overview", overview)
    app = FastAPI()
    app.include_router(make_admin_router(outbox.broker, dependencies=GUARD))
    for path in ("/outbox/", "/outbox/api/overview"):
        answer = await get(app, path)
        assert answer.status_code == 503
        assert "the driver has words" in answer.text
        assert "secret" not in answer.text


async def test_a_forwarder_that_does_not_answer_is_unknown(
    outbox: OutboxRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = pytest.importorskip("faststream.redis")
    forwarder = outbox.forwarder("clicks", to=redis.RedisBroker().publisher(stream="clicks"), name="clicks-to-redis")

    async def status() -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(forwarder, "status", status)
    monkeypatch.setattr("faststream_outbox.admin.page.subject.STATUS_SECONDS", 0.05)
    app = FastAPI()
    app.include_router(make_admin_router(outbox.broker, dependencies=GUARD))
    page = await get(app, "/outbox/")
    assert "its state could not be asked for in time" in page.text
    [found] = (await get(app, "/outbox/api/forwarders")).json()
    assert (found["name"], found["state"], found["sent"]) == ("clicks-to-redis", "unknown", None)


async def test_without_an_actor_it_is_read_only(outbox: OutboxRouter) -> None:
    app = FastAPI()
    app.include_router(make_admin_router(outbox.broker, dependencies=GUARD))
    page = await get(app, "/outbox/")
    assert "read-only" in page.text
    assert (await get(app, "/outbox/change?action=replay")).status_code == 403
    assert (await get(app, "/outbox/", **{"x-person": "stranger"})).status_code == 401


async def test_an_actor_is_a_name(outbox: OutboxRouter) -> None:
    def wrong(x_person: Annotated[str, Header()] = "") -> Any:
        return {"": "", "number": 7}[x_person]

    app = FastAPI()
    app.include_router(make_admin_router(outbox.broker, dependencies=GUARD, actor=wrong))
    for header in ({}, {"x-person": "number"}):
        with pytest.raises(TypeError, match="actor: must return a name"):
            await get(app, "/outbox/", **header)


async def test_beside_an_outbox_router_with_its_forwarders(outbox: OutboxRouter) -> None:
    redis = pytest.importorskip("faststream.redis")
    destination = redis.RedisBroker("redis://127.0.0.1:1")
    outbox.forwarder("clicks", to=destination.publisher(stream="clicks"), name="clicks-to-redis")
    app = FastAPI()
    app.include_router(outbox)
    app.include_router(make_admin_router(outbox.broker, dependencies=GUARD, actor=operator))
    async with LifespanManager(app):
        page = await get(app, "/outbox/")
        assert page.status_code == 200, page.text
        assert "clicks-to-redis" in page.text
        [forwarder] = (await get(app, "/outbox/api/forwarders")).json()
        assert forwarder["queues"] == ["clicks"]
        assert forwarder["state"] in {"connecting", "down", "probing"}


@pytest.fixture
def mounted(admin: OutboxAdmin) -> FastAPI:
    """Below a prefix of a router and of an application, behind a proxy that has a prefix of its own."""
    inner = FastAPI()
    tools = APIRouter(prefix="/tools")
    tools.include_router(make_admin_router(admin, dependencies=GUARD, actor=operator, prefix="/queue"))
    inner.include_router(tools)
    outer = FastAPI()
    outer.mount("/internal", inner)
    return outer


async def test_below_prefixes(mounted: FastAPI) -> None:
    bare = await get(mounted, "/shop/internal/tools/queue", root_path="/shop")
    assert (bare.status_code, bare.headers["location"]) == (307, "queue/")
    page = await get(mounted, "/shop/internal/tools/queue/", root_path="/shop")
    assert 'aria-current="page">Overview<' in page.text
    assert "/internal" not in page.text, "links are relative, so they are right behind every proxy"
    assert (await get(mounted, "/internal/tools/queue/static/page.css")).headers["content-type"].startswith("text/css")
    assert (await get(mounted, "/internal/tools/queue/static/..%2frouter.py")).status_code == 404


async def test_figures_are_kept_while_nobody_looks(admin: OutboxAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faststream_outbox.admin.page.history.INTERVAL", 0.01)
    monkeypatch.setattr("faststream_outbox.admin.page.history.SHORTEST_SECONDS", 0.0)
    monkeypatch.setattr("faststream_outbox.admin.page.history.KEEP_SECONDS", 0.0)
    seen = 0
    original = OutboxAdmin.queues

    async def queues(self: OutboxAdmin, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        return await original(self, **options)

    monkeypatch.setattr(OutboxAdmin, "queues", queues)
    app = make_app(admin)
    async with LifespanManager(app):
        async with asyncio.timeout(20):
            while seen < 3:
                await asyncio.sleep(0.01)
        page = await get(app, "/outbox/")
        line = page.text.partition("<polyline points=")[2].partition("/>")[0]
        assert line.count(",") >= 3
    before = seen
    await asyncio.sleep(0.1)
    assert seen == before, "it ends with the application"
