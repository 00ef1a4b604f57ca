"""What is sent to NATS beside the payload, on a client that keeps it. That NATS takes it so is shown on a real one."""

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nats")

from faststream.nats import JStream, NatsBroker
from nats import errors

from faststream_outbox.forwarders.any_broker import nats as module

from .rows import outlet_of, parcel

LIMIT = 1000


class Client:
    max_payload = LIMIT

    def __init__(self, steps: list[str]) -> None:
        self._steps = steps

    async def flush(self, _timeout: float) -> None:
        self._steps.append("flush")


@pytest.fixture
def steps() -> list[str]:
    return []


@pytest.fixture
def published() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, steps: list[str], published: list[dict[str, Any]]) -> Any:
    monkeypatch.setattr(module, "_client_of", lambda _broker: Client(steps))

    def make(*, stream: bool) -> Any:
        options: dict[str, Any] = {"stream": JStream("orders")} if stream else {}
        outlet: Any = outlet_of(NatsBroker().publisher("orders.created", **options), allow_lossy=not stream)
        real = outlet._caller

        async def publish(parcel: Any, *, headers: Any = None, **options: Any) -> None:
            steps.append("publish")
            published.append({**real.headers_of(parcel), **(headers or {})})

        outlet._caller = SimpleNamespace(publish=publish, headers_of=real.headers_of)
        return outlet

    return make


async def test_a_message_is_named_by_queue_subject_and_idempotency_key(
    make: Any, published: list[dict[str, Any]]
) -> None:
    outlet = make(stream=True)
    await outlet.publish(parcel(1))
    await outlet.publish(parcel(1, address="elsewhere"))
    assert [headers["Nats-Msg-Id"] for headers in published] == [
        "orders/orders.created/i-1",
        "orders/elsewhere/i-1",
    ]


async def test_no_two_messages_have_one_name(make: Any, published: list[dict[str, Any]]) -> None:
    """A slash in a part does not part it."""
    outlet = make(stream=True)
    for address, key in (("a/b", "c"), ("a", "b/c")):
        sent = parcel(1, address=address)
        await outlet.publish(sent._replace(row=sent.row._replace(idempotency_key=key)))
    names = [headers["Nats-Msg-Id"] for headers in published]
    assert len(set(names)) == 2
    assert names[0] == "orders/a%2Fb/c"


async def test_core_nats_has_the_message_when_it_answers_behind_it(make: Any, steps: list[str]) -> None:
    await make(stream=False).publish(parcel(1))
    assert steps == ["publish", "flush"]


async def test_jetstream_answers_by_itself(make: Any, steps: list[str]) -> None:
    await make(stream=True).publish(parcel(1))
    assert steps == ["publish"]


@pytest.mark.parametrize("stream", [True, False])
async def test_headers_count_for_the_servers_limit(make: Any, steps: list[str], stream: bool) -> None:
    outlet = make(stream=stream)
    # The first one that is too large is so by its headers alone.
    sizes = range(LIMIT)
    for size in sizes:
        try:
            await outlet.publish(parcel(1, payload=b"x" * size))
        except errors.MaxPayloadError:
            break
    sent = parcel(1, payload=b"x" * (size - 1))
    headers = {**outlet._its_headers, **outlet._caller.headers_of(sent)}
    if stream:
        headers["Nats-Msg-Id"] = "orders/orders.created/i-1"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    assert size - 1 + len(f"NATS/1.0\r\n{lines}\r\n") == LIMIT


@pytest.mark.parametrize("value", ["two\nlines", " before", "behind ", "return\r"])
async def test_headers_that_nats_would_change_are_not_sent(make: Any, steps: list[str], value: str) -> None:
    with pytest.raises(ValueError, match="line ends, or white space"):
        await make(stream=True).publish(parcel(1, headers={"x": value}))
    assert steps == []
