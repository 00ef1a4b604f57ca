"""docs/how-to/alembic.md: its commands create the tables of the README's program, and find nothing to do afterwards."""

import os
import re
import subprocess
import sys
from pathlib import Path

from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine

from faststream_outbox import OutboxBroker, make_outbox_table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "alembic.md"
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def test_the_commands(engine: AsyncEngine, database_url: str, tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    commands = [
        line.split() for line in re.findall(r"^\$ alembic (.+)$", page.replace('"the outbox"', "outbox"), re.MULTILINE)
    ]
    assert [command[0] for command in commands] == ["init", "revision", "upgrade", "check"]
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE outbox, outbox_dlq"))
    (tmp_path / "shop.py").write_text(PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0])

    alembic(tmp_path, database_url, *commands[0])
    env = tmp_path / "migrations" / "env.py"
    template = env.read_text()
    assert template.count("target_metadata = None") == 1
    env.write_text(template.replace("target_metadata = None", PYTHON.findall(page)[0]))
    for command in commands[1:]:
        alembic(tmp_path, database_url, *command)

    broker = OutboxBroker(engine, outbox_table=make_outbox_table(MetaData()), logger=None)
    await broker.validate_schema()


def alembic(folder: Path, database_url: str, *arguments: str) -> None:
    """Run a command in the reader's folder; it must end well."""
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=folder,
        env={**os.environ, "DATABASE_URL": database_url, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
