"""The children of tests: the handshake, the signals, and that none outlives its test or its session."""

import asyncio
import signal

import psutil
import pytest

from .processes import ChildFailed, run_python

TICKING = """
    import itertools, os, time
    print("ready", os.environ["NAME"])
    for number in itertools.count():
        print("tick", number)
        time.sleep(0.01)
"""
SLEEPING = "import time; print('ready'); time.sleep(60)"


async def test_a_child_gets_the_environment_and_is_killed_on_leaving() -> None:
    async with run_python("-c", TICKING, env={"NAME": "first light"}) as child:
        assert child.lines[0] == "ready first light"
        assert child.returncode is None
    assert child.returncode == -signal.SIGKILL


async def test_a_module_runs_with_its_arguments() -> None:
    async with run_python("-m", "timeit", "-n", "1", "pass", ready=None) as child:
        assert await child.wait() == 0
    assert "1 loop" in child.lines[0]


async def test_a_paused_child_does_nothing_until_it_is_resumed() -> None:
    async with run_python("-c", TICKING, env={"NAME": ""}) as child:
        await child.wait_for_line("tick 3")
        child.pause()
        while psutil.Process(child.pid).status() != psutil.STATUS_STOPPED:
            await asyncio.sleep(0.01)
        # What it had printed by then is read meanwhile.
        await asyncio.sleep(0.3)
        printed = len(child.lines)
        await asyncio.sleep(0.3)
        assert len(child.lines) == printed
        child.resume()
        await child.wait_for_line(f"tick {printed + 3}")
        child.pause()
        await child.kill()
        assert child.returncode == -signal.SIGKILL


async def test_a_child_can_end_cleanly_on_sigterm() -> None:
    source = """
        import signal, sys, threading
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped cleanly"))
        print("ready")
        threading.Event().wait()
    """
    async with run_python("-c", source) as child:
        assert await child.terminate() == 1
        assert child.lines[-1] == "stopped cleanly"


async def test_a_child_that_fails_before_it_is_ready_shows_its_output() -> None:
    with pytest.raises(ChildFailed, match=r"(?s)ended with status 1 .*ValueError: no such table"):
        async with run_python("-c", "raise ValueError('no such table')"):
            raise AssertionError("entered though not ready")


async def test_a_child_that_is_not_ready_in_time_shows_its_output() -> None:
    with pytest.raises(ChildFailed, match=r"(?s)did not print 'ready' in 0.5 s.*still waiting"):
        async with run_python("-c", "import time; print('still waiting'); time.sleep(60)", timeout=0.5):
            raise AssertionError("entered though not ready")


async def test_a_child_dies_with_the_process_that_started_it() -> None:
    parent = f"""
        import asyncio
        from integration.faults.processes import run_python

        async def main():
            async with run_python("-c", {SLEEPING!r}) as child:
                print("ready", child.pid)
                await asyncio.sleep(60)

        asyncio.run(main())
    """
    async with run_python("-c", parent) as middle:
        grandchild = psutil.Process(int(middle.lines[0].split()[1]))
        await middle.kill()
        async with asyncio.timeout(5):
            while _runs(grandchild):
                await asyncio.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    try:
        # An orphan stays a zombie until the machine's first process collects it, which some containers' never does.
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
