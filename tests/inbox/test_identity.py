"""By what a copy of a message is known, whichever broker brings it."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from faststream.message import StreamMessage

from faststream_outbox import NoIdentityError
from faststream_outbox.inbox.identity import MAX_BYTES, identify


def message(raw: Any = None, /, **headers: Any) -> StreamMessage[Any]:
    return StreamMessage(raw, b"", headers={name.replace("_", "-"): value for name, value in headers.items()})


def kafka(**changes: Any) -> StreamMessage[Any]:
    record = {"topic": "t", "partition": 1, "offset": 7, "timestamp": 1000} | changes
    return message(SimpleNamespace(**record))


def confluent(**changes: Any) -> StreamMessage[Any]:
    record = {"topic": "t", "partition": 1, "offset": 7, "timestamp": (1, 1000)} | changes
    return message(SimpleNamespace(**{name: lambda value=value: value for name, value in record.items()}))


def redis(kind: str = "stream", **changes: Any) -> StreamMessage[Any]:
    return message({"type": kind, "channel": "c", "data": b""} | changes)


def jetstream(*, sequence: int = 5, stream: str = "s", made: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> Any:
    metadata = SimpleNamespace(stream=stream, sequence=SimpleNamespace(stream=sequence), timestamp=made)
    return message(SimpleNamespace(subject="x", reply="", metadata=metadata))


class CoreNats:
    subject = reply = "x"

    @property
    def metadata(self) -> Any:
        raise ValueError("not a JetStream message")


def test_a_message_of_an_outbox_is_known_by_its_queue_and_key() -> None:
    assert identify(message(idempotency_key="k", outbox_queue="orders")) == ("orders", "k")


def test_whatever_the_broker_says_of_it_does_not_count_then() -> None:
    raw = SimpleNamespace(topic="t", partition=1, offset=7, timestamp=1, message_id="m")
    assert identify(message(raw, idempotency_key="k", outbox_queue="orders"), lambda _: "other") == ("orders", "k")


def test_without_a_queue_the_header_is_the_key_of_no_queue() -> None:
    assert identify(message(SimpleNamespace(message_id="m"), idempotency_key="k")) == ("", "k")


@pytest.mark.parametrize(
    ("copy", "others"),
    [
        (
            kafka(),
            [kafka(topic="u"), kafka(partition=2), kafka(offset=8), kafka(timestamp=1001)],
        ),
        (
            confluent(),
            [confluent(topic="u"), confluent(partition=2), confluent(offset=8), confluent(timestamp=(1, 1001))],
        ),
        (
            redis(message_ids=[b"1-0"]),
            [redis(message_ids=[b"1-1"]), redis(message_ids=[b"1-0"], channel="d")],
        ),
        (
            jetstream(),
            [jetstream(sequence=6), jetstream(stream="t"), jetstream(made=datetime(2026, 1, 2, tzinfo=UTC))],
        ),
        (message(SimpleNamespace(message_id="m")), [message(SimpleNamespace(message_id="n"))]),
        (message(CoreNats(), Nats_Msg_Id="m"), [message(CoreNats(), Nats_Msg_Id="n")]),
    ],
    ids=["kafka", "confluent", "redis", "jetstream", "rabbitmq", "nats"],
)
def test_messages_of_other_origin_are_known_by_their_own_id(
    copy: StreamMessage[Any], others: list[StreamMessage[Any]]
) -> None:
    queue, key = identify(copy)
    assert queue == ""
    assert key
    assert identify(copy) == (queue, key)
    keys = [identify(other)[1] for other in others]
    assert key not in keys
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "nameless",
    [
        message(SimpleNamespace(message_id=None)),
        message(SimpleNamespace(message_id="")),
        message(CoreNats()),
        redis("list"),
        redis("message"),
        message(SimpleNamespace(payload=b"", topic="mqtt")),
        message(idempotency_key=""),
        message(idempotency_key=True),
        message(outbox_queue="orders"),
    ],
)
def test_a_message_without_an_identity_is_refused_by_name(nameless: StreamMessage[Any]) -> None:
    with pytest.raises(NoIdentityError, match=r"a StreamMessage without an identity.*'idempotency-key'.*identify="):
        identify(nameless)


def test_fast_streams_own_ids_do_not_count_since_they_are_made_up() -> None:
    made_up = StreamMessage(SimpleNamespace(), b"", message_id="m", correlation_id="c")
    with pytest.raises(NoIdentityError):
        identify(made_up)


@pytest.mark.parametrize(
    "batch",
    [
        StreamMessage((1, 2), b"", headers={"idempotency-key": "k", "outbox-queue": "q"}),
        StreamMessage([1], b"", headers={"idempotency-key": "k"}),
        StreamMessage({"type": "bstream"}, b"", headers={"idempotency-key": "k"}, batch_headers=[{}, {}]),
    ],
)
def test_a_batch_is_not_taken_for_its_first_message(batch: StreamMessage[Any]) -> None:
    with pytest.raises(NoIdentityError, match="one message at a time"):
        identify(batch)


def test_the_application_may_name_messages_of_others() -> None:
    event = message(SimpleNamespace(message_id="m"), ce_id="e")
    assert identify(event, lambda each: each.headers["ce-id"]) == ("", "e")
    assert identify(event, lambda _: None) == ("", "m")


@pytest.mark.parametrize(("value", "key"), [(b"k", "k"), (7, "7"), ("ü", "ü")])
def test_headers_of_any_brokers_kind_are_read(value: Any, key: str) -> None:
    assert identify(message(idempotency_key=value)) == ("", key)


def test_names_that_the_table_cannot_keep_become_digests_that_stay_apart() -> None:
    names = ["x" * MAX_BYTES, "x" * (MAX_BYTES + 1), "x" * (MAX_BYTES + 2), "é" * 200, "a\x00b", "a\x00c", "\ud800"]
    kept = [identify(message(idempotency_key=name))[1] for name in names]
    assert kept[0] == names[0]
    assert len(set(kept)) == len(kept)
    for key in kept:
        assert len(key.encode()) <= MAX_BYTES
        assert "\x00" not in key


def test_a_long_queue_is_kept_as_a_digest_too() -> None:
    queue, key = identify(message(idempotency_key="k", outbox_queue="q" * 300))
    assert queue.startswith("sha256:")
    assert key == "k"
