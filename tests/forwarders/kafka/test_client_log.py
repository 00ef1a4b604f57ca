import asyncio
import logging

import pytest

from faststream_outbox.forwarders.kafka.client_log import keep_lines_out_of_the_log

aiokafka = logging.getLogger("aiokafka")


async def test_lines_of_our_own_clients_are_kept_and_all_others_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aiokafka")

    async def in_the_background() -> None:
        aiokafka.error("no connection to %s", "kafka")

    async def ours() -> list[str]:
        last_line = keep_lines_out_of_the_log()
        aiokafka.warning("an earlier line")
        await asyncio.create_task(in_the_background())
        aiokafka.debug("details")
        return last_line

    assert await asyncio.create_task(ours()) == ["no connection to kafka"]
    aiokafka.error("the application's own client")
    assert caplog.messages == ["details", "the application's own client"]
