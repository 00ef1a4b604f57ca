"""What a relay answers over HTTP."""

import asyncio
import json
import signal
from collections.abc import Callable
from typing import Any

import httpx

from integration.broker.observing import eventually
from integration.destinations.base import Box
from integration.faults.processes import ChildProcess
from integration.servers.process import LOOPBACK

from .conftest import Source, Write, database, forwarder, running

HTTP = "[http]\nport = 0\n"


class Asked:
    """Answers of a relay."""

    def __init__(self, line: str) -> None:
        self._base = line.partition(" at ")[2].partition("/live")[0]

    async def get(self, path: str) -> tuple[int, Any]:
        async with httpx.AsyncClient(timeout=20) as client:
            answer = await client.get(f"{self._base}{path}")
        assert answer.headers["content-type"] == "application/json"
        return answer.status_code, answer.json()

    async def metrics(self) -> str:
        async with httpx.AsyncClient(timeout=20) as client:
            answer = await client.get(f"{self._base}/metrics")
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "text/plain")
        return answer.text

    async def becomes(self, path: str, status: int, state: str) -> Any:
        """Ask until the answer is so, and return it."""
        found: list[Any] = []

        async def is_so() -> bool:
            found[:] = await self.get(path)
            return (found[0], found[1]["state"]) == (status, state)

        await eventually(is_so, within=30)
        return found[1]

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self._base.removeprefix("http://").rpartition(":")
        return host, int(port)


async def asked(relay: ChildProcess) -> Asked:
    return Asked(await relay.wait_for_line("it answers probes at", 60))


async def test_an_outage_of_a_destination_is_degraded_and_one_of_a_database_is_not_ready(
    source: Source, other_source: Source, box: Box, write: Write, dead_port: int
) -> None:
    lost = f"queues = 'emails'\nto = 'redis://{LOOPBACK}:{dead_port}'\nstream = 'x'"
    text = HTTP + database("shop", source, forwarder(box)) + database("post", other_source, lost)
    async with running(write(text)) as relay:
        probes = await asked(relay)
        assert await probes.get("/live") == (
            200,
            {
                "state": "ok",
                "databases": {"shop": {"state": "ok", "problems": []}, "post": {"state": "ok", "problems": []}},
            },
        )
        found = await probes.becomes("/ready", 200, "degraded")
        assert list(found["databases"]["post"]["forwarders"]) == ["redis:x"]
        await eventually(lambda: _is_ok(probes, "shop"), within=30)

        async with source.engine.begin() as connection:
            name = source.engine.url.database
            await connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        found = await probes.becomes("/ready", 503, "not ready")
        assert found["databases"]["shop"] == {
            "state": "not ready",
            "problems": ["the database takes no writes"],
            "forwarders": {f"redis:{box.name}": "flowing"},
        }
        assert found["databases"]["post"]["state"] == "degraded"
        assert (await probes.get("/live"))[0] == 200


async def test_tables_that_are_not_there(source: Source, box: Box, write: Write) -> None:
    text = HTTP + database("shop", source, forwarder(box), more="table = 'nothing'")
    async with running(write(text)) as relay:
        probes = await asked(relay)
        found = await probes.becomes("/ready", 503, "not ready")
        assert "nothing is not as it is declared" in str(found["databases"]["shop"]["problems"])
    async with running(write(text), "--check", "--connect", ready=None) as relay:
        assert await relay.wait(30) == 1
    assert any("databases.shop: nothing: " in line for line in relay.lines), relay.lines
    text = HTTP + database("shop", source, forwarder(box))
    async with running(write(text), "--check", "--connect", ready=None) as relay:
        assert await relay.wait(30) == 0


async def _is_ok(probes: Asked, name: str) -> bool:
    return bool((await probes.get("/ready"))[1]["databases"][name]["state"] == "ok")


async def test_metrics_have_the_names_of_the_databases(
    source: Source, other_source: Source, box: Box, write: Write
) -> None:
    await source.load().backlog(20)
    more = f"[[databases.shop.forwarders]]\nqueues = 'b'\nto = '{box.url}'\nlist = '{box.name}-b'\n"
    text = "[http]\nport = 0\nmetrics = true\n" + database("shop", source, forwarder(box)) + more
    text += database("post", other_source, forwarder(box, "emails"))
    file = write(text)
    async with running(file) as relay:
        probes = await asked(relay)
        await box.received(20)
        line = f'outbox_forwarder_messages_total{{forwarder="redis:{box.name}",outbox="shop",verdict="accepted"}} 20.0'

        async def are_counted() -> bool:
            return line in await probes.metrics()

        await eventually(are_counted, within=20)
        # A database that is stopped leaves its gauges behind, not its counts.
        file.write_text(text.partition("[databases.post]")[0])
        relay.send_signal(signal.SIGHUP)
        await relay.wait_for_line("1 databases stopped, 0 started, 1 left as they were")
        found = await probes.metrics()
        assert line in found
        assert f'outbox_forwarder_state{{forwarder="redis:{box.name}",outbox="shop",state="flowing"}} 1.0' in found
        assert 'outbox_database_up{outbox="post"}' not in found
        assert "process_cpu_seconds_total" in found


async def test_other_paths_other_methods_and_what_is_no_http(source: Source, box: Box, write: Write) -> None:
    async with running(write(HTTP + database("shop", source, forwarder(box)))) as relay:
        probes = await asked(relay)
        assert await probes.get("/") == (404, {"paths": ["/live", "/ready"]})
        assert await _say(probes, b"POST /live HTTP/1.1\r\nHost: x\r\n\r\n") == b"HTTP/1.1 405 Method Not Allowed"
        assert await _say(probes, b"HEAD /live?now HTTP/1.0\r\n\r\n") == b"HTTP/1.1 200 OK"
        for nonsense in (
            b"\x16\x03\x01\n",
            b"x" * 100_000 + b"\n",
            b"GET /live HTTP/1.1\r\n" + b"a: b\r\n" * 1000,
            b"",
        ):
            await _say(probes, nonsense)
        assert (await probes.get("/live"))[0] == 200
        assert not any("Traceback" in line for line in relay.lines), relay.lines


async def _say(probes: Asked, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*probes.address)
    try:
        writer.write(request)
        writer.write_eof()
        return (await reader.read()).partition(b"\r\n")[0]
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_port_that_is_taken_is_a_problem_of_the_file(source: Source, box: Box, write: Write) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    text = f"[http]\nport = {port}\n" + database("shop", source, forwarder(box))
    async with server, running(write(text), "--json", ready=None) as relay:
        assert await relay.wait(60) == 2
    [line] = [line for line in relay.lines if line.startswith("{")]
    [problem] = json.loads(line)["problems"]
    assert problem["place"] == "http"
    assert "address already in use" in problem["problem"]


async def test_each_process_has_a_port(
    source: Source, box: Box, write: Write, free_ports: Callable[[int], int]
) -> None:
    port = free_ports(2)
    text = f"[http]\nport = {port}\n" + database("shop", source, forwarder(box))
    async with running(write(text), "--processes", "2", ready=None) as relay:
        for number in range(2):
            await relay.wait_for_line(f"it answers probes at http://127.0.0.1:{port + number}/live", 60)
        assert await relay.terminate(30) == 0
