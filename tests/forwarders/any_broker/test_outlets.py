"""What is refused at start, and what each error of a client means for a row: every line of the tables."""

import json
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from faststream import confluent, nats
from faststream.exceptions import FeatureNotSupportedException, IncorrectState
from faststream.rabbit import RabbitBroker
from nats import errors
from nats.js import errors as js
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from faststream_outbox import OutboxBroker, make_outbox_table
from faststream_outbox._values.outcome import Poison, Refused, Unsent, Verdict
from faststream_outbox.exceptions import ConfigError
from faststream_outbox.forwarders import kinds
from faststream_outbox.forwarders.any_broker.confluent import ConfluentOutlet
from faststream_outbox.forwarders.any_broker.nats import NatsOutlet
from faststream_outbox.forwarders.any_broker.outlet import ANSWERS, Outlet
from faststream_outbox.forwarders.factory import create_destinations
from faststream_outbox.forwarders.kafka.answers import ANSWERS as KAFKA_ANSWERS

from .rows import outlet_of, parcel


def nats_outlet(subject: str = "orders", stream: str | None = "shop", **options: Any) -> NatsOutlet:
    return NatsOutlet(nats.NatsBroker().publisher(subject, stream=stream, **options))


def confluent_outlet(**options: Any) -> ConfluentOutlet:
    options = {"config": {"message.timeout.ms": 30_000}} | options
    return ConfluentOutlet(confluent.KafkaBroker(**options).publisher("orders.v1"))


def plain_outlet() -> Outlet:
    # Any publisher will do, since nothing is known of it.
    return Outlet(RabbitBroker().publisher("orders"))


def check(verdict: Verdict, expected: type | str, error: BaseException) -> None:
    assert verdict == (Poison(expected, error) if isinstance(expected, str) else expected(error))


# ------------------------------------------------------------------------------------------------------------- any kind

ANY = [
    (ConnectionResetError(), Unsent),
    (TimeoutError(), Unsent),
    (EOFError(), Unsent),
    (BufferError(), Unsent),
    (IncorrectState(), Unsent),
    (FeatureNotSupportedException("headers"), Unsent),
    (TypeError(), "invalid"),
    (UnicodeError(), "invalid"),
    (RuntimeError(), Refused),
    (KeyError("unforeseen"), Refused),
]


@pytest.mark.parametrize(("error", "expected"), ANY, ids=repr)
def test_what_errors_mean_that_nobody_knows(error: Exception, expected: type | str) -> None:
    check(plain_outlet().classify(error, parcel()), expected, error)


def test_every_line_is_shown() -> None:
    for kind, _ in ANSWERS:
        assert any(isinstance(error, kind) for error, _ in ANY), kind


@pytest.mark.parametrize("to", ["orders.v1", None, RabbitBroker()], ids=["text", "nothing", "broker"])
def test_what_is_no_publisher_is_refused(to: Any) -> None:
    with pytest.raises(ConfigError, match="to: must be a publisher of another FastStream broker"):
        create_destinations(to, lambda *_: None, lanes=1, send_timeout=None)


def test_an_outbox_is_no_destination() -> None:
    engine = create_async_engine("postgresql+asyncpg://database.invalid/shop")
    outbox = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()))
    with pytest.raises(ConfigError, match="to: must be a publisher of another FastStream broker"):
        create_destinations(outbox.publisher("orders"), lambda *_: None, lanes=1, send_timeout=None)


def test_each_kind_is_found_and_has_a_name() -> None:
    names = {
        nats.NatsBroker().publisher("orders", stream="shop"): "nats:orders",
        confluent.KafkaBroker().publisher("orders.v1"): "confluent:orders.v1",
    }
    assert {publisher: outlet_of(publisher, allow_lossy=False).name for publisher in names} == names
    assert plain_outlet().kind == "rabbit"


# ------------------------------------------------------------------------------------------------------------- NATS

NATS = [
    (errors.MaxPayloadError(), "too_large"),
    (errors.BadHeaderError("ä"), "invalid"),
    (errors.BadSubjectError(), "invalid"),
    (js.NoStreamResponseError(), Unsent),
    (js.ServiceUnavailableError(code=503, err_code=10077, description="maximum messages exceeded"), Unsent),
    (js.BadRequestError(code=400, err_code=10054, description="message size exceeds maximum allowed"), "too_large"),
    (js.BadRequestError(code=400, err_code=10060, description="expected stream does not match"), Unsent),
    (js.ServerError(code=500, err_code=1, description="unforeseen"), Refused),
    (errors.ConnectionClosedError(), Unsent),
    (errors.TimeoutError(), Unsent),
    (json.JSONDecodeError("no JSON", "", 0), Refused),
]


@pytest.mark.parametrize(("error", "expected"), NATS, ids=repr)
def test_what_errors_of_nats_mean(error: Exception, expected: type | str) -> None:
    check(nats_outlet().classify(error, parcel()), expected, error)


def test_every_line_of_nats_is_shown() -> None:
    for kind, _ in NatsOutlet.answers:
        assert any(isinstance(error, kind) for error, _ in NATS), kind


@pytest.mark.parametrize("error", [js.NoStreamResponseError(), NATS[4][0], NATS[6][0]], ids=repr)
def test_an_address_of_the_rows_own_is_that_rows_trouble_alone(error: Exception) -> None:
    assert nats_outlet().classify(error, parcel(address="elsewhere")) == Refused(error)


