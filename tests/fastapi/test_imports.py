"""What is said where FastAPI is not installed."""

import importlib
import importlib.util
import sys

import pytest


def test_without_fastapi_the_error_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not name this project to an installer: its name on an index may be somebody else's."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastapi" else find_spec(name))
    monkeypatch.delitem(sys.modules, "faststream_outbox.fastapi")
    with pytest.raises(ImportError, match="the package fastapi is not installed") as refused:
        importlib.import_module("faststream_outbox.fastapi")
    assert refused.value.name == "fastapi"
    assert "pip install" not in str(refused.value)
