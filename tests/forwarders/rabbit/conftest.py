import pytest

from faststream_outbox.forwarders import outages

from .rows import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What tells how long routing keys are down."""
    clock = Clock()
    monkeypatch.setattr(outages, "time", clock)
    return clock
