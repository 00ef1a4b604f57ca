"""Stand where connections of aiokafka do."""

import asyncio
from types import SimpleNamespace
from typing import Any


class Transport(asyncio.WriteTransport):
    def __init__(self) -> None:
        super().__init__()
        self.was_reset = False

    def abort(self) -> None:
        self.was_reset = True


class Connection:
    """Leads to a server, and waits for answers."""

    def __init__(self, port: int, *answers: asyncio.Future[Any]) -> None:
        self.host, self.port = "localhost", port
        self.transport = Transport()
        self._writer: SimpleNamespace | None = SimpleNamespace(transport=self.transport)
        self._requests = [(number, None, answer) for number, answer in enumerate(answers)]

    def close(self) -> None: ...
