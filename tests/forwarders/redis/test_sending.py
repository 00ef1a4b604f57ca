"""How a hand-over becomes transactions, and their answers verdicts."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from faststream.redis import RedisBroker
from faststream.redis.parser import BinaryMessageFormatV1
from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._values.outcome import Accepted, Poison, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox._values.row import OutboxRow
from faststream_outbox.forwarders.redis.sending import TRANSACTION_BYTES, TransactionSender
from faststream_outbox.forwarders.redis.settings import RedisSettings
from faststream_outbox.forwarders.redis.verdicts import RedisAnswerError
from tests.rows import make_row

SETTINGS = RedisSettings.of(RedisBroker(logger=None).publisher(list="orders"))
TOO_LARGE = RedisAnswerError("x", "ERR Protocol error: invalid bulk length")
UNFORESEEN = RedisAnswerError("x", "ERR never heard of")
OUT_OF_MEMORY = RedisAnswerError("x", "OOM command not allowed")


class Server:
    """Takes transactions, or refuses them as it is told."""

    def __init__(self, refuse: Callable[[list[int]], Exception | None] = lambda ids: None) -> None:
        self.max_message_bytes = 10 * TRANSACTION_BYTES
        self.transactions: list[list[int]] = []
        self.bytes: list[int] = []
        self._refuse = refuse

    async def transact(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        assert all(tuple(command[:2]) == ("RPUSH", "orders") for command in commands)
        ids = [int(BinaryMessageFormatV1.parse(command[2])[1]["outbox-id"]) for command in commands]
        if error := self._refuse(ids):
            raise error
        self.transactions.append(ids)
        self.bytes.append(sum(len(command[2]) for command in commands))
        return [b"1"] * len(commands)

    @property
    def taken(self) -> list[int]:
        return [each for ids in self.transactions for each in ids]


def rows(*keys: str | None, payload: bytes = b"") -> list[OutboxRow]:
    return [
        make_row(number, key=key, idempotency_key=str(number), payload=payload, deliveries=0)
        for number, key in enumerate(keys)
    ]


async def send(server: Server, sent: list[OutboxRow]) -> list[Verdict]:
    verdicts: dict[int, Verdict] = {}
    await TransactionSender(server, SETTINGS, verdicts).send_parcels([Parcel(row) for row in sent])
    return [verdicts[row.id] for row in sent]


async def test_a_hand_over_is_one_transaction() -> None:
    server = Server()
    assert set(await send(server, rows(*"abcabc"))) == {Accepted()}
    assert server.transactions == [[0, 1, 2, 3, 4, 5]]


async def test_a_large_one_is_several() -> None:
    server = Server()
    sent = rows(*"ab" * 10, payload=b"x" * (TRANSACTION_BYTES // 4))
    await send(server, sent)
    assert server.taken == [row.id for row in sent]
    assert len(server.transactions) > 1
    assert max(server.bytes) <= TRANSACTION_BYTES


async def test_a_row_over_the_limit_is_poison_without_being_sent() -> None:
    server = Server()
    server.max_message_bytes = 1000
    sent = [*rows("a"), *rows("-", "a", payload=b"x" * 1000)[1:]]
    verdicts = await send(server, sent)
    assert verdicts[0] == Accepted()
    assert isinstance(verdicts[1], Poison)
    assert "proto-max-bulk-len" in str(verdicts[1].exception)


async def test_the_row_that_redis_will_never_take_is_found_and_the_others_go_on() -> None:
    server = Server(lambda ids: TOO_LARGE if 3 in ids else None)
    verdicts = await send(server, rows(*"aaaaaaa"))
    assert isinstance(verdicts[3], Poison)
    assert server.taken == [0, 1, 2, 4, 5, 6]


async def test_what_stands_behind_an_outage_is_not_tried() -> None:
    calls: list[list[int]] = []

    def refuse(ids: list[int]) -> Exception | None:
        calls.append(ids)
        return OUT_OF_MEMORY if len(calls) == 2 else None

    sent = rows(*"abcd", payload=b"x" * TRANSACTION_BYTES)
    assert await send(Server(refuse), sent) == [Accepted(), Unsent(OUT_OF_MEMORY), Unsent(), Unsent()]
    assert calls == [[0], [1]]


async def test_an_error_that_no_server_gave_is_an_outage() -> None:
    broken = ConnectionError("gone")
    assert set(await send(Server(lambda ids: broken), rows(*"ab"))) == {Unsent(broken)}


WRONG_TYPE = RedisAnswerError("x", "WRONGTYPE Operation against a key holding the wrong kind of value")
NO_PERMISSION = RedisAnswerError("x", "NOPERM this user has no permissions to access one of the keys")


class Keys:
    """Answers by address."""

    max_message_bytes = 1000

    def __init__(self, answers: dict[str, Exception], *, at_exec: bool) -> None:
        self.taken: list[tuple[Any, int]] = []
        self._answers = answers
        self._at_exec = at_exec

    async def transact(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        answers: list[Any] = [self._answers.get(command[1], b"1") for command in commands]
        for answer in answers:
            if isinstance(answer, Exception) and not self._at_exec:
                raise answer
        for (verb, address, message), answer in zip(commands, answers, strict=True):
            assert verb == "RPUSH"
            if answer == b"1":
                self.taken.append((address, int(BinaryMessageFormatV1.parse(message)[1]["outbox-id"])))
        return answers


@pytest.mark.parametrize(("error", "at_exec"), [(WRONG_TYPE, True), (NO_PERMISSION, False)])
async def test_what_is_wrong_with_an_address_of_their_own_refuses_only_its_rows(
    error: RedisAnswerError, at_exec: bool
) -> None:
    keys = Keys({"bad": error}, at_exec=at_exec)
    addresses = ("bad", None, "good", "bad", "bad", None)
    parcels = [
        Parcel(row, address) for row, address in zip(rows("a", "b", "c", "a", None, "b"), addresses, strict=True)
    ]
    verdicts: dict[int, Verdict] = {}
    await TransactionSender(keys, SETTINGS, verdicts).send_parcels(parcels)
    refused = Refused(error)
    assert verdicts == {0: refused, 1: Accepted(), 2: Accepted(), 3: Unsent(), 4: refused, 5: Accepted()}
    assert keys.taken == [("orders", 1), ("good", 2), ("orders", 5)]


@pytest.mark.parametrize(("error", "at_exec"), [(WRONG_TYPE, True), (NO_PERMISSION, False)])
@pytest.mark.parametrize("address", [None, "orders"])
async def test_what_is_wrong_with_the_publishers_own_address_is_an_outage(
    error: RedisAnswerError, at_exec: bool, address: str | None
) -> None:
    verdicts: dict[int, Verdict] = {}
    keys = Keys({"orders": error}, at_exec=at_exec)
    await TransactionSender(keys, SETTINGS, verdicts).send_parcels([Parcel(row, address) for row in rows("a", "b")])
    assert verdicts[0] == Unsent(error)
    assert isinstance(verdicts[1], Unsent)


@given(
    keys=st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=40),
    refused=st.sets(st.integers(0, 39)),
    poisonous=st.sets(st.integers(0, 39)),
)
async def test_no_row_is_taken_after_an_earlier_one_of_its_key_was_refused(
    keys: list[str | None], refused: set[int], poisonous: set[int]
) -> None:
    def refuse(ids: list[int]) -> Exception | None:
        if refused & set(ids):
            return UNFORESEEN
        return TOO_LARGE if poisonous & set(ids) else None

    server = Server(refuse)
    sent = rows(*keys)
    verdicts = await send(server, sent)
    held: set[str] = set()
    for row, verdict in zip(sent, verdicts, strict=True):
        if row.key in held:
            assert verdict == Unsent()
        elif row.id in refused:
            assert isinstance(verdict, Refused)
            held |= {row.key} - {None}
        elif row.id in poisonous:
            assert isinstance(verdict, Poison)
        else:
            assert verdict == Accepted()
    assert server.taken == [row.id for row, verdict in zip(sent, verdicts, strict=True) if verdict == Accepted()]


class PlainServer(Server):
    """Takes entries of a stream with fields of their own."""

    async def transact(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        for command in commands:
            assert tuple(command[:3]) == ("XADD", "orders", "*")
            assert command[-2] == "body"
        self.transactions.append([int(command[command.index(b"outbox-id") + 1]) for command in commands])
        self.bytes.append(sum(len(field) for command in commands for field in command[3:]))
        return [b"1-0"] * len(commands)


async def test_headers_count_as_bytes_and_a_header_named_body_is_poison() -> None:
    server = PlainServer()
    settings = RedisSettings.of(RedisBroker(logger=None).publisher(stream="orders"), is_plain=True)
    sent = [row._replace(headers={"x": "y" * (TRANSACTION_BYTES // 4)}) for row in rows(*"ab" * 5)]
    sent[2] = sent[2]._replace(headers={"body": "hides it"})
    verdicts: dict[int, Verdict] = {}
    await TransactionSender(server, settings, verdicts).send_parcels([Parcel(row) for row in sent])
    poison = verdicts.pop(2)
    assert isinstance(poison, Poison)
    assert "header 'body'" in str(poison.exception)
    assert set(verdicts.values()) == {Accepted()}
    assert server.taken == [row.id for row in sent if row.id != 2]
    assert max(server.bytes) <= TRANSACTION_BYTES + 100, "and the name of the body's field"
