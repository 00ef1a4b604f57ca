"""Whatever a lane waits for at its destination, the log hears of it."""

import asyncio
from typing import Any

import pytest

from faststream_outbox._engine.health import Health
from faststream_outbox._engine.relaying import patience as patience_module
from faststream_outbox._engine.relaying.patience import Patience
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.patient import PatientDestination
from tests.engine.fakes import Lines, ScriptedDestination, until
from tests.rows import make_row


class Destination(ScriptedDestination):
    """It can be told to end what is in flight."""

    def finish(self, grace: float) -> None:
        self.grace = grace


@pytest.mark.parametrize(
    ("call", "what"),
    [("connect", "no connection"), ("send", "no answer on 2 rows"), ("send one", "no answer on 1 row")],
)
async def test_what_takes_long_is_told_of_and_ends_as_it_ends(
    call: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience_module, "PATIENCE_SECONDS", 0.01)
    log = Lines()
    destination = Destination(log)
    patient = PatientDestination(destination, Patience(Health("kafka", log), log, 35.0))
    parcels = [Parcel(make_row(number)) for number in ((1,) if call == "send one" else (1, 2))]
    destination.script.hanging |= {"connect", "send"}
    work: Any = patient.connect() if call == "connect" else patient.send(parcels)
    waiting = asyncio.create_task(work)
    await until(lambda: log.warnings)
    assert log.warnings == [f"kafka: {what} for 0.01 s now; it is given up after 35 s"]
    await destination.script.let_go("connect", "send")
    verdicts = await waiting
    assert verdicts is None if call == "connect" else len(verdicts) == len(parcels)


async def test_everything_else_is_the_destinations_own() -> None:
    log = Lines()
    destination = Destination(log)
    patient = PatientDestination(destination, Patience(Health("kafka", log), log, 35.0))
    patient.finish(1.5)
    await patient.close()
    assert destination.grace == 1.5
    assert destination.script.calls["close"] == 1
