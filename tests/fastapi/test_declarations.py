"""What FastAPI cannot fill in is refused: in subscribers when the broker starts, in routes where they are declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import faststream
import pytest
from fastapi import Depends, WebSocket
from faststream.exceptions import SetupError

from faststream_outbox import ConfigError, annotations
from faststream_outbox import OutboxBroker as PlainBroker
from faststream_outbox import OutboxMessage as PlainMessage
from faststream_outbox.fastapi import OutboxBroker, OutboxMessage, OutboxRouter

if TYPE_CHECKING:
    from pydantic import BaseModel as Order
    from sqlalchemy.ext.asyncio import AsyncSession


async def get_session() -> int:
    return 1


def order_of(order: Order) -> Order:
    return order


async def takes_order(order: Order) -> None: ...


async def takes_orders(orders: list[Order]) -> None: ...


def takes_inner(orders: Any) -> None: ...


takes_inner.__annotations__ = {"orders": list["Order"]}  # type: ignore[type-arg]  # as without annotations that are texts


async def annotates_session(body: dict[str, int], session: Annotated[AsyncSession, Depends(get_session)]) -> None: ...


async def depends_on_order(body: dict[str, int], order: Annotated[Any, Depends(order_of)]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "annotation"),
    [
        (takes_order, "'Order' of 'order'"),
        (takes_orders, r"'list\[Order\]' of 'orders'"),
        (takes_inner, "of 'orders'"),
        (annotates_session, "of 'session'"),
        (depends_on_order, "its dependency order_of: the annotation 'Order' of 'order'"),
    ],
)
async def test_annotations_for_type_checkers_alone_are_refused(
    router: OutboxRouter, handler: Any, annotation: str
) -> None:
    """FastAPI looks for them in a query, and each message would fail: "Field required"."""
    router.subscriber("orders")(handler)
    with pytest.raises(ConfigError, match=f"{handler.__name__}.*{annotation}.*TYPE_CHECKING"):
        await router.broker.start()
    assert not router.broker.running


async def test_a_dependency_may_have_an_annotation_for_type_checkers_alone(
    router: OutboxRouter, serving: Any, app_of: Any
) -> None:
    got: list[int] = []

    @router.subscriber("orders")
    async def handle(body: dict[str, int], session: AsyncSession = Depends(get_session)) -> Order:
        got.append(session)  # type: ignore[arg-type]
        return None  # type: ignore[return-value]

    async with serving(app_of(router), router):
        await router.broker.publish({}, queue="orders", session=None)  # type: ignore[arg-type]
    assert got == [1]


# --------------------------------------------------------------------------------- FastStream's own, and plain classes


async def plain_broker(broker: PlainBroker) -> None: ...


async def plain_broker_or_none(broker: PlainBroker | None = None) -> None: ...


async def plain_message(message: PlainMessage) -> None: ...


async def plain_shortcut(message: annotations.OutboxMessage) -> None: ...


async def context_by_default(it: Any = faststream.Context("broker")) -> None: ...


async def context_annotated(it: Annotated[Any, faststream.Context("broker")]) -> None: ...


async def further_down(it: Annotated[Any, Depends(context_by_default)]) -> None: ...


async def faststreams_depends_further_down(it: Annotated[Any, Depends(lambda x=faststream.Depends(1): x)]) -> None: ...


REFUSED = [
    (plain_broker, "import OutboxBroker"),
    (plain_broker_or_none, "import OutboxBroker"),
    (plain_message, "import OutboxMessage"),
    (plain_shortcut, "import OutboxMessage"),
    (context_by_default, "faststream's Context"),
    (context_annotated, "faststream's Context"),
    (further_down, "its dependency context_by_default: 'it' is faststream's Context"),
    (faststreams_depends_further_down, "faststream's Depends"),
]


@pytest.mark.parametrize(("handler", "hint"), REFUSED)
async def test_in_a_subscriber_they_are_refused_with_what_to_write(
    router: OutboxRouter, handler: Any, hint: str
) -> None:
    router.subscriber("orders")(handler)
    with pytest.raises(ConfigError, match=f"{handler.__name__}.*{hint}"):
        await router.broker.start()


async def test_faststream_refuses_its_own_depends(router: OutboxRouter) -> None:
    async def handle(it: Any = faststream.Depends(lambda: 1)) -> None: ...

    router.subscriber("orders")(handle)
    with pytest.raises(SetupError, match=r"fastapi\.Depends"):
        await router.broker.start()


async def faststreams_depends(it: Any = faststream.Depends(lambda: 1)) -> None: ...


@pytest.mark.parametrize(("endpoint", "hint"), [*REFUSED, (faststreams_depends, "use fastapi's Depends")])
def test_in_a_route_they_are_refused_with_what_to_write(router: OutboxRouter, endpoint: Any, hint: str) -> None:
    for declare in (router.get("/"), router.api_route("/"), router.websocket("/")):
        with pytest.raises(ConfigError, match=f"{endpoint.__name__}.*{hint}"):
            declare(endpoint)


def test_what_fastapi_knows_is_taken(router: OutboxRouter) -> None:
    class Greeting:
        def __call__(self, message: str = "") -> str:
            return message

    def of_outbox(broker: OutboxBroker, it: Annotated[str, Depends(Greeting())]) -> None: ...

    async def socket(socket: WebSocket, it: Annotated[None, Depends(of_outbox)]) -> None: ...

    router.websocket("/socket")(socket)
    router.get("/route")(of_outbox)
    assert {"/socket", "/route"} <= {getattr(route, "path", "") for route in router.routes}


async def test_a_literal_is_no_name(router: OutboxRouter, serving: Any, app_of: Any) -> None:
    got: list[str] = []

    async def handle(regions: list[Literal["north", "south"]], message: OutboxMessage) -> None:
        got.extend(regions)

    router.subscriber("orders")(handle)
    async with serving(app_of(router), router):
        await router.broker.publish(["north"], queue="orders", session=None)  # type: ignore[arg-type]
    assert got == ["north"]
