"""A streaming standby of an embedded PostgreSQL, to be promoted when the primary is gone."""

from pathlib import Path

from .postgres import EmbeddedPostgres
from .process import LOOPBACK

UNTIL_PARTED = """
    DO $$ BEGIN
        WHILE EXISTS (SELECT FROM pg_stat_wal_receiver) LOOP
            PERFORM pg_sleep(0.01);
            PERFORM pg_stat_clear_snapshot();
        END LOOP;
    END $$
"""


class EmbeddedStandby(EmbeddedPostgres):
    """A copy of a running primary that follows it until `promote`.

    Args:
        folder: an existing empty folder for everything the server writes.
        primary: the server to copy and to follow.
    """

    def __init__(self, folder: Path, primary: EmbeddedPostgres) -> None:
        self._primary = primary
        super().__init__(folder)

    def _fill_data(self) -> list[str]:
        source = ["-h", LOOPBACK, "-p", str(self._primary.port.number), "-U", "postgres"]
        copy = [str(self.bin / "pg_basebackup"), "-D", str(self.data), *source]
        return [*copy, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]

    def _is_ready(self) -> bool:
        pid_file = self.data / "postmaster.pid"
        lines = pid_file.read_text().splitlines() if pid_file.exists() else []
        return len(lines) >= 8 and int(lines[0]) == self.process.pid and lines[7].strip() in {"ready", "standby"}

    def part(self) -> None:
        """Follow the primary no more: what it commits from now on is not here."""
        self.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()", UNTIL_PARTED)

    def promote(self) -> None:
        """Make it a primary of its own; returns when it takes writes."""
        self.execute("SELECT pg_promote(wait => true)")
