"""Where the database is: from an option, the environment or a file. What lets in is never shown."""

from pathlib import Path

from faststream_outbox._values.dsn import as_asyncpg_reads
from faststream_outbox.cli.exits import CommandError, Exit

VARIABLE = "OUTBOX_DSN"
FILE_VARIABLE = "OUTBOX_DSN_FILE"


def read_dsn(dsn: str | None, dsn_file: Path | None) -> str:
    """Return the address of the database as asyncpg reads it.

    Args:
        dsn: ``postgresql://user:password@host/database``; a driver's name, as SQLAlchemy has it, is left out.
        dsn_file: A file with such an address, as secrets are mounted; it comes first.

    Raises:
        CommandError: There is none, or it is no address of PostgreSQL; the message does not show it.
    """
    if dsn_file is not None:
        try:
            dsn = dsn_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise CommandError(f"--dsn-file: {dsn_file} cannot be read: {reason}", Exit.USAGE) from error
    if not dsn:
        msg = f"where is the database? Give --dsn postgresql://user@host/database, {VARIABLE}, or --dsn-file"
        raise CommandError(msg, Exit.USAGE)
    read = as_asyncpg_reads(dsn)
    if read is None:
        raise CommandError("--dsn: must begin with postgresql:// or postgresql+asyncpg://, and be a URL", Exit.USAGE)
    return read
