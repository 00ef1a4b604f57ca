"""Handlers whose arguments nobody would fill in are refused when the broker starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import fastapi
import pytest
from faststream import Depends
from faststream.exceptions import SetupError
from pydantic import BaseModel
from sqlalchemy import MetaData

import faststream_outbox.fastapi
from faststream_outbox import ConfigError, OutboxBroker, OutboxMessage, TestOutboxBroker, make_outbox_table
from faststream_outbox import OutboxRouter as PlainRouter
from faststream_outbox.fastapi import OutboxRouter
from faststream_outbox.subscriber.declarations import unresolved

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

    class Order(BaseModel): ...


async def one() -> int:
    return 1


def of_fastapi(one: int = fastapi.Depends(one)) -> int:
    return one


async def by_default(body: dict[str, int], it: int = fastapi.Depends(one)) -> None: ...


async def annotated(body: dict[str, int], it: Annotated[int, fastapi.Depends(one)]) -> None: ...


async def by_security(body: dict[str, int], it: int = fastapi.Security(one)) -> None: ...


async def further_down(body: dict[str, int], it: Annotated[int, Depends(of_fastapi)]) -> None: ...


async def shortcut(body: dict[str, int], message: faststream_outbox.fastapi.OutboxMessage) -> None: ...


@pytest.mark.parametrize("handler", [by_default, annotated, by_security, further_down])
async def test_dependencies_of_fastapi_are_refused(broker: OutboxBroker, handler: Any) -> None:
    """The handler would get the object that FastAPI's ``Depends`` makes, and the message would count as handled."""
    broker.subscriber("orders")(handler)
    with pytest.raises(ConfigError, match=rf"{handler.__name__}.*FastAPI's, .*router\.subscriber"):
        await broker.start()
    assert not broker.running


async def takes_order(order: Order) -> None: ...


async def takes_orders(orders: list[Order]) -> None: ...


def order_of(order: Order) -> Order:
    return order


async def depends_on_order(body: dict[str, int], order: Annotated[Any, Depends(order_of)]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "annotation"),
    [
        (takes_order, "'Order' of 'order'"),
        (takes_orders, r"'list\[Order\]' of 'orders'"),
        (depends_on_order, "its dependency order_of: the annotation 'Order'"),
    ],
)
async def test_annotations_for_type_checkers_alone_are_refused(
    broker: OutboxBroker, handler: Any, annotation: str
) -> None:
    broker.subscriber("orders")(handler)
    with pytest.raises(ConfigError, match=f"{handler.__name__}.*{annotation}.*TYPE_CHECKING"):
        await broker.start()


async def test_where_nothing_is_validated_annotations_may_be_unknown(
    engine: AsyncEngine, make_table: Callable[[], Any]
) -> None:
    broker = OutboxBroker(engine, outbox_table=make_table(), logger=None, apply_types=False)
    broker.subscriber("orders")(takes_order)
    async with TestOutboxBroker(broker):
        await broker.publish({}, queue="orders", session=None)  # type: ignore[arg-type]
        takes = broker.subscribers[0].calls[0].handler
        takes.mock.assert_called_once_with({})


async def takes_class(body: dict[str, int], message: OutboxMessage) -> None: ...


async def takes_broker(body: dict[str, int], broker: OutboxBroker | None) -> None: ...


@pytest.mark.parametrize("handler", [takes_class, takes_broker, shortcut])
async def test_classes_are_refused_where_the_shortcuts_are_meant(broker: OutboxBroker, handler: Any) -> None:
    broker.subscriber("orders")(handler)
    with pytest.raises(SetupError, match=r"from faststream_outbox\.annotations import Outbox"):
        await broker.start()


# ---------------------------------------------------------------------------------- on the broker of a FastAPI router


@pytest.fixture
def make_table() -> Callable[[], Any]:
    return lambda: make_outbox_table(MetaData())


@pytest.fixture
def router(engine: AsyncEngine, make_table: Callable[[], Any]) -> OutboxRouter:
    return OutboxRouter(engine, outbox_table=make_table(), logger=None)


async def takes_body(body: dict[str, int]) -> None: ...


@pytest.mark.parametrize("handler", [takes_body, by_default])
async def test_a_subscriber_of_the_brokers_own_is_refused(router: OutboxRouter, handler: Any) -> None:
    router.broker.subscriber("orders")(handler)
    with pytest.raises(ConfigError, match=rf"{handler.__name__}: .*router\.subscriber"):
        await router.broker.start()
    with pytest.raises(ConfigError, match=r"router\.subscriber"):
        async with TestOutboxBroker(router.broker):
            pass


async def test_a_router_that_the_broker_includes_is_refused(router: OutboxRouter) -> None:
    inner = PlainRouter()
    inner.subscriber("orders")(takes_body)
    router.broker.include_router(inner)
    with pytest.raises(ConfigError, match=r"takes_body: .*router\.include_router"):
        await router.broker.start()


async def test_a_publisher_without_a_subscriber_can_be_tested(router: OutboxRouter) -> None:
    publisher = router.publisher("orders")
    async with TestOutboxBroker(router.broker) as broker:
        await broker.publish({"id": 1}, queue="orders", session=None)  # type: ignore[arg-type]
        publisher.mock.assert_called_once_with({"id": 1})


def test_the_error_names_an_annotation_of_any_kind() -> None:
    assert "'list[int]' of 'a'" in str(unresolved("handle", "a", "list[int]"))
