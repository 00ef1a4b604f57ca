"""Answers a few GET requests, one for each connection: what probes need, and no more."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

_log = logging.getLogger(__name__)

READ_SECONDS = 5.0
"""In which a request has to come."""
MOST_HEADERS = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and what it is."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "application/json"


def as_json(report: Any, *, is_good: bool = True) -> Answer:
    """Return an answer in JSON: 200, or 503."""
    status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(json.dumps(report, ensure_ascii=False).encode() + b"\n", status)


class HttpServer:
    """Listens on a port and answers by path.

    Args:
        routes: What answers for each path.
    """

    def __init__(self, routes: Mapping[str, Callable[[], Awaitable[Answer]]]) -> None:
        self._routes = routes
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port.

        Raises:
            OSError: The port is taken, or the address is none of this machine.
        """
        self._server = await asyncio.start_server(self._serve, host, port)
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def stop(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                method, path = await _read(reader)
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # It is gone, is slow, or does not speak HTTP.
            writer.close()
            return
        try:
            answer = await self._answer(method, path)
            writer.write(_head(answer) + (b"" if method == "HEAD" else answer.body))
            async with asyncio.timeout(READ_SECONDS):
                await writer.drain()
        except OSError:
            # It is gone or is slow: TimeoutError is one too.
            pass
        finally:
            writer.close()

    async def _answer(self, method: str, path: str) -> Answer:
        route = self._routes.get(path.partition("?")[0])
        if route is None:
            return Answer(json.dumps({"paths": [*self._routes]}).encode() + b"\n", HTTPStatus.NOT_FOUND)
        if method not in {"GET", "HEAD"}:
            return Answer(b"", HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            return await route()
        except Exception:  # noqa: BLE001 - who asks is told that it is the server's fault
            _log.exception("no answer for %s", path)
            return Answer(b"", HTTPStatus.INTERNAL_SERVER_ERROR)


async def _read(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Return method and path, and read the headers that nobody needs."""
    method, path, _ = (await reader.readuntil(b"\n")).decode("latin-1").split()
    for _ in range(MOST_HEADERS):
        if not (await reader.readuntil(b"\n")).strip():
            break
    return method, path


def _head(answer: Answer) -> bytes:
    lines = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode()
