"""From databases to brokers: drain, stop under load, reload, several processes. The ledger counts."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import pytest

from integration.broker.observing import eventually
from integration.destinations.base import Box
from integration.faults.processes import ChildProcess
from integration.servers.process import LOOPBACK

from .conftest import Source, Write, database, forwarder, running

OpenBox = Callable[[str], AbstractAsyncContextManager[Box]]


@pytest.mark.timeout(180)
async def test_from_two_databases_to_two_brokers(
    source: Source, other_source: Source, open_box: OpenBox, write: Write
) -> None:
    await source.load(queue="orders", name="o").backlog(3000)
    await other_source.load(queue="emails", name="e").backlog(1000)
    async with open_box("kafka") as orders, open_box("rabbit") as emails:
        text = database("shop", source, forwarder(orders)) + database("post", other_source, forwarder(emails, "emails"))
        async with running(write(text), "--drain", ready=None) as relay:
            assert await relay.wait(60) == 0, relay.lines
        await source.check(orders)
        await other_source.check(emails)


async def test_a_stop_under_load_repeats_and_loses_nothing(source: Source, box: Box, write: Write) -> None:
    file = write(database("shop", source, forwarder(box)))
    load = source.load()
    await load.backlog(2000)
    async with load.flowing(400):
        for _ in range(3):
            async with running(file) as relay:
                await _wait_for(box, len(await box.read()) + 300)
                assert await relay.terminate(30) == 0
                assert "the relay has stopped" in relay.lines[-1]
    async with running(file, "--drain", ready=None) as relay:
        assert await relay.wait(60) == 0
    assert load.failures == 0
    await source.check(box)


async def _wait_for(box: Box, count: int) -> None:
    async def are_there() -> bool:
        return len(await box.read()) >= count

    await eventually(are_there, within=30)


async def test_what_is_left_when_the_time_is_over(source: Source, write: Write, dead_port: int) -> None:
    await source.load().backlog(20)
    text = f"queues = 'orders'\nto = 'redis://{LOOPBACK}:{dead_port}'\nstream = 'x'"
    async with running(write(database("shop", source, text)), "--drain", "--within", "3", ready=None) as relay:
        assert await relay.wait(60) == 1
    assert any("left: shop: 'orders' has 20 rows to be sent" in line for line in relay.lines), relay.lines
    assert await source.value("SELECT count(*) FROM outbox") == 20
    assert await source.value("SELECT coalesce(sum(attempts_count), 0) FROM outbox") == 0, "an outage counts no attempt"


async def test_other_queues_and_timers_are_not_waited_for(source: Source, box: Box, write: Write) -> None:
    await source.load(queue="others").backlog(5)
    await source.load(queue="orders", name="o").backlog(5)
    async with source.engine.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO outbox (queue, idempotency_key, payload, timer_id, next_attempt_at) "
            "VALUES ('orders', 'late', 'x', 't', now() + interval '1 h')"
        )
    async with running(write(database("shop", source, forwarder(box))), "--drain", ready=None) as relay:
        assert await relay.wait(60) == 0
    assert len(await box.read()) == 5


async def test_ctrl_c(source: Source, box: Box, write: Write) -> None:
    async with running(write(database("shop", source, forwarder(box)))) as relay:
        relay.send_signal(signal.SIGINT)
        assert await relay.wait(30) == 130
    assert not any("Traceback" in line for line in relay.lines)


async def test_the_file_is_followed(
    source: Source, other_source: Source, box: Box, open_box: OpenBox, write: Write
) -> None:
    first = database("shop", source, forwarder(box))
    load = source.load(name="o")
    other_load = other_source.load(queue="emails", name="e")
    await load.backlog(200)
    await other_load.backlog(10)
    async with open_box("redis-stream") as other, running(write(first)) as relay:
        second = database("post", other_source, forwarder(other, "emails"))
        async with load.flowing(200):
            # What is wrong changes nothing.
            write(first + second + "[databases.post.nothing]")
            relay.send_signal(signal.SIGHUP)
            await relay.wait_for_line("databases.post.nothing: unknown")
            await relay.wait_for_line("goes on as before")
            assert await other.read() == []

            write(first + second)
            relay.send_signal(signal.SIGHUP)
            await relay.wait_for_line("0 databases stopped, 1 started, 1 left as they were")
            assert len(await other.received(10)) == 10

            write(database("shop", source, forwarder(box, more="lanes = 1")) + second + "[http]\nport = 0")
            relay.send_signal(signal.SIGHUP)
            await relay.wait_for_line("1 databases stopped, 1 started, 1 left as they were")
            await relay.wait_for_line("[http] has changed, and needs a restart")
            await _wait_for(box, len(await box.read()) + 50)

            write("log_level = 'error'\n" + database("shop", source, forwarder(box, more="lanes = 1")))
            relay.send_signal(signal.SIGHUP)
            await relay.wait_for_line(
                "1 forwarders of 1 databases; 1 databases stopped, 0 started, 1 left as they were"
            )
        await other_load.backlog(5)
        await _wait_for(box, len(await source.book.messages()))
        assert await relay.terminate(30) == 0
        assert len(await other.read()) == 10, "its database has left the file"
        assert not any("the relay stops" in line for line in relay.lines), "it is no error"
    await source.check(box)


async def test_several_processes(source: Source, box: Box, write: Write) -> None:
    load = source.load()
    await load.backlog(500)
    file = write(database("shop", source, forwarder(box)))
    async with running(file, "--processes", "2", ready=None) as relay:
        pids = await _pids(relay, 2)
        async with load.flowing(200):
            os.kill(pids[0], signal.SIGKILL)
            await relay.wait_for_line("it is started again", 30)
            assert len(await _pids(relay, 3)) == 3
        await _wait_for(box, len(await source.book.messages()))
        assert await relay.terminate(30) == 0
    # A kill may repeat what was in flight: a hand-over of each lane.
    await source.check(box, repeats_at_most=1000)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_signal_to_all_of_them_is_one_signal(source: Source, box: Box, write: Write) -> None:
    """systemd and others tell each process of a group to end, and so does the first process: it is a clean stop."""
    load = source.load()
    await load.backlog(500)
    async with running(write(database("shop", source, forwarder(box))), "--processes", "2", ready=None) as relay:
        pids = await _pids(relay, 2)
        async with load.flowing(200):
            await _wait_for(box, 300)
            for pid in (pids[0], relay.pid, pids[1]):
                os.kill(pid, signal.SIGTERM)
            assert await relay.wait(30) == 0
    assert not any("told to end twice" in line for line in relay.lines), relay.lines
    assert sum("the relay has stopped" in line for line in relay.lines) == 2
    async with running(write(database("shop", source, forwarder(box))), "--drain", ready=None) as relay:
        assert await relay.wait(60) == 0
    await source.check(box)


async def test_processes_that_are_told_twice_end_at_once(source: Source, box: Box, write: Write) -> None:
    async with running(write(database("shop", source, forwarder(box))), "--processes", "2", ready=None) as relay:
        pids = await _pids(relay, 2)
        os.kill(pids[0], signal.SIGSTOP)
        try:
            relay.send_signal(signal.SIGTERM)
            await relay.wait_for_line("the relay stops")
            relay.send_signal(signal.SIGTERM)
            assert await relay.wait(30) == 143
        finally:
            with suppress(ProcessLookupError):
                os.kill(pids[0], signal.SIGKILL)
    assert any("told to end twice" in line for line in relay.lines)


async def test_processes_of_which_one_has_no_port(source: Source, box: Box, write: Write) -> None:
    file = write("[http]\nport = 65535\n" + database("shop", source, forwarder(box)))
    async with running(file, "--processes", "2", ready=None) as relay:
        assert await relay.wait(60) == 2, relay.lines
    assert any("http: " in line for line in relay.lines), relay.lines
    assert any("process 1 cannot run, so none does" in line for line in relay.lines), relay.lines
    assert not any("Traceback" in line for line in relay.lines), relay.lines


async def test_processes_end_with_the_one_that_has_started_them(source: Source, box: Box, write: Write) -> None:
    async with running(write(database("shop", source, forwarder(box))), "--processes", "2", ready=None) as relay:
        pids = await _pids(relay, 2)
        await relay.kill()

    async def are_gone() -> bool:
        return not any(_lives(pid) for pid in pids)

    await eventually(are_gone, within=30)


async def test_several_processes_drain(source: Source, box: Box, write: Write) -> None:
    await source.load().backlog(1000)
    file = write(database("shop", source, forwarder(box)))
    async with running(file, "--processes", "2", "--drain", ready=None) as relay:
        assert await relay.wait(60) == 0, relay.lines
    await source.check(box)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _pids(relay: ChildProcess, count: int) -> list[int]:
    """Of the processes that have begun so far."""
    found: list[int] = []

    async def are_there() -> bool:
        lines = [line for line in relay.lines if "the relay runs" in line]
        found[:] = [int(line.rpartition(" ")[2]) for line in lines]
        return len(found) >= count

    await eventually(are_there, within=60)
    return found


async def test_a_password_is_never_shown(
    source: Source, box: Box, write: Write, tmp_path: Path, dead_port: int
) -> None:
    """Not with a server that is not there, not at the most talkative level."""
    (tmp_path / "password").write_text("s3cr3t-horse\n")
    text = database("shop", source, forwarder(box), more=f"password_file = '{tmp_path}/password'")
    text += f"""
        [databases.gone]
        url = "postgresql://relay:s3cr3t-horse@{LOOPBACK}:{dead_port}/shop"
        [[databases.gone.forwarders]]
        queues = "a"
        to = "amqp://relay:s3cr3t-horse@{LOOPBACK}:{dead_port}"
        routing_key = "x"
    """
    async with running(write("log_level = 'debug'\n" + text)) as relay:
        await relay.wait_for_line("[gone]", 30)
        await asyncio.sleep(1)
        await relay.terminate(30)
    assert not [line for line in relay.lines if "s3cr3t" in line]
