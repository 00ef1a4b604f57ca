import os
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("OUTBOX_RELAY"):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a relay's file."""

    def write(text: str) -> Path:
        file = tmp_path / "relay.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return write
