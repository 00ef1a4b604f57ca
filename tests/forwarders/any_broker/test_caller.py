"""A row as the arguments of a FastStream publisher's `publish`."""

from typing import Any

import pytest

from faststream_outbox._values.wire import wire_headers
from faststream_outbox.forwarders.any_broker.caller import PublisherCaller

from .rows import parcel


class Recorder:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []


class Plain(Recorder):
    async def publish(self, message: Any, headers: Any = None, correlation_id: str | None = None) -> str:
        self.calls.append({"message": message, "headers": headers, "correlation_id": correlation_id})
        return "acknowledged"


class Keyed(Recorder):
    async def publish(
        self, message: Any, topic: str = "", *, key: Any = None, headers: Any = None, correlation_id: Any = None
    ) -> None:
        self.calls.append({"topic": topic, "key": key, "headers": headers})


class Subject(Recorder):
    async def publish(
        self, message: Any, subject: str = "", stream: Any = None, headers: Any = None, correlation_id: Any = None
    ) -> None:
        self.calls.append({"subject": subject, "stream": stream, "headers": headers})


class WithProperties(Recorder):
    async def publish(self, message: Any, headers: Any, correlation_id: Any, **publish_kwargs: Any) -> None:
        self.calls.append(publish_kwargs)


async def test_without_a_record_key_the_key_is_a_header() -> None:
    publisher = Plain()
    sent = parcel(key="k")
    assert await PublisherCaller(publisher).publish(sent, headers={"more": "!"}) == "acknowledged"
    headers = {**wire_headers(sent.row), "outbox-key": "k", "more": "!"}
    assert publisher.calls == [{"message": b"1", "headers": headers, "correlation_id": "c"}]


async def test_a_row_without_a_key_has_no_header_for_it() -> None:
    publisher = Plain()
    await PublisherCaller(publisher).publish(parcel())
    assert "outbox-key" not in publisher.calls[0]["headers"]


async def test_a_record_key_is_the_keys_bytes() -> None:
    publisher = Keyed()
    for key in ("ü", None):
        await PublisherCaller(publisher).publish(parcel(key=key))
    assert [call["key"] for call in publisher.calls] == ["ü".encode(), None]
    assert all("outbox-key" not in call["headers"] for call in publisher.calls)


async def test_an_address_goes_where_publish_takes_one() -> None:
    keyed, subject = Keyed(), Subject()
    for publisher in (keyed, subject):
        await PublisherCaller(publisher).publish(parcel(address="elsewhere"))
    assert keyed.calls[0]["topic"] == "elsewhere"
    assert (subject.calls[0]["subject"], subject.calls[0]["stream"]) == ("elsewhere", None)


async def test_an_address_that_publish_cannot_take_is_an_error() -> None:
    publisher = Plain()
    with pytest.raises(ValueError, match="Plain sends to one address only, and not to 'elsewhere'"):
        await PublisherCaller(publisher).publish(parcel(address="elsewhere"))
    assert not publisher.calls


async def test_properties_are_set_where_there_are_some() -> None:
    publisher = WithProperties()
    await PublisherCaller(publisher).publish(parcel(headers={"content-type": "text/plain"}))
    assert publisher.calls == [{"message_id": "i-1", "content_type": "text/plain"}]
