"""A message that cannot fit its handler is dead after one attempt; what the user's own code raises is tried again."""

import json
import sys
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
from fast_depends import inject
from fast_depends.library.serializer import Serializer
from fast_depends.pydantic import PydanticSerializer
from faststream import AckPolicy, BaseMiddleware, Context, Depends, StreamMessage
from pydantic import BaseModel, TypeAdapter, field_validator
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import ConfigError, OutboxBroker
from faststream_outbox._values.outcome import Dead, Delivered, Outcome, Retry
from faststream_outbox.annotations import OutboxMessage
from tests.rows import make_row

ROW = make_row(
    7, idempotency_key="i", payload=b'{"item": "tea", "quantity": 2}', headers={"content-type": "application/json"}
)
Run = Callable[..., Awaitable[Outcome]]


class Order(BaseModel):
    item: str
    quantity: int

    @field_validator("item")
    @classmethod
    def ask(cls, item: str) -> str:
        if item == "unreachable":
            raise ConnectionError("the shop does not answer")
        return item


ORDER = TypeAdapter(Order)


@pytest.fixture
def run(broker: OutboxBroker) -> Run:
    """Give a body to a handler."""

    async def run(handler: Any, payload: bytes, *, of: OutboxBroker = broker, **options: Any) -> Outcome:
        content_type = options.pop("content_type", "application/json")
        subscriber = of.subscriber("orders", **options)
        subscriber(handler)
        await of.start()
        return await subscriber.execute(ROW._replace(payload=payload, headers={"content-type": content_type}))

    return run


async def takes_order(order: Order) -> None: ...


async def takes_two(item: str, quantity: int) -> None: ...


def invalid(outcome: Outcome) -> bool:
    return isinstance(outcome, Dead) and outcome.reason == "invalid_body"


@pytest.mark.parametrize(
    ("handler", "payload"),
    [
        (takes_order, b'{"item": "tea"}'),
        (takes_order, b'"tea"'),
        (takes_order, b""),
        (takes_order, b"{"),
        (takes_order, b"\xff"),
        (takes_order, b"[" * 100_000),
        (takes_order, b"1" * 5_000),
        (takes_two, b'{"item": "tea", "quantity": "many"}'),
        (takes_two, b'{"item": "tea"}'),
        (takes_two, b"7"),
    ],
)
async def test_a_body_that_does_not_fit_is_dead_at_once(run: Run, handler: Any, payload: bytes) -> None:
    outcome = await run(handler, payload)
    assert invalid(outcome), outcome
    assert isinstance(outcome, Dead)
    assert outcome.exception


async def test_a_text_that_is_none_is_dead_at_once(run: Run) -> None:
    async def handle(body: str) -> None: ...

    assert invalid(await run(handle, b"\xff", content_type="text/plain"))


async def test_a_body_that_fits_is_delivered(run: Run) -> None:
    assert await run(takes_order, ROW.payload) == Delivered()


async def test_a_synchronous_handler_and_a_dependency_ask_for_the_body_too(run: Run) -> None:
    def order_of(item: str, quantity: int) -> Order:
        return Order(item=item, quantity=quantity)

    def handle(body: Any, order: Annotated[Order, Depends(order_of)]) -> None: ...

    outcome = await run(handle, b'{"item": "tea", "body": 1}')
    assert invalid(outcome), outcome


# -------------------------------------------------------------------------------------------- what is tried again


async def test_what_the_handler_itself_cannot_validate_is_tried_again(run: Run) -> None:
    async def handle(body: dict[str, Any]) -> None:
        ORDER.validate_python({"item": "from elsewhere"})

    assert isinstance(await run(handle, b"{}"), Retry)


async def test_what_a_handler_itself_decodes_is_tried_again(run: Run) -> None:
    async def handle(body: Any, message: OutboxMessage) -> None:
        message.clear_cache()
        message.body = b"{"
        await message.decode()

    assert isinstance(await run(handle, b"{}"), Retry)


async def test_what_a_handler_must_not_return_is_tried_again(run: Run) -> None:
    async def handle(body: Any) -> int:
        return "no number"  # type: ignore[return-value]

    assert isinstance(await run(handle, b"{}"), Retry)


async def fetch() -> None:
    ORDER.validate_python({"item": "from elsewhere"})


async def parse() -> None:
    json.loads("<html>bad gateway</html>")


async def stream() -> Any:
    await parse()
    yield


async def call() -> None:
    @inject
    async def takes_order(order: Order) -> None: ...

    await takes_order({})  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [fetch, parse, stream, call])
async def test_what_a_dependency_itself_cannot_validate_is_tried_again(run: Run, code: Any) -> None:
    async def handle(body: Any, it: Annotated[Any, Depends(code)]) -> None: ...

    assert isinstance(await run(handle, b"{}"), Retry)


