"""The log of a relay."""

import logging
import sys

from faststream_outbox.relay.running import PlainFormatter


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
