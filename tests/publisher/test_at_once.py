"""Coroutines where nothing can be awaited."""

import asyncio

import pytest

from faststream_outbox import ConfigError
from faststream_outbox.publisher.at_once import finish


def test_what_waits_for_nothing_gives_its_result_or_its_error() -> None:
    async def double(n: int) -> int:
        return n * 2

    async def around(n: int) -> int:
        return await double(n) + 1

    async def fail() -> None:
        raise ValueError("mine")

    assert finish(around(2), refusal="no") == 5
    with pytest.raises(ValueError, match="mine"):
        finish(fail(), refusal="no")


@pytest.mark.filterwarnings("error")
async def test_what_waits_is_named_and_ended() -> None:
    said: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(0.001)
        finally:
            said.append("ended")

    async def around() -> None:
        await wait()

    with pytest.raises(ConfigError, match=r"^no \(.*around > .*wait > sleep\)$"):
        finish(around(), refusal="no")
    assert said == ["ended"]
