"""A relay's file and the environment: what they say together, and the place of each error."""

from pathlib import Path

import pytest

from faststream_outbox.forwarders.options import ForwarderOptions
from faststream_outbox.relay.loading import load
from faststream_outbox.relay.problems import SettingsError
from faststream_outbox.relay.settings import ForwarderSettings

from .conftest import Write

SECRET = "s3cr3t-horse"
GOOD = f"""
[databases.orders-eu]
url = "postgresql://relay:{SECRET}@database/orders"

[[databases.orders-eu.forwarders]]
queues = "orders"
to = "kafka://kafka:9092"
topic = "orders.v1"

[[databases.orders-eu.forwarders]]
queues = ["emails", "letters"]
to = "amqp://user:{SECRET}@rabbitmq"
routing_key = "emails"
"""


def problems(file: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert SECRET not in str(caught.value)
    assert str(caught.value) == "\n".join(f"{file}: {problem}" for problem in caught.value.problems)
    return [str(problem) for problem in caught.value.problems]


def test_a_file(write: Write) -> None:
    settings = load(write(GOOD))
    database = settings.databases["orders-eu"]
    assert [forwarder.queues for forwarder in database.forwarders] == [["orders"], ["emails", "letters"]]
    assert (database.table, database.schema_, settings.http) == ("outbox", None, None)
    assert SECRET not in repr(settings)


def test_a_queue_is_added_to_the_one_of_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_RELAY__DATABASES__ORDERS_EU__FORWARDERS__0__QUEUES__1", "more")
    database = load(write(GOOD)).databases["orders-eu"]
    assert [forwarder.queues for forwarder in database.forwarders] == [["orders", "more"], ["emails", "letters"]]


def test_variables_come_before_the_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(GOOD + "[http]\nport = 8080\n")
    for name, value in {
        "LOG_LEVEL": "debug",
        "HTTP__HOST": "0.0.0.0",
        "DATABASES__ORDERS_EU__SCHEMA": "eu",
        "DATABASES__ORDERS_EU__FORWARDERS__1__QUEUES": '["emails", "faxes"]',
        "DATABASES__ORDERS_EU__FORWARDERS__0__QUEUES": "orders-2",
        "DATABASES__ORDERS_EU__FORWARDERS__0__LANES": "3",
        "DATABASES__ORDERS_EU__FORWARDERS__0__RETRY_STRATEGY__MAX_ATTEMPTS": "5",
        "DATABASES__ORDERS_EU__FORWARDERS__2__QUEUES": "clicks",
        "DATABASES__ORDERS_EU__FORWARDERS__2__TO": "redis://redis",
    }.items():
        monkeypatch.setenv(f"OUTBOX_RELAY__{name}", value)
    settings = load(file)
    assert settings.http is not None
    assert (settings.log_level, settings.http.host, settings.http.port) == ("debug", "0.0.0.0", 8080)
    [database] = settings.databases.values()
    assert database.schema_ == "eu"
    first, second, third = database.forwarders
    assert (first.queues, first.lanes, first.topic) == (["orders-2"], 3, "orders.v1")
    assert first.retry_strategy is not None
    assert first.retry_strategy.max_attempts == 5
    assert second.queues == ["emails", "faxes"]
    assert third.to is not None
    assert third.to.get_secret_value() == "redis://redis"


def test_each_unknown_key_has_its_place_and_what_was_meant(write: Write) -> None:
    text = GOOD.replace('topic = "orders.v1"', 'topic = "orders.v1"\nbatch_sise = 3\nretry_strategy = {jiter = 1}')
    assert problems(write(f'log_levle = "info"\n{text}[databases.orders-eu.httpd]\n[http]\nport = 1\nhots = "x"')) == [
        "databases.orders-eu.forwarders[0].retry_strategy.jiter: unknown; did you mean jitter?",
        "databases.orders-eu.forwarders[0].batch_sise: unknown; did you mean batch_size?",
        (
            "databases.orders-eu.httpd: unknown; known are url, url_file, password_file, table, schema, dlq_table, "
            "position_table, control_table, listen, listen_url, listen_url_file, pooled, connections, "
            "graceful_timeout, forwarders"
        ),
        "http.hots: unknown; did you mean host?",
        "log_levle: unknown; did you mean log_level?",
    ]


def test_a_value_of_a_wrong_type_is_not_shown(write: Write) -> None:
    text = GOOD.replace('topic = "orders.v1"', f'topic = "orders.v1"\nlanes = "{SECRET}"\nenvelope = "{SECRET}"')
    text = text.replace(f'to = "amqp://user:{SECRET}@rabbitmq"', f'to = ["{SECRET}"]')
    place = "databases.orders-eu.forwarders[0]"
    assert problems(write(text)) == [
        f"{place}.lanes: input should be a valid integer, unable to parse string as an integer",
        "databases.orders-eu.forwarders[0].envelope: input should be 'cloudevents' or 'plain'",
        "databases.orders-eu.forwarders[1].to: input should be a valid string",
    ]


def test_the_variable_that_is_wrong_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(GOOD)
    place = "databases.orders-eu.forwarders[0]"
    variable = "OUTBOX_RELAY__DATABASES__ORDERS_EU__FORWARDERS__0__LANES"
    monkeypatch.setenv(variable, "many")
    monkeypatch.setenv("OUTBOX_RELAY__LOGLEVEL", "info")
    assert problems(file) == [
        "OUTBOX_RELAY__LOGLEVEL: unknown; did you mean log_level?",
        f"{place}.lanes ({variable}): input should be a valid integer, unable to parse string as an integer",
    ]
    monkeypatch.delenv(variable)
    assert problems(file) == ["OUTBOX_RELAY__LOGLEVEL: unknown; did you mean log_level?"]


def test_what_is_missing(write: Write) -> None:
    assert problems(write("")) == ["databases: is missing"]
    assert problems(write("[databases.a]\nurl = 'postgresql://x'")) == ["databases.a.forwarders: is missing"]
    assert problems(write("[[databases.a.forwarders]]\nto = 'kafka://x'")) == [
        "databases.a.forwarders[0].queues: is missing"
    ]


def test_files_that_cannot_be_read(write: Write, tmp_path: Path) -> None:
    assert problems(tmp_path / "nothing.toml") == ["cannot be read: No such file or directory"]
    assert problems(write("a = 1\na = 2\n")) == ["is not TOML: Cannot overwrite a value (at line 2, column 6)"]
    file = tmp_path / "latin.toml"
    file.write_bytes(b"\xff")
    assert problems(file) == ["cannot be read: it is not UTF-8"]


def test_a_relay_has_every_option_of_a_forwarder() -> None:
    assert set(ForwarderOptions.__optional_keys__) <= set(ForwarderSettings.model_fields)