async def test_what_a_handler_calls_that_validates_its_arguments_is_tried_again(run: Run) -> None:
    async def handle(body: Any) -> None:
        await call()

    assert isinstance(await run(handle, b"{}"), Retry)


async def test_a_dependencys_result_that_does_not_fit_is_tried_again(run: Run) -> None:
    async def number() -> Any:
        return "no number"

    async def handle(body: Any, it: Annotated[int, Depends(number)]) -> None: ...

    assert isinstance(await run(handle, b"{}"), Retry)


async def test_what_the_context_has_and_does_not_fit_is_tried_again(run: Run, broker: OutboxBroker) -> None:
    broker.context.set_global("limit", "no number")

    async def handle(body: Any, limit: Annotated[int, Context(cast=True)]) -> None: ...

    assert isinstance(await run(handle, b"{}"), Retry)


async def test_a_validator_that_asks_elsewhere_is_tried_again(run: Run) -> None:
    assert isinstance(await run(takes_order, b'{"item": "unreachable", "quantity": 1}'), Retry)


async def test_a_middleware_that_fails_is_tried_again(engine: AsyncEngine, outbox_table: Table, run: Run) -> None:
    class Failing(BaseMiddleware):
        async def consume_scope(self, call_next: Any, msg: StreamMessage[Any]) -> Any:
            json.loads("{")

    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None, middlewares=[Failing])
    assert isinstance(await run(takes_order, ROW.payload, of=broker), Retry)
    await broker.stop()


# ------------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize("payload", [b"{", b"{}"])
async def test_the_option_keeps_retrying(run: Run, payload: bytes) -> None:
    assert isinstance(await run(takes_order, payload, retry_validation_errors=True), Retry)


async def test_the_option_is_a_yes_or_no(broker: OutboxBroker) -> None:
    with pytest.raises(ConfigError, match="retry_validation_errors: must be True or False"):
        broker.subscriber("orders", retry_validation_errors="no")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "retry", "expected"),
    [
        (AckPolicy.ACK, False, Delivered),
        (AckPolicy.MANUAL, False, "invalid_body"),
        (AckPolicy.MANUAL, True, Retry),
        (AckPolicy.REJECT_ON_ERROR, False, "invalid_body"),
        (AckPolicy.REJECT_ON_ERROR, True, "rejected"),
    ],
)
async def test_ack_policies(run: Run, policy: AckPolicy, retry: bool, expected: Any) -> None:
    outcome = await run(takes_order, b"{}", ack_policy=policy, retry_validation_errors=retry)
    if isinstance(expected, str):
        assert isinstance(outcome, Dead)
        assert outcome.reason == expected
    else:
        assert isinstance(outcome, expected)


async def test_a_middleware_that_decodes_first_changes_nothing(
    engine: AsyncEngine, outbox_table: Table, run: Run
) -> None:
    class Logging(BaseMiddleware):
        async def consume_scope(self, call_next: Any, msg: StreamMessage[Any]) -> Any:
            await msg.decode()
            return await call_next(msg)

    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None, middlewares=[Logging])
    assert invalid(await run(takes_order, b"{", of=broker))
    await broker.stop()


# -------------------------------------------------------------------------------------------------- other serializers


class MsgspecError(Exception):
    """Stands for the errors of msgspec, which are no ValueError."""


class _Strict(Serializer):
    def __call__(self, call_kwargs: dict[str, Any]) -> dict[str, Any]:
        raise MsgspecError(f"Expected `int`, got `str` - at `$.{next(iter(call_kwargs))}`")


class Strict:
    """Makes serializers as FastDepends' for msgspec with ``use_fastdepends_errors=False``."""

    encode = staticmethod(json.dumps)

    def __call__(self, **options: Any) -> Serializer:
        return _Strict(**options)


@pytest.mark.parametrize("serializer", [PydanticSerializer(), Strict()])
async def test_other_serializers(
    engine: AsyncEngine, outbox_table: Table, run: Run, serializer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", SimpleNamespace(MsgspecError=MsgspecError))
    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None, serializer=serializer)
    assert invalid(await run(takes_order, b"{}", of=broker))
    await broker.stop()


async def test_without_validation_only_decoding_can_fail(engine: AsyncEngine, outbox_table: Table, run: Run) -> None:
    async def handle(body: int) -> None: ...

    broker = OutboxBroker(engine, outbox_table=outbox_table, logger=None, apply_types=False)
    assert await run(handle, b'"seven"', of=broker) == Delivered()
    (subscriber,) = broker.subscribers
    assert invalid(await subscriber.execute(ROW._replace(payload=b"{")))  # type: ignore[attr-defined]
    await broker.stop()