def test_core_nats_must_be_asked_for() -> None:
    publisher = nats.NatsBroker().publisher("orders")
    with pytest.raises(ConfigError, match=r"to: NATS forgets .*stream='...'.*allow_lossy=True"):
        outlet_of(publisher, allow_lossy=False)
    assert outlet_of(publisher, allow_lossy=True).name == "nats:orders"


@pytest.mark.parametrize(
    ("installed", "fits"), [("2.14.0", False), ("2.15.3", False), ("2.16.0", True), ("3.0rc1", True)]
)
def test_a_client_of_nats_that_is_too_old_is_refused_and_no_other_kind(
    installed: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "version", lambda _package: installed)
    publisher = nats.NatsBroker().publisher("orders", stream="shop")
    if fits:
        assert isinstance(outlet_of(publisher, allow_lossy=False), NatsOutlet)
    else:
        with pytest.raises(ConfigError, match=rf"nats-py {installed} is too old .* pip install 'nats-py>=2\.16'"):
            outlet_of(publisher, allow_lossy=False)
    assert outlet_of(confluent.KafkaBroker(config={"message.timeout.ms": 1}).publisher("orders"), allow_lossy=False)


@pytest.mark.parametrize("subject", ["orders.*", "orders.>", "orders created", "orders..created"])
def test_what_is_no_subject_to_publish_to(subject: str) -> None:
    with pytest.raises(ConfigError, match="not a subject to publish to"):
        nats_outlet(subject)


def test_the_time_for_jetstreams_answer() -> None:
    assert nats_outlet().usual_timeout == 5.0
    assert nats_outlet(timeout=20.0).usual_timeout == 20.0


# ---------------------------------------------------------------------------------------------------------- Confluent


def test_a_batch_that_is_too_large_says_nothing_of_each_of_its_records() -> None:
    outlet = confluent_outlet()
    assert outlet.is_doubtful(KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)))
    assert not outlet.is_doubtful(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    assert not outlet.is_doubtful(ValueError("10"))


def test_what_errors_of_kafka_mean_through_confluents_client() -> None:
    outlet = confluent_outlet()
    for code, kind in KAFKA_ANSWERS.items():
        error = KafkaException(KafkaError(code))
        assert outlet.classify(error, parcel()) == kind(error)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError._MSG_TIMED_OUT, Unsent),
        (KafkaError._TRANSPORT, Unsent),
        (KafkaError._ALL_BROKERS_DOWN, Unsent),
        (KafkaError._QUEUE_FULL, Unsent),
        (KafkaError._PURGE_INFLIGHT, Unsent),
        (KafkaError._UNKNOWN_TOPIC, Unsent),
        (KafkaError._INVALID_ARG, Refused),
        (KafkaError.CORRUPT_MESSAGE if hasattr(KafkaError, "CORRUPT_MESSAGE") else 2, Refused),
    ],
)
def test_what_librdkafkas_own_errors_mean(code: int, expected: type) -> None:
    error = KafkaException(KafkaError(code))
    check(confluent_outlet().classify(error, parcel()), expected, error)


@pytest.mark.parametrize("code", [3, 17, 29, KafkaError._UNKNOWN_TOPIC])
def test_a_topic_that_a_row_has_named_is_no_outage_of_the_others(code: int) -> None:
    error = KafkaException(KafkaError(code))
    check(confluent_outlet().classify(error, parcel()), Unsent, error)
    check(confluent_outlet().classify(error, parcel(address="elsewhere")), Refused, error)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"acks": 1}, "acks=1"),
        ({"acks": 0}, "acks=0"),
        ({"config": {"acks": "1"}}, "acks='1'"),
        ({"config": {"request.required.acks": 1}}, "request.required.acks=1"),
        ({"transactional_id": "t"}, "transactional_id"),
    ],
    ids=repr,
)
def test_unsafe_settings_of_confluent_are_refused(options: dict[str, Any], shown: str) -> None:
    with pytest.raises(ConfigError, match=f"to: .*{shown}"):
        confluent_outlet(**options)


@pytest.mark.parametrize("options", [{}, {"acks": "all"}, {"acks": -1}, {"config": {"acks": "all"}}], ids=repr)
def test_safe_acks(options: dict[str, Any]) -> None:
    confluent_outlet(**options)


def test_a_batch_publisher_is_refused() -> None:
    with pytest.raises(ConfigError, match="without batch=True"):
        ConfluentOutlet(confluent.KafkaBroker().publisher("orders.v1", batch=True))


@pytest.mark.parametrize(
    ("config", "send_timeout", "is_safe"),
    [
        ({}, 35.0, False),  # five minutes by default
        ({}, 301.0, True),
        ({"message.timeout.ms": 30_000}, 35.0, True),
        ({"message.timeout.ms": 30_000}, 30.0, False),
        ({"delivery.timeout.ms": 30_000}, 35.0, True),
        ({"message.timeout.ms": 0}, 1e9, False),  # never
    ],
)
def test_the_client_must_give_up_before_the_hand_over_does(
    config: dict[str, Any], send_timeout: float, is_safe: bool
) -> None:
    outlet = confluent_outlet(config=config)
    if is_safe:
        outlet.check_timeout(send_timeout)
    else:
        with pytest.raises(ConfigError, match=r"message.timeout.ms=\d+ .* write KafkaBroker\(\.\.\., config="):
            outlet.check_timeout(send_timeout)


def test_the_usual_time_of_confluent_is_what_the_user_says() -> None:
    assert confluent_outlet(config={"message.timeout.ms": 7000}).usual_timeout == 7.0
