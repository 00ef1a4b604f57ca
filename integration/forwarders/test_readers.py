"""The readers of docs/consumers.md, as printed, on real servers: consumers that know nothing of FastStream.

Those in Python run always. ``OUTBOX_READERS`` names a folder with the libraries of the others: see ``make readers``.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from faststream_outbox import OutboxBroker
from integration.destinations.base import Box
from integration.servers.jars import kafka_jars

from .carrying import Publishing

PAGE = (Path(__file__).parents[2] / "docs" / "consumers.md").read_text(encoding="utf-8")
SECTIONS = {"kafka": "Kafka", "rabbit": "RabbitMQ", "redis-stream": "Redis streams", "nats": "NATS JetStream"}
ADDRESSES = {
    "kafka": ("localhost:9092", "orders.v1"),
    "rabbit": ("amqp://guest:guest@localhost", "emails"),
    "redis-stream": ("redis://localhost:6379", "clicks"),
    "nats": ("nats://localhost:4222", "payments"),
}
"""As the page prints them: of the server, and of what is read."""

LIBRARIES = os.environ.get("OUTBOX_READERS")
FILES = {"python": "reader.py", "javascript": "reader.js", "go": "reader.go", "java": "Reader.java"}


def programs() -> list[tuple[str, str, str]]:
    """Kind of destination, language and program of each reader that can run here."""
    found = []
    for kind, title in SECTIONS.items():
        [section] = re.findall(rf"^## {title}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        assert blocks[0][0] == "python"
        found += [(kind, language, text) for language, text in blocks if language == "python" or LIBRARIES]
    return found


def command(language: str, program: Path) -> Sequence[str]:
    match language:
        case "python":
            return [sys.executable, str(program)]
        case "javascript":
            return ["node", str(program)]
        case "go":
            return ["go", "run", str(program)]
        case _:
            return ["java", "-cp", f"{LIBRARIES}/jars/*:{kafka_jars()}/*", str(program)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("box", "language", "text"), programs(), indirect=["box"], ids=lambda value: str(value)[:12])
async def test_a_reader_prints_what_was_published(
    box: Box, language: str, text: str, broker: OutboxBroker, publishing: Publishing, tmp_path: Path
) -> None:
    server, name = ADDRESSES[box.kind]
    # A slash at the end is a virtual host without a name for some clients of RabbitMQ.
    address = box.url.rstrip("/")
    assert text.count(server) == 1
    assert text.count(f'"{name}"') == 1
    text = text.replace(server, address).replace(f'"{name}"', f'"{box.name}"')
    # A module's libraries are found from its folder.
    folder = tmp_path if language in ("python", "java") else Path(LIBRARIES or "") / f"{box.kind}-{language}"
    folder.mkdir(exist_ok=True)
    program = folder / FILES[language]
    program.write_text(text, encoding="utf-8")

    is_redis = box.kind == "redis-stream"
    broker.forwarder("orders", to=box.publisher(), **({"envelope": "plain"} if is_redis else {}))
    for number, body in enumerate(({"name": "Müller"}, "text", b"bytes")):
        await publishing.one(body, key="kunde-ü", idempotency_key=f"order-{number}")
    await broker.start()
    expected = [
        'kunde-ü order-0 application/json {"name": "Müller"}',
        "kunde-ü order-1 text/plain text",
        "kunde-ü order-2 application/octet-stream bytes",
    ]
    lines: list[str] = []
    async with asyncio.timeout(200):
        # Some clients give up on a Kafka whose groups have no coordinator yet; in production they are started again.
        while len(lines) < len(expected):
            async with running(command(language, program), folder) as output:
                while len(lines) < len(expected) and (line := await output.readline()):
                    if b" order-" in line:
                        lines.append(line.decode().strip().replace('":"', '": "'))
    assert lines == expected


@asynccontextmanager
async def running(program: Sequence[str], folder: Path) -> AsyncIterator[asyncio.StreamReader]:
    """Run a reader, and kill it in the end with all that it has started."""
    utf8 = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "JAVA_TOOL_OPTIONS": "-Dfile.encoding=UTF-8"}
    reader = await asyncio.create_subprocess_exec(
        *program, cwd=folder, env=os.environ | utf8, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert reader.stdout is not None
        yield reader.stdout
    finally:
        with suppress(ProcessLookupError):
            os.killpg(reader.pid, signal.SIGKILL)
        await reader.wait()
        reader._transport.close()
