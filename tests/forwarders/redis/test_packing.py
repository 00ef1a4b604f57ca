"""Commands go over the line as redis-py writes them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import Connection

from faststream_outbox.forwarders.redis.packing import pack

CONNECTION = Connection()

heads = st.sampled_from([
    ("XADD", "orders", "MAXLEN", "~", 10, "*", "__data__"),
    ("XADD", "bestellungen für morgen", "*", "__data__"),
    ("RPUSH", "$0\r\n\r\n"),
    ("RPUSH", "long" * 2000),
    ("PUBLISH", ""),
])  # fmt: skip
messages = st.binary(max_size=20) | st.sampled_from([b"$0\r\n\r\n", b"x" * 10_000])
commands = st.tuples(heads, messages).map(lambda command: (*command[0], command[1]))


@given(st.lists(commands | st.sampled_from([("MULTI",), ("EXEC",), ("CONFIG", "GET", "proto-max-bulk-len")])))
def test_as_redis_py_writes_them(sent: list[tuple[Any, ...]]) -> None:
    assert b"".join(pack(sent, CONNECTION)) == b"".join(CONNECTION.pack_commands(sent))


def test_with_the_encoding_of_the_connection() -> None:
    latin = Connection(encoding="latin-1")
    sent = [("RPUSH", "für", b"message")]
    assert b"".join(pack(sent, latin)) == b"".join(latin.pack_commands(sent))
