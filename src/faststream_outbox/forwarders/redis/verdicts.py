"""What an answer of Redis means for a row: the table of failure classes."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from redis.exceptions import RedisError

from faststream_outbox._values.outcome import Poison, Reason, Refused, Unsent, Verdict

_Kind: TypeAlias = Callable[[BaseException], Verdict]

_too_large: _Kind = partial(Poison, Reason.TOO_LARGE)
_outage: _Kind = Unsent

ANSWERS: dict[str, _Kind] = {
    # Outage: the server, or this address, takes no message at all for now.
    "ASK": _outage,
    "BUSY": _outage,  # A script runs for too long.
    "CLUSTERDOWN": _outage,
    "LOADING": _outage,  # The server reads its data from the disk.
    "MASTERDOWN": _outage,
    "MISCONF": _outage,  # The disk does not take snapshots, so the server takes no writes.
    "MOVED": _outage,
    "NOAUTH": _outage,
    "NOPERM": _outage,
    "NOREPLICAS": _outage,  # Fewer than min-replicas-to-write.
    "OOM": _outage,  # maxmemory is reached, and nothing may be evicted.
    "READONLY": _outage,  # A replica.
    "TRYAGAIN": _outage,
    "WRONGPASS": _outage,
    "WRONGTYPE": _outage,  # The address holds something else; no row can go there until somebody removes it.
    "ERR max number of clients reached": _outage,
    "ERR unknown command": _outage,  # Renamed, or the server is too old.
    "ERR The stream has exhausted the last possible ID": _outage,
    # Poison: the same message will never be taken.
    "ERR Elements are too large to be stored": _too_large,  # 1 GiB in a stream.
    "ERR Protocol error: invalid bulk length": _too_large,  # Beyond proto-max-bulk-len, 512 MiB by default.
}
"""Beginnings of error replies: `grep "^-"` in Redis' source, 7.0.

Each other answer refuses the row. That counts as an attempt and is tried again, so that an unforeseen one neither
stalls the queue for ever nor kills a row at once.
"""

OF_AN_ADDRESS = ("NOPERM", "WRONGTYPE", "ERR The stream has exhausted the last possible ID")
"""Outages of one address. Where a row has named it, only such rows are met, and they are refused."""

OF_A_ROLE = ("CLUSTERDOWN", "MASTERDOWN", "MOVED", "NOREPLICAS", "READONLY")
"""Answers of a server that may have lost its role to another, which only a new connection can find."""

CODES = {
    "AskError": "ASK",
    "AuthenticationError": "NOAUTH",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "ExecAbortError": "EXECABORT",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}
"""redis-py takes the first word off the replies that it has a class for."""

ABORTED_BECAUSE = "because of: "
"""``EXECABORT Transaction discarded because of: OOM command not allowed ...``"""


class RedisAnswerError(Exception):
    """Redis has answered, and the answer was no: it has not taken the message.

    Attributes:
        reply: The error reply, code first.
    """

    def __init__(self, about: str, reply: str) -> None:
        super().__init__(f"{about}: Redis answered {reply}")
        self.reply = reply

    @classmethod
    def of(cls, about: str, error: RedisError) -> "RedisAnswerError":
        """Put the reply that redis-py made an exception of together again."""
        code = getattr(error, "status_code", None) or CODES.get(type(error).__name__)
        reply = str(error)
        if code is not None and not reply.startswith(code):
            reply = f"{code} {reply}"
        if reply.startswith("EXECABORT") and ABORTED_BECAUSE in reply:
            reply = reply.partition(ABORTED_BECAUSE)[2]
        # Without a class of redis-py's own the reply is complete, but for the word that says nothing.
        return cls(about, reply if reply.split(" ", 1)[0].isupper() else f"ERR {reply}")


def classify(error: BaseException, *, elsewhere: bool = False) -> Verdict:
    """Read what sending has raised: the row is poison, or refused, or nothing can be sent now.

    Args:
        error: What was raised.
        elsewhere: Whether the row has named the address, which then is not the forwarder's own.
    """
    if isinstance(error, RedisAnswerError):
        if elsewhere and error.reply.startswith(OF_AN_ADDRESS):
            return Refused(error)
        for beginning, kind in ANSWERS.items():
            if error.reply.startswith(beginning):
                return kind(error)
        return Refused(error)
    # The connection, or a time-out: whatever it is, it is not the row's.
    return Unsent(error)
