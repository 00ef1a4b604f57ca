"""What to do about the errors that a database has when something around it is not as it should be."""

import socket
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionLeftError

from faststream_outbox._values.explanation import Explanation, unexplained
from faststream_outbox._values.outcome import describe

_MIGRATE = "run the migration that creates what make_outbox_table and make_dlq_table declare"
_OLDER = "the table is not what the code declares: run the migration; validate_schema() names each difference"
_LOST = "the connection was lost"
_LOST_AT_REST = (
    "the idle connection was lost: the server was stopped, an administrator or a time-out has ended the connection "
    "(transaction_timeout, idle_in_transaction_session_timeout), or the network has; the server's log says which"
)
_ENDED = "a time-out of the engine's role has ended it: raise that, see docs/operating.md"
_POOLER = 'behind a pooler the engine needs the settings in docs/operating.md, "Behind PgBouncer"'

ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "08000": _LOST,
        "08001": _LOST,
        "08003": _LOST,
        "08004": "the server refuses connections",
        "08006": _LOST,
        "25006": "a standby takes no writes, nor does a server with default_transaction_read_only: point the engine "
        "to the primary",
        "25P03": _ENDED,
        "25P04": _ENDED,
        "26000": _POOLER,
        "28000": "correct the user in the engine's URL, or pg_hba.conf on the server",
        "28P01": "correct the password in the engine's URL",
        "3D000": "create the database, or correct its name in the engine's URL",
        "3F000": f"{_MIGRATE}, or correct the schema",
        "42501": "grant the engine's role what docs/operating.md lists for its work",
        "42703": _OLDER,
        "42883": _OLDER,
        "42P01": f"{_MIGRATE}, or correct the engine's database or its role's search_path",
        "42P05": _POOLER,
        "42P10": _OLDER,
        "53100": "make room on the server's disk",
        "53300": "raise the limit (max_connections, or that of the role or the database), or give processes smaller "
        "pools, see docs/operating.md",
        "55P03": "another session holds a lock on the table for longer than lock_timeout allows to wait",
        "57014": "statement_timeout of the engine's role is too short for it, or somebody has cancelled it",
        "57P01": "the server is being stopped, or an administrator has ended the connection",
        "57P02": "the server has crashed and restarts",
        "57P03": "the server is being started or stopped",
        "57P04": "somebody has dropped the database",
        "57P05": _ENDED,
    }
)
"""By SQLSTATE; see "PostgreSQL Error Codes" in its manual."""


_ADVICE_BY_KIND: Sequence[tuple[type[BaseException], str]] = (
    (socket.gaierror, "correct the host in the engine's URL, or find out why this machine does not know its name"),
    (ConnectionRefusedError, "no server listens there: start it, or correct host and port in the engine's URL"),
    (ConnectionError, _LOST),
    (NoConnectionLeftError, 'all connections of the engine\'s pool are in use: see "Connections" in docs/operating.md'),
    (TimeoutError, "the database, or the network to it, did not answer in time"),
    (OSError, "the database cannot be reached"),
)
"""Of errors that are not the server's; the first that fits."""


def explain(error: BaseException) -> Explanation:
    """Return in one or two lines what happened and what to do; an error that is not known keeps its own words."""
    root = _root(error)
    code: str | None = getattr(root, "sqlstate", None)
    advice = _without_code(root) if code is None else ADVICE.get(code)
    if advice is None:
        return unexplained(error if code is None else root)
    # PostgreSQL's own words are the first line; behind it come details and hints.
    kind, _, text = (describe(root) or "").partition(": ")
    words = text.partition("\n")[0] or kind
    return Explanation(f"{words}: {advice}" if code is None else f"{words} (SQLSTATE {code}): {advice}", is_whole=True)


def _root(error: BaseException) -> BaseException:
    """Find what the driver or the network raised."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def _without_code(root: BaseException) -> str | None:
    if type(root).__name__ == "InterfaceError" and "closed" in str(root):
        # asyncpg's word on a connection that broke while nobody used it: what the server said then is lost.
        return _LOST_AT_REST
    return next((advice for kind, advice in _ADVICE_BY_KIND if isinstance(root, kind)), None)
