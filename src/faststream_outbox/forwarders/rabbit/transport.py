"""The socket of a connection, opened and cut off by us."""

import asyncio
from typing import Any

import aiormq
from aiormq.connection import DEFAULT_PORTS, SSLContextProvider, TransportFactory
from yarl import URL

from faststream_outbox.forwarders.socket_reset import reset


class Transport(TransportFactory):
    """Opens the socket before aiormq asks for it: aiormq writes an error to the log for each attempt that fails."""

    def __init__(self) -> None:
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, connection: aiormq.Connection) -> None:
        """Connect to where a connection will go.

        Raises:
            OSError: No server listens there.
        """
        url, tls = connection.url, None
        if url.scheme == "amqps":
            provider = SSLContextProvider(
                ssl_context=connection.ssl_context, ssl_certs=connection.ssl_certs, loop=connection.loop
            )
            tls = await provider.get_context()
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        host, port = url.host or "localhost", url.port or DEFAULT_PORTS[url.scheme]
        transport, _ = await loop.create_connection(lambda: protocol, host, port, ssl=tls)
        self._writer = _GatheringWriter(transport, protocol, self._reader, loop)

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Hand the open socket to aiormq."""
        if self._reader is None or self._writer is None:
            msg = "not opened"
            raise ConnectionError(msg)
        return self._reader, self._writer

    def cut(self) -> None:
        """Reset the connection, unless it is closed."""
        if self._writer is not None:
            reset(self._writer.transport)


class _GatheringWriter(asyncio.StreamWriter):
    """Sends what was written in one turn of the event loop at once; aiormq writes message by message."""

    def __init__(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.StreamReaderProtocol,
        reader: asyncio.StreamReader,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(transport, protocol, reader, loop)
        self._gathered: list[bytes] = []
        self._event_loop = loop

    def write(self, data: Any) -> None:
        if not self._gathered:
            self._event_loop.call_soon(self._flush)
        self._gathered.append(data)

    def write_eof(self) -> None:
        self._flush()
        super().write_eof()

    def close(self) -> None:
        self._flush()
        super().close()

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered and not self.transport.is_closing():
            super().write(b"".join(gathered))
