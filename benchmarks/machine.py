"""What machine it ran on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks.opponent.settings import REQUIREMENTS
from benchmarks.servers import Servers

PACKAGES = ("faststream", "sqlalchemy", "asyncpg", "aiokafka", "aio-pika", "redis", "hiredis")


def describe(servers: Servers) -> dict[str, str]:
    """Tell processor, memory, system, versions and settings."""
    postgres = subprocess.run(
        [servers.postgres.bin / "postgres", "--version"], check=True, capture_output=True, text=True
    ).stdout
    return {
        "processor": f"{_line('/proc/cpuinfo', 'model name') or platform.processor()}, {os.cpu_count()} cores",
        "memory": _memory(),
        "load": f"{os.getloadavg()[0]:.2f} when it began",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "postgresql": postgres.split()[-1],
        "settings": ", ".join(f"{name}={value}" for name, value in servers.postgres_settings.items() if value),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "compared with": REQUIREMENTS[0],
    }


def _memory() -> str:
    kilobytes = _line("/proc/meminfo", "MemTotal").split()
    return f"{int(kilobytes[0]) / 1024**2:.1f} GiB" if kilobytes else "unknown"


def _line(file: str, name: str) -> str:
    path = Path(file)
    if not path.exists():
        return ""
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for found, _, value in lines if found.strip() == name), "")
