"""The log of a relay."""

import logging
import sys

import pytest

from faststream_outbox.relay.connections import FrugalPool
from faststream_outbox.relay.relay import Relay
from faststream_outbox.relay.running import LOGGER, PlainFormatter, log_to_stderr

from .conftest import Write


def test_what_is_secret_is_replaced_in_messages_arguments_and_tracebacks() -> None:
    formatter = PlainFormatter(lambda text: text.replace("s3cr3t", "***"))
    try:
        raise ValueError("no s3cr3t")  # noqa: TRY301
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "at %s", ("amqp://u:s3cr3t@host",), sys.exc_info())
    text = formatter.format(record)
    assert "at amqp://u:***@host" in text
    assert "ValueError: no ***" in text
    assert "s3cr3t" not in text


def test_pools_say_only_what_is_wrong(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy names the logger of a pool by its class, and so below the relay's own."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    levels = {name: logging.getLogger(name).level for name in ("", LOGGER, FrugalPool.__module__)}
    file = write(
        "log_level = 'debug'\n[databases.a]\nurl = 'postgresql://host'\n[[databases.a.forwarders]]\n"
        "queues = 'a'\nto = 'redis://host'\nlist = 'a'"
    )
    try:
        log_to_stderr(Relay(file, logging.getLogger(LOGGER)))
        assert logging.getLogger(LOGGER).isEnabledFor(logging.DEBUG)
        pool = logging.getLogger(f"{FrugalPool.__module__}.{FrugalPool.__name__}")
        assert not pool.isEnabledFor(logging.INFO)
        assert pool.isEnabledFor(logging.WARNING)
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
