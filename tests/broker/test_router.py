"""FastStream's own kind of router: prefixes, nesting, handlers given at once."""

from typing import Any

import pytest
from faststream import BaseMiddleware

from faststream_outbox import OutboxBroker, OutboxRoute, OutboxRoutePublisher, OutboxRouter, TestOutboxBroker


async def handle(body: int) -> int:
    return body + 1


def test_prefixes_add_up_from_the_outside_in(broker: OutboxBroker) -> None:
    inner, outer = OutboxRouter(prefix="inner-"), OutboxRouter(prefix="outer-")
    subscriber = inner.subscriber(["a", "b"])
    publisher = inner.publisher("c")
    assert subscriber.queues == ["inner-a", "inner-b"]
    outer.include_router(inner)
    broker.include_router(outer, prefix="shop-")
    assert subscriber.queues == ["shop-outer-inner-a", "shop-outer-inner-b"]
    assert publisher.queue == "shop-outer-inner-c"
    assert broker.subscribers == [subscriber]
    assert broker.publishers == [publisher]


async def test_routes_take_what_the_decorators_take(broker: OutboxBroker) -> None:
    received: list[int] = []

    async def receive(body: int) -> None:
        received.append(body)

    router = OutboxRouter(
        "shop-",
        handlers=[
            OutboxRoute(handle, "in", publishers=[OutboxRoutePublisher("out", title="Out")], max_workers=3, title="In"),
            OutboxRoute(receive, ["out", "other"]),
        ],
    )
    broker.include_router(router)
    first = next(each for each in broker.subscribers if "shop-in" in each.queues)
    assert first._config.max_workers == 3
    assert first.specification.name == "In"
    assert [publisher.specification.name for publisher in broker.publishers] == ["Out"]
    async with TestOutboxBroker(broker):
        await broker.publish(1, queue="shop-in", session=None)  # type: ignore[arg-type]
    assert received == [2]


async def test_routers_given_to_the_broker_and_their_middlewares_work(engine: Any, outbox_table: Any) -> None:
    seen: list[str] = []

    def middleware(name: str) -> type[BaseMiddleware]:
        class Named(BaseMiddleware):
            async def consume_scope(self, call_next: Any, msg: Any) -> Any:
                seen.append(f"{name} consumes")
                return await call_next(msg)

            async def publish_scope(self, call_next: Any, cmd: Any) -> Any:
                seen.append(f"{name} publishes")
                return await call_next(cmd)

        return Named

    router = OutboxRouter(middlewares=[middleware("router")])
    router.subscriber("a")(handle)
    broker = OutboxBroker(
        engine, outbox_table=outbox_table, logger=None, routers=[router], middlewares=[middleware("broker")]
    )
    publisher = router.publisher("a")
    async with TestOutboxBroker(broker):
        await publisher.publish(1, session=None)
    assert seen == ["broker publishes", "router publishes", "broker consumes", "router consumes"]


def test_a_router_that_stands_on_no_broker_cannot_publish() -> None:
    publisher = OutboxRouter().publisher("a")
    with pytest.raises(Exception, match=r"(?i)(broker|set ?up|connect)"):
        publisher.publish(1, session=None).send(None)
