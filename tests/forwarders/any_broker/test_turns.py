"""Many together, or one alone."""

import asyncio

from faststream_outbox.forwarders.any_broker.turns import Turns


async def test_one_who_is_alone_waits_for_the_others_and_keeps_new_ones_out() -> None:
    turns, log = Turns(), list[str]()
    leave = asyncio.Event()

    async def together(name: str) -> None:
        async with turns.together():
            log.append(f"{name} comes")
            await leave.wait()
        log.append(f"{name} goes")

    async def alone() -> None:
        async with turns.alone():
            log.append("alone")
            await asyncio.sleep(0)
            log.append("not any more")

    async with asyncio.TaskGroup() as group:
        group.create_task(together("a"))
        group.create_task(together("b"))
        await asyncio.sleep(0)
        group.create_task(alone())
        await asyncio.sleep(0)
        group.create_task(together("c"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert log == ["a comes", "b comes"]
        leave.set()
    assert log == ["a comes", "b comes", "a goes", "b goes", "alone", "not any more", "c comes", "c goes"]


async def test_one_who_gives_up_waiting_keeps_nobody_out() -> None:
    turns = Turns()
    async with turns.together():
        waiting = asyncio.create_task(turns.alone().__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        async with asyncio.timeout(2.5), turns.together():
            pass
    async with asyncio.timeout(2.5), turns.alone():
        pass
