"""What a file becomes: engines, brokers and forwarders; and all that can be wrong without asking a server."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from faststream_outbox import ConstantRetry, ExponentialRetry, NoRetry
from faststream_outbox._faststream import broker_of, connection_options
from faststream_outbox.cli.dsn import read_dsn
from faststream_outbox.cli.exits import CommandError
from faststream_outbox.relay import destinations
from faststream_outbox.relay.databases import make_databases
from faststream_outbox.relay.loading import load
from faststream_outbox.relay.problems import SettingsError

from .conftest import Write

LOG = logging.getLogger("test")
SECRET = "s3cr3t-horse"
HEAD = "[databases.shop]\nurl = 'postgresql://relay@database/shop'\n"


def make(file: Path) -> Any:
    return make_databases(load(file), file.name, LOG)


def forwarders(write: Write, *lines: str) -> list[Any]:
    tables = "".join(f"[[databases.shop.forwarders]]\n{line}\n" for line in lines)
    [database] = make(write(HEAD + tables))
    return list(database.broker.forwarders)


def problems(file: Path) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        make(file)
    assert SECRET not in str(caught.value)
    return [str(problem) for problem in caught.value.problems]


def forwarder_problems(write: Write, *lines: str) -> list[str]:
    tables = "".join(f"[[databases.shop.forwarders]]\n{line}\n" for line in lines)
    return [text.removeprefix("databases.shop.") for text in problems(write(HEAD + tables))]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("to = 'kafka://u:p%40@one:9092,two:9092'\ntopic = 'orders.v1'\nsasl = 'scram-sha-512'", "kafka:orders.v1"),
        ("to = 'kafkas://one'\ntopic = 'orders.v1'\nclient = {compression_type = 'gzip'}", "kafka:orders.v1"),
        ("to = 'amqp://guest:guest@host/vhost'\nrouting_key = 'emails'", "rabbit:emails"),
        ("to = 'amqps://host'\nexchange = 'shop'\nexchange_type = 'topic'\nrouting_key = 'a.b'", "rabbit:shop:a.b"),
        ("to = 'amqp://host'\nexchange = 'shop'\nexchange_type = 'fanout'", "rabbit:shop"),
        ("to = 'redis://:p@host:6380/2'\nstream = 'clicks'\nmaxlen = 100", "redis:clicks"),
        ("to = 'rediss://host'\nlist = 'clicks'", "redis:clicks"),
        ("to = 'redis://host'\nchannel = 'clicks'\nallow_lossy = true", "redis:clicks"),
        ("to = 'nats://u:p@one,two:4223'\nsubject = 'a.b'\nstream = 'A'", "nats:a.b"),
        ("to = 'tls://one'\nsubject = 'a.b'\nallow_lossy = true", "nats:a.b"),
        ("to = 'mqtt://u:p@host'\ntopic = 'a/b'", "mqtt:a/b"),
        ("to = 'mqtts://host'\ntopic = 'a/b'\nqos = 2\nname = 'mine'", "mine"),
    ],
)
def test_destinations(write: Write, line: str, name: str) -> None:
    [forwarder] = forwarders(write, f"queues = 'orders'\n{line}")
    assert (forwarder.queues, forwarder.name) == (["orders"], name)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("topic = 'x'", "to: write to or to_file"),
        (f"to = 'kafka:{SECRET}'", ("to: must begin with kafka://, kafkas://, amqp://, amqps://, redis://, rediss://, "
         "nats://, tls://, mqtt://, mqtts://")),
        (f"to = 'http://u:{SECRET}@host'", ("to: must begin with kafka://, kafkas://, amqp://, amqps://, redis://, "
         "rediss://, nats://, tls://, mqtt://, mqtts://, got 'http'")),
        (f"to = 'kafka://u:{SECRET}@'\ntopic = 'x'",
         "to: has no host after ://, or one that cannot be; write host:port"),
        (f"to = 'kafka://u:{SECRET}@host:port'\ntopic = 'x'",
         "to: has no host after ://, or one that cannot be; write host:port"),
        ("to = 'redis://one,two'", "to: redis:// has one host, got 2"),
        ("to = 'kafka://one:9092,[::1]:65536'\ntopic = 'x'", "to: has a port above 65535"),
        (f"to = 'redis://u:12/{SECRET}@host/0'\nlist = 'a'",
         "to: has @ behind the host; in a password write %2F for a slash and %3F for a question mark"),
        ("to = 'kafka://host:9092?acks=1'\ntopic = 'x'",
         "to: kafka:// has nothing behind the hosts; `client` takes further options"),
        ("to = 'nats://host/x'\nsubject = 'x'",
         "to: nats:// has nothing behind the hosts; `client` takes further options"),
        (f"to = 'kafka://host'\ntopic = 'x'\nclient = {{sasl_plain_password = '{SECRET}'}}",
         ("client: KafkaBroker does not take it: KafkaBroker.__init__() got an unexpected keyword argument "
          "'sasl_plain_password'")),
        ("to = 'kafka://host'", "topic: is missing: write topic = \"orders.v1\""),
        ("to = 'amqp://host'", "routing_key: is missing: without an exchange, write the queue's name"),
        ("to = 'amqp://host'\ntopic = 'x'", ("topic: is not for amqp://, which has exchange, exchange_declare, "
         "exchange_durable, exchange_type, routing_key")),
        ("to = 'amqp://host'\nrouting_key = 'x'\nexchange_type = 'topic'",
         "exchange_type: is about an exchange, and there is none; write exchange = \"...\""),
        ("to = 'redis://host'\nstream = 'a'\nlist = 'b'", "list: write one of stream, list and channel"),
        ("to = 'redis://host'", "stream: write one of stream, list and channel"),
        ("to = 'redis://host'\nlist = 'a'\nmaxlen = 3", "maxlen: is for a stream alone"),
        ("to = 'redis://host'\nlist = 'a'\nca_file = 'ca.pem'",
         "ca_file: redis:// does not encrypt; write rediss://"),
        ("to = 'rediss://host'\nlist = 'a'\nca_file = '/none'",
         "ca_file: /none cannot be used: No such file or directory"),
        ("to = 'kafka://host'\ntopic = 'x'\nclient = {nothing = 1}",
         "client: KafkaBroker does not take it: KafkaBroker.__init__() got an unexpected keyword argument 'nothing'"),
        ("to = 'kafka://host'\ntopic = 'x'\nlanes = 0", "lanes: must be an integer from 1 to 16, got 0"),
        ("to = 'kafka://host'\ntopic = 'x'\nclient = {acks = 1}",
         "to: acks=1 can lose acknowledged records; write KafkaBroker(..., acks='all')"),
        # An unsafe destination is found under a name of its own, too.
        ("to = 'redis://host'\nchannel = 'x'\nname = 'mine'", ("to: Redis drops a message to the channel 'x' when "
         "nobody listens; write redis.publisher(stream=...), or allow_lossy=True if messages may be lost")),
        ("to = 'redis://host'\nstream = 'x'\nexactly_once = true", ("exactly_once: there is no table for positions; "
         "write OutboxBroker(engine, outbox_table=..., position_table=make_position_table(metadata)), and create it")),
        ("to = 'kafka://host'\ntopic = 'x'\ntransform = 'json'", "transform: must be package.module:function"),
        ("to = 'kafka://host'\ntopic = 'x'\ntransform = 'json:nothing'",
         "transform: module 'json' has no attribute 'nothing'"),
        ("to = 'kafka://host'\ntopic = 'x'\nretry_strategy = {kind = 'constant', multiplier = 3}",
         ("retry_strategy.multiplier: is not for kind = 'constant', which has delay_seconds, jitter, max_attempts, "
         "max_total_delay_seconds")),
        ("to = 'kafka://host'\ntopic = 'x'\nretry_strategy = {multiplier = 0}",
         "retry_strategy: multiplier must be a number from 1 to 315360000, got 0.0"),
        ("to = 'kafka://host'\ntopic = 'x'\npassword_file = '/none'",
         "password_file: the URL has no user; write user@host"),
        ("to = 'kafka://u@host'\ntopic = 'x'\npassword_file = '/none'",
         "password_file: /none cannot be read: No such file or directory"),
        # What the clients raise is found too, whatever it is.
        ("to = 'kafka://host'\ntopic = 'x'\nclient = {request_timeout_ms = '5s'}",
         "client: has a value of the wrong kind: TypeError"),
        ("to = 'kafka://host'\ntopic = 'x'\nclient = {security = 'x'}",
         "client: KafkaBroker does not take it: 'str' object has no attribute 'use_ssl'"),
        ("to = 'kafka://host'\ntopic = 'x'\ntransform = ':f'", "transform: must be package.module:function"),
        # NFKC makes a/c of the character: Python's message would quote all before the host.
        (f"to = 'amqp://u:{SECRET}\u2100@host'\nrouting_key = 'x'", "to: is not a URL"),
    ],
)  # fmt: skip
def test_what_a_forwarder_cannot_be(write: Write, line: str, problem: str) -> None:
    assert forwarder_problems(write, f"queues = 'orders'\n{line}") == [f"forwarders[0].{problem}"]


@pytest.mark.parametrize("url", ["postgresql://u:x@[bad/db", f"postgresql://u:{SECRET}\u2100@host/shop"])
def test_what_is_no_url_is_not_shown(write: Write, url: str) -> None:
    text = f"[databases.shop]\nurl = '{url}'\n[[databases.shop.forwarders]]\nqueues = 'a'\nto = 'kafka://host'"
    assert problems(write(text)) == ["databases.shop.url: must begin with postgresql://, and be a URL"]
    with pytest.raises(CommandError, match=r"^--dsn: must begin with postgresql://.* and be a URL$") as caught:
        read_dsn(url, None)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (f"raise RuntimeError('{SECRET}')", "broken cannot be imported: RuntimeError"),
        ("def", "broken cannot be imported: SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, problem: str
) -> None:
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    line = "queues = 'a'\nto = 'kafka://host'\ntopic = 'a'\ntransform = 'broken:f'"
    assert forwarder_problems(write, line) == [f"forwarders[0].transform: {problem}"]


def test_whatever_is_raised_has_a_place(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError(SECRET)

    monkeypatch.setattr("faststream_outbox.relay.databases.make_publisher", fail)
    line = "queues = 'a'\nto = 'kafka://host'\ntopic = 'a'"
    assert forwarder_problems(write, line) == ["forwarders[0]: cannot be used: RuntimeError"]


def test_all_problems_are_named_at_once(write: Write) -> None:
    text = """
        [databases.one]
        url = "mysql://host"
        [[databases.one.forwarders]]
        queues = "a"
        to = "kafka://host"
        [databases.two]
        [[databases.two.forwarders]]
        queues = "a"
        to = "kafka://host"
        [databases.three]
        url = "postgresql://host"
        table = ""
        [[databases.three.forwarders]]
        queues = "a"
        to = "kafka://host"
        [databases.four]
        url = "postgresql://host"
        graceful_timeout = -1
        [[databases.four.forwarders]]
        queues = "a"
        to = "kafka://host"
        [databases.five]
        url = "postgresql://host"
        [[databases.five.forwarders]]
        queues = "a"
        to = "kafka://host"
        topic = "a"
        [[databases.five.forwarders]]
        queues = ["b", "a"]
        to = "nats://host"
        subject = "a"
        allow_lossy = true
        [[databases.five.forwarders]]
        queues = "c"
        to = "nats://host"
    """
    found = problems(write(text))
    assert [problem.partition(": ")[0] for problem in found] == [
        "databases.one.url",
        "databases.two.url",
        "databases.three.table",
        "databases.four.graceful_timeout",
        "databases.five.forwarders[1].queues",
        "databases.five.forwarders[2].subject",
    ]


def test_options_reach_the_forwarder(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    original = make_databases.__globals__["OutboxBroker"].forwarder

    def forwarder(self: Any, queues: Any, **options: Any) -> Any:
        seen.update(options)
        return original(self, queues, **options)

    monkeypatch.setattr("faststream_outbox.relay.databases.OutboxBroker.forwarder", forwarder)
    monkeypatch.setitem(sys.modules, "mine", type(sys)("mine"))
    sys.modules["mine"].change = lambda message: None  # type: ignore[attr-defined]
    lines = {
        "tee": "true", "batch_size": "7", "batch_bytes": "1000", "lanes": "3", "send_timeout": "50.0",
        "allow_lossy": "false", "tombstones": "true", "count_nacks": "false", "exactly_once": "false",
        "hold_key": "true", "min_fetch_interval": "2.0", "max_fetch_interval": "3.0", "name": "'n'",
        "envelope": "'cloudevents'", "transform": "'mine:change'", "retry_strategy": "{max_attempts = 3}",
    }  # fmt: skip
    text = "".join(f"{name} = {value}\n" for name, value in lines.items())
    forwarders(write, f"queues = 'q'\nto = 'kafka://host'\ntopic = 't'\n{text}")
    assert seen.pop("to").topic == "t"
    assert seen.pop("transform") is sys.modules["mine"].change
    assert seen == {
        "tee": True, "batch_size": 7, "batch_bytes": 1000, "lanes": 3, "send_timeout": 50.0, "allow_lossy": False,
        "tombstones": True, "count_nacks": False, "exactly_once": False, "hold_key": True, "min_fetch_interval": 2.0,
        "max_fetch_interval": 3.0, "name": "n", "envelope": "cloudevents",
        "retry_strategy": ExponentialRetry(max_attempts=3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("{}", ExponentialRetry()),
        ("{max_attempts = 0}", ExponentialRetry(max_attempts=None)),
        ("{kind = 'constant', delay_seconds = 5}", ConstantRetry(delay_seconds=5)),
        ("{kind = 'none'}", NoRetry()),
    ],
)
def test_retry_strategies(write: Write, text: str, strategy: Any) -> None:
    [forwarder] = forwarders(write, f"queues = 'q'\nto = 'kafka://h'\ntopic = 't'\nretry_strategy = {text}")
    assert forwarder._failure.retry == strategy


def test_forwarders_to_one_server_share_a_broker(write: Write) -> None:
    line = "to = 'nats://host'\nsubject = 'x'\nallow_lossy = true\n"
    one, two, three = forwarders(
        write,
        f"queues = 'a'\n{line}",
        f"queues = 'b'\n{line}name = 'b'",
        f"queues = 'c'\n{line}client = {{name = 'c'}}",
    )
    brokers = [broker_of(each.to) for each in (one, two, three)]
    assert brokers[0] is brokers[1]
    assert brokers[0] is not brokers[2]


def test_secrets_come_from_files(write: Write, tmp_path: Path) -> None:
    (tmp_path / "database").write_text("of the database\n")
    (tmp_path / "kafka").write_text("of kafka\n")
    (tmp_path / "redis").write_text("redis://u:of%20redis@host/1\n")
    (tmp_path / "url").write_text("postgresql://relay@elsewhere/shop\n")
    text = f"""
        [databases.shop]
        url_file = "{tmp_path}/url"
        password_file = "{tmp_path}/database"
        [[databases.shop.forwarders]]
        queues = "a"
        to = "kafka://u@host"
        topic = "a"
        password_file = "{tmp_path}/kafka"
        [[databases.shop.forwarders]]
        queues = "b"
        to_file = "{tmp_path}/redis"
        stream = "b"
    """
    [database] = make(write(text))
    assert {"of the database", "of kafka", "of redis"} <= set(database.secrets)
    assert {"of%20the%20database", "of%20kafka", "of%20redis"} <= set(database.secrets), "as URLs show them"
    assert "of kafka" not in repr(database)
    kafka, redis = database.broker.forwarders
    assert connection_options(broker_of(kafka.to))["sasl_plain_password"] == "of kafka"
    assert connection_options(broker_of(redis.to))["password"] == "of redis"
    for file, problem in (("database", "is empty"), ("kafka", "is empty")):
        kept = (tmp_path / file).read_text()
        (tmp_path / file).write_text("\n")
        [found] = problems(tmp_path / "relay.toml")
        assert found.endswith(f"password_file: {tmp_path}/{file} {problem}")
        (tmp_path / file).write_text(kept)


def test_secrets_in_options_and_queries_are_known(write: Write) -> None:
    text = """
        [databases.shop]
        url = "postgresql://relay@host/shop?password=one%20two&sslmode=prefer"
        [[databases.shop.forwarders]]
        queues = "a"
        to = "redis://host"
        list = "a"
        client = {password = "three", client_name = "four"}
    """
    [database] = make(write(text))
    assert {"one two", "one%20two", "three"} <= set(database.secrets)
    assert not {"", "four"} & set(database.secrets)


def test_what_a_database_is_like(write: Write, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("one")
    text = (
        HEAD
        + f"password_file = '{tmp_path}/password'\n[[databases.shop.forwarders]]\n"
        + ("queues = 'a'\nto = 'kafka://host'\ntopic = 'a'\n")
    )
    [first] = make(write(text))
    [same] = make(write(text))
    assert first.is_like(same)
    [other] = make(write(f"{text}lanes = 3"))
    assert not first.is_like(other)
    (tmp_path / "password").write_text("two")
    [rotated] = make(write(text))
    assert not first.is_like(rotated)


def test_a_client_that_is_not_installed_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(module: str) -> Any:
        raise ImportError(module)

    monkeypatch.setattr(destinations, "import_module", nothing)
    assert forwarder_problems(write, "queues = 'a'\nto = 'kafka://host'\ntopic = 'a'") == [
        "forwarders[0].to: kafka:// needs the extra 'kafka' of this package: pip install '.[relay,kafka]' in a checkout"
    ]


@pytest.mark.parametrize(
    ("count", "more", "seconds"),
    [(1, "", 1.5), (20, "", 4.0), (20, "listen = false", 1.5), (20, "pooled = true", 1.5)],
)
def test_many_forwarders_look_less_often(write: Write, count: int, more: str, seconds: float) -> None:
    text = "".join(
        f"[databases.d{number}]\nurl = 'postgresql://host/{number}'\n{more}\n"
        f"[[databases.d{number}.forwarders]]\nqueues = 'a'\nto = 'kafka://host'\ntopic = 'a'\n"
        for number in range(count)
    )
    made = make(write(text))
    assert len(made) == count
    assert {each.broker.forwarders[0]._max_interval for each in made} == {seconds}
    assert {each.broker.forwarders[0]._min_interval for each in made} == {max(1.0, seconds / 2)}
