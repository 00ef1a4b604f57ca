"""The other package's environment, made once and kept in the user's cache folder."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.opponent.settings import REQUIREMENTS


def opponent_python() -> Path:
    """Give the interpreter of an environment with the other package, and with the same drivers as ours.

    The versions of everything that both use are those of this environment, so that only the package differs.
    """
    requirements = [*REQUIREMENTS, *_drivers()]
    digest = hashlib.sha256(f"{sys.version}{requirements}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "faststream-outbox"
    folder = cache / f"opponent-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        cache.mkdir(parents=True, exist_ok=True)
        _create(folder, python, requirements)
        (folder / "complete").touch()
    return python


def _drivers() -> list[str]:
    from importlib.metadata import version

    names = ("faststream", "sqlalchemy", "asyncpg", "aiokafka", "aio-pika", "redis", "hiredis", "pydantic", "fastapi")
    return [f"{name}=={version(name)}" for name in names]


def _create(folder: Path, python: Path, requirements: list[str]) -> None:
    print(f"Creating an environment with {requirements[0]}", file=sys.stderr, flush=True)
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *requirements], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
