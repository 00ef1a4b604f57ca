"""When a lane asks a destination that takes each row once where it stands."""

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

import pytest

from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.team import Team
from faststream_outbox._engine.runtime import Runtime
from faststream_outbox._store.protocol import HandOver
from faststream_outbox._values.outcome import ACCEPTED, Dropped, Poison, Reason, Refused, Verdict
from faststream_outbox._values.position import Move
from faststream_outbox._values.row import OutboxRow
from faststream_outbox._values.shard import Shard
from tests.engine.fakes import ScriptedDestination, ScriptedStore, Trouble, until


class Notes:
    """Positions that note what they are asked."""

    forwarder = "relay"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.doubts: dict[int, Exception] = {}
        self.kept: list[list[int]] = []
        self.moves_written: list[Mapping[Shard, Move]] = []

    def begin(self) -> None:
        self.calls.append("begin")

    async def look(self, taken: HandOver) -> Collection[int]:
        self.calls.append("look")
        return []

    def doubt(self, row: OutboxRow) -> Exception | None:
        return self.doubts.get(row.id)

    def moves(self, delivered: Sequence[OutboxRow]) -> Mapping[Shard, Move]:
        self.calls.append("moves")
        return {}

    def stay_behind(self, moves: Mapping[Shard, Move], kept: Sequence[OutboxRow]) -> Mapping[Shard, Move]:
        self.kept.append([row.id for row in kept])
        return {Shard("orders", 1): Move(1, 2, {})}

    def written(self, moves: Mapping[Shard, Move]) -> None:
        self.calls.append("written")
        self.moves_written.append(moves)


async def test_each_hand_over_begins_before_it_looks(
    make: Callable[..., Lane], runtime: Runtime, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    # One without rows to send does not look, and must not speak of the hand-over before it.
    notes = Notes()
    lane = make()
    lane._positions = notes
    store.publish(key="k")
    runtime.start()
    lane.start()
    await until(lambda: "written" in notes.calls)
    assert notes.calls == ["begin", "look", "moves", "written"]


@pytest.mark.parametrize("verdict", [Poison(Reason.TOO_LARGE, ValueError()), Refused(ValueError())])
async def test_a_row_that_may_be_delivered_does_not_become_a_dead_letter(
    make: Callable[..., Lane],
    runtime: Runtime,
    destination: ScriptedDestination,
    store: ScriptedStore,
    verdict: Verdict,
) -> None:
    notes = Notes()
    lane = make()
    lane._positions = notes
    row_id = store.publish(key="k")
    notes.doubts[row_id] = OSError("it may be there")
    destination.answer = lambda _row: verdict
    runtime.start()
    lane.start()
    await until(lambda: notes.calls.count("written") > 1)
    assert [(left.id, left.attempts_count) for left in store.rows] == [(row_id, 0)]


async def test_what_a_failed_hand_over_has_heard_is_not_believed_later(
    make: Callable[..., Lane], runtime: Runtime, destination: ScriptedDestination, store: ScriptedStore
) -> None:
    """Its transaction is lost, so another process may have sent other rows in their place."""
    notes = Notes()
    lane = make()
    lane._positions = notes
    row_id = store.publish(key="k")
    store.script.next_failures["commit"] = deque([Trouble("no database")])
    runtime.start()
    lane.start()
    await until(lambda: "written" in notes.calls)
    assert destination.sent == [[row_id], [row_id]]
    assert notes.calls.count("look") == 2


async def test_positions_stay_behind_rows_that_are_there_and_that_the_table_keeps(
    make: Callable[..., Lane], store: ScriptedStore, destination: ScriptedDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = Notes()
    _, bad, dropped, failed = (store.publish(key=str(number)) for number in range(4))
    store.script.refused |= dict.fromkeys([bad, dropped, failed], Trouble("a trigger says no"))
    verdicts: dict[int, Verdict] = {dropped: Dropped(), failed: Refused(ValueError())}
    destination.answer = lambda row: verdicts.get(row.id, ACCEPTED)
    moved: list[Mapping[Shard, Move]] = []
    monkeypatch.setattr(store.positions, "move", lambda _forwarder, moves: moved.append({**moves}))
    await make(positions=notes).run_once()
    assert [row.id for row in store.rows] == [bad, dropped, failed]
    # The others are not there.
    assert notes.kept == [[bad]]
    assert moved == notes.moves_written == [{Shard("orders", 1): Move(1, 2, {})}]


@pytest.mark.parametrize("is_exact", [True, False])
async def test_a_lane_begins_with_its_share_of_all_shards_where_they_are_in_doubt(
    make: Callable[..., Lane], team: Team, store: ScriptedStore, is_exact: bool
) -> None:
    """To look at many takes as long as to look at one. The other lanes have their share."""
    team.breaker.lanes = 2
    for number in range(100):
        store.publish(key=str(number))
    await make(positions=Notes() if is_exact else None).run_once()
    left = {record.shard_number for record in store._records.values()}
    assert len(left) == (8 if is_exact else 15)
