"""`amqps://`, through a proxy that ends the encryption before the session's RabbitMQ."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from faststream.rabbit import RabbitBroker
from faststream.security import BaseSecurity
from yarl import URL

from faststream_outbox import OutboxBroker, Outgoing
from integration.broker.observing import Table, eventually
from integration.destinations.rabbit import QueueBox
from integration.forwarders.carrying import Publishing
from integration.forwarders.parcels import destination
from integration.servers.missing import missing
from integration.servers.rabbitmq import RabbitServer


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and a self-signed certificate for "localhost"."""
    openssl = shutil.which("openssl")
    if openssl is None:
        missing("openssl is not installed")
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *name]
    subprocess.run([*command, "-keyout", file, "-out", file.with_suffix(".crt")], check=True, capture_output=True)
    file.write_text(file.read_text() + file.with_suffix(".crt").read_text())
    return file


@pytest.fixture
async def tls_port(rabbit_server: RabbitServer, certificate: Path, nothing_is_left_behind: None) -> AsyncIterator[int]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(rabbit_server.host, rabbit_server.port)
        await asyncio.gather(pump(reader, server_writer), pump(server_reader, writer), return_exceptions=True)

    proxy = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    yield proxy.sockets[0].getsockname()[1]
    proxy.close()


async def test_rows_go_through_an_encrypted_connection(
    *,
    broker: OutboxBroker,
    rabbit_server: RabbitServer,
    tls_port: int,
    certificate: Path,
    mailbox: QueueBox,
    publishing: Publishing,
    table: Table,
) -> None:
    trust = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))
    url = str(URL(rabbit_server.url).with_scheme("amqps").with_host("localhost").with_port(tls_port))
    rabbit = RabbitBroker(url, security=BaseSecurity(ssl_context=trust, use_ssl=True), logger=None)
    broker.forwarder("orders", to=rabbit.publisher(mailbox.name))
    await publishing.many(Outgoing(b"x" * 20_000) for _ in range(100))
    await broker.start()
    await eventually(table.is_empty, within=10)
    assert len(await mailbox.messages(100)) == 100
    await broker.stop()


async def test_a_certificate_that_nobody_trusts_is_an_outage(
    *, broker: OutboxBroker, rabbit_server: RabbitServer, tls_port: int, publishing: Publishing, table: Table
) -> None:
    url = str(URL(rabbit_server.url).with_scheme("amqps").with_host("localhost").with_port(tls_port))
    broker.forwarder("orders", to=RabbitBroker(url, logger=None).publisher("orders"))
    await publishing.one(b"")
    await broker.start()
    await asyncio.sleep(0.5)
    assert await table.count("attempts_count = 0 AND failed_at IS NULL") == 1


async def test_a_server_that_closes_right_after_the_encryption_has_begun(
    certificate: Path, nothing_is_left_behind: None
) -> None:
    """Python 3.11 then has no socket to reset, and that would hide why the connection ended."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    trust = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "localhost", 0, ssl=context) as server:
        url = f"amqps://guest:secret@localhost:{server.sockets[0].getsockname()[1]}/"
        rabbit = RabbitBroker(url, security=BaseSecurity(ssl_context=trust, use_ssl=True), logger=None)
        async with destination(rabbit.publisher("orders")) as to:
            with pytest.raises(ConnectionError, match=r"^cannot connect to .*localhost.*(closed|reset)") as caught:
                await to.connect()
    assert "secret" not in str(caught.value)
