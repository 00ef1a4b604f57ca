"""A server of ours never outlives the session, however that ends, and its port stays ours while it is down."""

import asyncio
import socket
from pathlib import Path

import psutil
import pytest

from integration.faults.processes import run_python

from .process import LOOPBACK, ReservedPort, ServerFailed, ServerProcess

OWNER = """
    import pathlib, sys, threading, time
    from integration.servers.process import ServerProcess

    server = ServerProcess(["sleep", "60"], pathlib.Path(sys.argv[1]))
    # In a thread that ends at once: a server must not depend on the thread that started it.
    starting = threading.Thread(target=server.start, args=[lambda: True])
    starting.start()
    starting.join()
    print("ready", server.pid)
    time.sleep(60)
"""


async def test_a_server_and_its_folder_go_when_the_session_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    async with run_python("-c", OWNER, str(folder)) as owner:
        pid = int(owner.lines[0].split()[1])
        assert psutil.Process(pid).name() == "sleep"
        await owner.kill()
        async with asyncio.timeout(5):
            while psutil.pid_exists(pid) or folder.exists():
                await asyncio.sleep(0.01)


def test_a_server_that_exits_at_once_shows_its_log(tmp_path: Path) -> None:
    server = ServerProcess(["sh", "-c", "echo the disk is full; exit 3"], tmp_path)
    with pytest.raises(ServerFailed, match="sh exited; its log:\nthe disk is full"):
        server.start(lambda: False)


def test_a_server_that_is_never_ready_is_killed(tmp_path: Path) -> None:
    server = ServerProcess(["sleep", "60"], tmp_path)
    with pytest.raises(ServerFailed, match=r"is not ready after 0\.1 s"):
        server.start(lambda: False, timeout=0.1)
    assert not server.alive


def test_a_command_that_does_not_exist_shows_the_reason(tmp_path: Path) -> None:
    server = ServerProcess(["no-such-server"], tmp_path)
    with pytest.raises(ServerFailed, match=r"(?s)did not start.*No such file or directory: 'no-such-server'"):
        server.start(lambda: True)


def test_a_reserved_port_refuses_until_its_server_listens_beside_it() -> None:
    port = ReservedPort()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOOPBACK, port.number))
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((LOOPBACK, port.number))
        server.listen()
        socket.create_connection((LOOPBACK, port.number)).close()
    port.release()
