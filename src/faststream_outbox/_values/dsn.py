"""Addresses of databases: as asyncpg reads them, and without what lets in."""

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

_SCHEME = re.compile(r"^postgres(?:ql)?(?:\+\w+)?://")


def as_asyncpg_reads(dsn: str) -> str | None:
    """Return an address of PostgreSQL as asyncpg reads it; None if it is no such address.

    Args:
        dsn: ``postgresql://user:password@host/database``; a driver's name, as SQLAlchemy has it, is left out.
    """
    if not _SCHEME.match(dsn):
        return None
    try:
        parts = urlsplit(_SCHEME.sub("postgresql://", dsn))
    except ValueError:
        # Its message may quote the password.
        return None
    # SQLAlchemy's dialect of asyncpg calls it ssl, where libpq and asyncpg itself call it sslmode.
    query = [("sslmode" if name == "ssl" else name, value) for name, value in parse_qsl(parts.query)]
    return urlunsplit(parts._replace(query=urlencode(query)))


def passwords_of(url: str) -> list[str]:
    """Return the passwords in a URL as they stand there, as they are meant, and as others may write them.

    One may stand before the host, and one in ``?password=``, which PostgreSQL's clients read.
    """
    try:
        parts = urlsplit(url)
        written = [parts.password, *(value for name, value in parse_qsl(parts.query) if name == "password")]
    except ValueError:
        return []
    return [form for password in written if password for form in (password, *forms_of(unquote(password)))]


def forms_of(password: str) -> list[str]:
    """Return a password as it is, and as it stands in a URL; nothing for an empty one."""
    return [password, quote(password, safe="")] if password else []


def without_secrets(text: str, url: str) -> str:
    """Return a text in which the address's password, if it has one, is replaced."""
    for shown in passwords_of(url):
        text = text.replace(shown, "***")
    return text
