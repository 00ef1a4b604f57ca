"""What the other package is run with."""

from typing import Any

REQUIREMENTS = ["faststream-outbox[asyncpg,fastapi]==0.19.0", "faststream[kafka,rabbit,redis]"]

DEFAULTS: dict[str, Any] = {}

BEST: dict[str, Any] = {
    "max_workers": 32,
    "fetch_batch_size": 500,
    "terminal_flush_batch_size": 100,
    "min_fetch_interval": 0.01,
    "max_fetch_interval": 0.05,
}
"""Chosen after its page on performance, which names these options; `--tune` looks for better values."""
