"""Error replies as redis-py gives them, put together again and read."""

import pytest
from redis.asyncio.connection import DefaultParser

from faststream_outbox._values.outcome import Poison, Refused, Unsent
from faststream_outbox.forwarders.redis.verdicts import ANSWERS, RedisAnswerError, classify

REPLIES = [
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOPERM this user has no permissions to run the 'xadd' command",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "MISCONF Redis is configured to save RDB snapshots",
    "NOREPLICAS Not enough good replicas to write.",
    "BUSY Redis is busy running a script.",
    "MOVED 3999 127.0.0.1:6381",
    "ASK 3999 127.0.0.1:6381",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN Hash slot not served",
    "ERR max number of clients reached",
    "ERR unknown command 'XADD', with args beginning with:",
    "ERR The stream has exhausted the last possible ID, unable to add more items",
    "ERR Elements are too large to be stored",
    "ERR Protocol error: invalid bulk length",
]


def answer(reply: str) -> RedisAnswerError:
    return RedisAnswerError.of("XADD 'orders'", DefaultParser.parse_error(reply))


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: " ".join(reply.split()[:2]))
def test_every_line_of_the_table(reply: str) -> None:
    error = answer(reply)
    [(_, kind)] = [(line, kind) for line, kind in ANSWERS.items() if reply.startswith(line)]
    assert classify(error) == kind(error)
    assert isinstance(classify(error), Poison if "large" in reply or "bulk" in reply else Unsent)


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: " ".join(reply.split()[:2]))
def test_what_is_wrong_with_one_address_refuses_rows_that_have_named_it(reply: str) -> None:
    error = answer(reply)
    is_its_own = reply.startswith(("NOPERM", "WRONGTYPE", "ERR The stream has exhausted"))
    assert classify(error, elsewhere=True) == (Refused(error) if is_its_own else classify(error))


def test_the_replies_cover_the_table() -> None:
    assert all(any(reply.startswith(line) for reply in REPLIES) for line in ANSWERS)


@pytest.mark.parametrize("reply", ["ERR something new", "NEWCODE whatever", "something new"])
def test_an_unforeseen_answer_refuses_the_row(reply: str) -> None:
    assert isinstance(classify(answer(reply)), Refused)


def test_a_transaction_that_was_discarded_says_why() -> None:
    error = answer(
        "EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'."
    )
    assert error.reply.startswith("OOM ")
    assert str(error) == f"XADD 'orders': Redis answered {error.reply}"


@pytest.mark.parametrize("error", [ConnectionError(), TimeoutError(), RuntimeError()])
def test_whatever_is_no_answer_is_an_outage(error: Exception) -> None:
    assert classify(error) == Unsent(error)
