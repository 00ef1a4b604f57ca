import nats
import pytest
from nats.errors import NoServersError

from .nats import EmbeddedNats, NatsServer


async def test_a_stream_is_read_in_its_order_and_gone_afterwards(nats_server: NatsServer) -> None:
    with nats_server.stream() as name:
        async with nats_server.client() as client:
            for number in range(50):
                await client.jetstream().publish(f"{name}.{number % 3}", b"%d" % number)
        assert [message.data for message in await nats_server.read_stream(name)] == [b"%d" % n for n in range(50)]
    async with nats_server.client() as client:
        with pytest.raises(nats.js.errors.NotFoundError):
            await client.jetstream().stream_info(name)


async def test_a_stream_survives_stop_and_kill(tmp_path) -> None:
    with EmbeddedNats(tmp_path) as server, server.stream() as name:
        for end in (server.stop, server.process.kill):
            async with server.client() as client:
                await client.jetstream().publish(name, b"")
            end()
            with pytest.raises((NoServersError, OSError)):
                async with server.client():
                    pass
            server.start()
        assert len(await server.read_stream(name)) == 2


async def test_only_loopback_is_listened_to(nats_server: NatsServer) -> None:
    if not isinstance(nats_server, EmbeddedNats):
        pytest.skip("a NATS named by the environment is where it is")
    assert "127.0.0.1" in nats_server.process.command
