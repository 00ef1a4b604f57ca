import asyncio
import time

import pytest

from faststream_outbox.forwarders.deadline import Deadline


async def waits(deadline: Deadline) -> float:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with deadline.limit():
            await asyncio.sleep(60)
    return time.monotonic() - began


async def seconds_left(deadline: Deadline) -> float:
    """How long a hand-over that begins now may take."""
    async with deadline.limit():
        assert deadline._current is not None
        end = deadline._current.when()
        assert end is not None
        return end - asyncio.get_running_loop().time()


async def test_a_hand_over_has_its_seconds() -> None:
    deadline = Deadline(0.05)
    assert 0.04 < await waits(deadline) < 10
    assert 0.04 < await waits(deadline) < 10
    assert 59 < await seconds_left(Deadline(60)) <= 60


async def test_what_is_in_flight_gets_the_grace() -> None:
    deadline = Deadline(30.0)
    asyncio.get_running_loop().call_later(0.05, deadline.finish, 0.1)
    assert 0.14 < await waits(deadline) < 10


async def test_what_begins_later_ends_with_it() -> None:
    deadline = Deadline(30.0)
    deadline.finish(0.05)
    assert await waits(deadline) < 10
    assert await seconds_left(deadline) <= 0


async def test_the_grace_makes_nothing_longer() -> None:
    deadline = Deadline(0.05)
    asyncio.get_running_loop().call_soon(deadline.finish, float("inf"))
    assert await waits(deadline) < 10
    deadline.finish(0.0)
    deadline.finish(60.0)
    assert await seconds_left(deadline) <= 0
