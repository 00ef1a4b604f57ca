"""With FastAPI's dependencies: a message that cannot fit is dead after one attempt, the user's own errors are not."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from faststream_outbox import TestOutboxBroker
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Retry
from faststream_outbox.fastapi import OutboxRouter
from tests.rows import make_row

ROW = make_row(7, idempotency_key="i", payload=b'{"item": "tea"}', headers={"content-type": "application/json"})
MakeRouter = Callable[..., OutboxRouter]


class Order(BaseModel):
    item: str


async def outcome_of(router: OutboxRouter, handler: Any, payload: bytes = ROW.payload, **options: Any) -> Outcome:
    subscriber = router.subscriber("orders", **options)
    subscriber(handler)
    app = FastAPI()
    app.include_router(router)
    async with TestOutboxBroker(router.broker):
        return await subscriber.execute(ROW._replace(payload=payload))


async def takes_order(order: Order) -> None: ...


async def takes_two(item: str, quantity: int) -> None: ...


async def takes_header(order: Order, region: Annotated[str, Header()]) -> None: ...


def item_of(order: Order) -> str:
    return order.item


async def takes_dependency(item: Annotated[str, Depends(item_of)]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "payload"),
    [
        (takes_order, b"{}"),
        (takes_order, b"{"),
        (takes_order, b"\xff"),
        (takes_order, b"7"),
        (takes_two, b'{"item": "tea"}'),
        (takes_header, b'{"item": "tea"}'),
        (takes_dependency, b"{}"),
    ],
)
async def test_a_message_that_does_not_fit_is_dead_at_once(router: OutboxRouter, handler: Any, payload: bytes) -> None:
    outcome = await outcome_of(router, handler, payload)
    assert isinstance(outcome, Dead)
    assert outcome.reason == "invalid_body"


async def test_a_message_that_fits_is_delivered(router: OutboxRouter) -> None:
    assert await outcome_of(router, takes_order) == Delivered()


async def test_the_option_keeps_retrying(router: OutboxRouter) -> None:
    assert isinstance(await outcome_of(router, takes_order, b"{}", retry_validation_errors=True), Retry)


async def raises_validation_error() -> None:
    Order.model_validate({})


async def raises_fastapis_error() -> None:
    raise RequestValidationError([])


async def parses_an_answer() -> None:
    json.loads("<html>bad gateway</html>")


@pytest.mark.parametrize("code", [raises_validation_error, raises_fastapis_error, parses_an_answer])
async def test_what_the_users_own_code_raises_is_tried_again(make_router: MakeRouter, code: Any) -> None:
    async def handle(order: Order) -> None:
        await code()

    async def depends(order: Order, it: Annotated[None, Depends(code)]) -> None: ...

    for handler in (handle, depends):
        assert isinstance(await outcome_of(make_router(), handler), Retry)


async def test_what_a_handler_must_not_return_is_tried_again(router: OutboxRouter) -> None:
    async def handle(order: Order) -> Any:
        return {"no": "item"}

    assert isinstance(await outcome_of(router, handle, response_model=Order), Retry)
