"""The small server of probes."""

import asyncio
import logging

import pytest

from faststream_outbox.relay.http import Answer, HttpServer


async def test_a_route_that_raises_is_an_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> Answer:
        raise ValueError("no metrics today")

    server = HttpServer({"/metrics": fail})
    port = await server.start("127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    finally:
        await server.stop()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert "no answer for /metrics" in caplog.text
    assert "no metrics today" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR
