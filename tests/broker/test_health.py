"""What probes hear of a broker, with nothing behind the engine or on memory."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from faststream.asgi import AsgiFastStream, make_ping_asgi
from faststream.kafka import KafkaBroker

from faststream_outbox import BrokerHealth, ForwarderState, HealthState, OutboxBroker
from faststream_outbox.broker import health as health_module
from faststream_outbox.fastapi import make_health_router
from faststream_outbox.probes import make_live_asgi, make_ready_asgi


@pytest.fixture
def kafka() -> KafkaBroker:
    """Nothing listens there."""
    return KafkaBroker("127.0.0.1:1", acks="all", logger=None)


def add_handler(broker: OutboxBroker) -> None:
    @broker.subscriber("a")
    async def handle(body: bytes) -> None: ...


def task_named(prefix: str) -> asyncio.Task[Any]:
    return next(task for task in asyncio.all_tasks() if task.get_name().startswith(prefix))


@pytest.mark.parametrize(
    ("health", "state", "is_live", "is_ready"),
    [
        (BrokerHealth(), HealthState.OK, True, True),
        (BrokerHealth(degraded=["c"]), HealthState.DEGRADED, True, True),
        (BrokerHealth(not_ready=["b"], degraded=["c"]), HealthState.NOT_READY, True, False),
        (BrokerHealth(dead=["a"], not_ready=["b"], degraded=["c"]), HealthState.DEAD, False, False),
        (BrokerHealth(dead=["a"]), HealthState.DEAD, False, False),
    ],
)
def test_the_worst_decides(health: BrokerHealth, state: HealthState, is_live: bool, is_ready: bool) -> None:
    assert (health.state, health.is_live, health.is_ready) == (state, is_live, is_ready)
    assert list(health.problems) == sorted(health.problems)


async def test_a_database_that_is_down_is_no_reason_to_die(broker: OutboxBroker, kafka: KafkaBroker) -> None:
    add_handler(broker)
    broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    await broker.start()
    health = await broker.health(timeout=1)
    await broker.stop()
    assert (health.is_live, health.is_ready, health.state) == (True, False, "not ready")
    assert any("the database cannot be used" in problem for problem in health.problems)
    assert health.forwarders == {"kafka:orders.v1": ForwarderState.CONNECTING}
    assert "forwarder 'kafka:orders.v1' has not reached its destination yet" in health.degraded


@pytest.mark.parametrize(
    "name", ["outbox-receiver", "outbox-rescuer", "outbox-lane-", "outbox-fetcher", "outbox-worker"]
)
async def test_a_loop_that_was_ended_by_others_is_dead(broker: OutboxBroker, kafka: KafkaBroker, name: str) -> None:
    add_handler(broker)
    broker.forwarder("orders", to=kafka.publisher("orders.v1"))
    await broker.start()
    await asyncio.sleep(0)
    assert broker.stalled == []
    task = task_named(name)
    task.cancel()
    await asyncio.wait([task])
    stalled = broker.stalled
    health = await broker.health(timeout=0.1)
    await broker.stop()
    assert list(stalled) == [f"{task.get_name()} has ended"]
    assert (health.is_live, health.state) == (False, "dead")
    assert list(broker.stalled) == []


async def test_before_the_start_it_is_not_ready_unless_it_only_publishes(broker: OutboxBroker) -> None:
    assert "the broker is not started, or stops" not in (await broker.health(timeout=0.1)).problems
    add_handler(broker)
    health = await broker.health(timeout=0.1)
    assert "the broker is not started, or stops" in health.not_ready
    assert health.is_live


async def test_the_database_is_asked_once_however_many_probe(
    broker: OutboxBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[None] = []

    async def ping() -> bool:
        asked.append(None)
        await asyncio.sleep(0.01)
        return False

    monkeypatch.setattr(broker._storage.store, "ping", ping)
    answers = await asyncio.gather(*(broker.health() for _ in range(20)))
    assert {tuple(answer.not_ready) for answer in answers} == {("the database takes no writes",)}
    assert len(asked) == 1
    monkeypatch.setattr(health_module, "ANSWER_SECONDS", 0.0)
    broker._judge._answer_until = 0.0
    await broker.health()
    await broker.health()
    assert len(asked) == 3


@pytest.fixture
def client_of() -> Callable[[Any], httpx.AsyncClient]:
    return lambda app: httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize("on_fastapi", [False, True])
async def test_probes_answer_over_http(
    broker: OutboxBroker, client_of: Callable[[Any], httpx.AsyncClient], on_fastapi: bool
) -> None:
    add_handler(broker)
    if on_fastapi:
        app: Any = FastAPI()
        app.include_router(make_health_router(broker, timeout=0.2))
    else:
        routes = [
            ("/livez", make_live_asgi(broker)),
            ("/readyz", make_ready_asgi(broker, timeout=0.2)),
            ("/ping", make_ping_asgi(broker, timeout=0.2)),
        ]
        app = AsgiFastStream(broker, asgi_routes=routes)
    await broker.start()
    async with client_of(app) as client:
        live, ready = await client.get("/livez"), await client.get("/readyz")
        assert (live.status_code, live.json()) == (200, {"state": "ok", "problems": []})
        assert (ready.status_code, ready.json()["state"]) == (503, "not ready")
        assert json.dumps(ready.json()).count("localhost") == 0, "an address is no business of who probes"
        if not on_fastapi:
            assert (await client.get("/ping")).status_code == 500
        task = task_named("outbox-rescuer")
        task.cancel()
        await asyncio.wait([task])
        live = await client.get("/livez")
        assert (live.status_code, live.json()) == (
            503,
            {"state": "dead", "problems": ["outbox-rescuer has ended"]},
        )
    await broker.stop()
