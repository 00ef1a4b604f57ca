"""Publishers, relays, destinations and people do what they like, in any order."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy.ext.asyncio import AsyncSession

from faststream_outbox import Outgoing
from faststream_outbox._engine.breaker import BreakerState

from .destination import UNCUT, Cut, Server
from .model import Message, Model, State
from .world import COPIES, DELAY, LET_TIME_PASS, LOOK, QUEUES, DrivenLane, Relay, World

SLOTS = st.integers(0, 2)
FATES = st.sampled_from(
    [[], ["refuse"], ["refuse", "refuse"], ["refuse"] * 3, ["poison"], ["refuse", "poison"], ["accept", "refuse"]]
)
MESSAGES = st.lists(st.tuples(st.sampled_from(["a", "a", "b", None]), FATES), min_size=1, max_size=3)
IDENTITIES = st.sampled_from([None, None, None, "i", "j"])
POINTS = st.sampled_from([None, "before sending", "before settling", "before the commit"])
CUTS = st.just(UNCUT) | st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda pair: Cut(max(pair), min(pair)))
LANES = st.integers(0, 5)


class LifeMachine(RuleBasedStateMachine):
    """Set ``world`` in a subclass."""

    world: World
    create_server: Callable[[Model], Server] = Server

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[int, tuple[int, AsyncSession]] = {}
        """Open transactions, by their slot: the number that the model knows, and the session."""
        self.transactions = 0
        self.relays: list[Relay] = []
        self.is_broken = False

    @initialize(hold_key=st.booleans(), moves=st.booleans(), batch_size=st.sampled_from([1, 2, 100]))
    def begin(self, *, hold_key: bool, moves: bool, batch_size: int) -> None:
        self.model = Model(hold_key=hold_key, moves=moves)
        self.model.seen = self.world.seen
        self.broker = self.world.brokers[moves]
        self.servers = {name: type(self).create_server(self.model) for name in QUEUES}
        self.batch_size = batch_size
        self.relays = [self._create_relay(number) for number in self.world.relays]

    def _create_relay(self, number: int) -> Relay:
        return Relay(self.world, number, self.servers, self.model, self.batch_size)

    @property
    def lanes(self) -> list[DrivenLane]:
        return [lane for relay in self.relays for lane in relay.lanes]

    @property
    def under_way(self) -> list[DrivenLane]:
        return [lane for relay in self.relays for lane in relay.under_way]

    @property
    def _in_hand(self) -> list[DrivenLane]:
        return [lane for lane in self.under_way if lane.stops.at != "sitting out"]

    # --- publishers

    @rule(
        slot=SLOTS,
        queue=st.sampled_from(sorted(COPIES)),
        messages=MESSAGES,
        identity=IDENTITIES,
        is_timer=st.sampled_from([False, False, True]),
        ends=st.sampled_from([None, "commit", "commit"]),
    )
    def publish(
        self,
        *,
        slot: int,
        queue: str,
        messages: list[tuple[str | None, list[str]]],
        identity: str | None,
        is_timer: bool,
        ends: str | None,
    ) -> None:
        """Two or more messages go into one statement; the first of them has the idempotency key, if there is one."""
        queues = [queue, *COPIES[queue]]
        if identity is not None and self._is_in_use(queues, identity, slot):
            return
        number, session = self._session(slot)
        composed = [
            (self.model.compose(key, identity=None if position else identity, is_timer=is_timer), fates)
            for position, (key, fates) in enumerate(messages)
        ]
        ids = self.world.run(self._publish([message for message, _ in composed], queue, session))
        rows = [self.model.published(number, queues, message, fates) for message, fates in composed]
        written = [row for row in rows if row is not None]
        assert len(ids) == len(written), "G3: duplicates"
        for row, row_id in zip(written, ids, strict=True):
            row.id = row_id
        if ends:
            self.commit(slot)

    async def _publish(self, messages: Sequence[Message], queue: str, session: AsyncSession) -> list[int]:
        first = messages[0]
        common = {
            "queue": queue,
            "session": session,
            "correlation_id": first.headers["correlation_id"],
            "activate_in": timedelta(seconds=DELAY) if first.is_timer else None,
        }
        if len(messages) > 1:
            outgoing = [
                Outgoing(m.body, key=m.key, headers=m.own_headers, idempotency_key=m.asked_identity) for m in messages
            ]
            return await self.broker.publish_batch(*outgoing, **common)
        row_id = await self.broker.publish(
            first.body, key=first.key, headers=first.own_headers, idempotency_key=first.asked_identity, **common
        )
        return [] if row_id is None else [row_id]

    def _session(self, slot: int) -> tuple[int, AsyncSession]:
        if slot not in self.sessions:
            self.transactions += 1
            self.sessions[slot] = (self.transactions, AsyncSession(self.world.engine))
        return self.sessions[slot]

    def _is_in_use(self, queues: Sequence[str], identity: str, slot: int | None = None) -> bool:
        """Tell whether PostgreSQL would wait for another transaction, to see whether a live row has the identity."""
        mine = self.sessions[slot][0] if slot in self.sessions else None
        changing = [
            row for lane in self.under_way if lane.stops.at == "before the commit" for row, _ in lane.record.answers
        ]
        writing = [row for row in self.model.rows if row.state is State.OPEN and row.transaction != mine]
        return any(row.queue in queues and row.message.asked_identity == identity for row in changing + writing)

    @precondition(lambda self: self.sessions)
    @rule(slot=SLOTS)
    def commit(self, slot: int) -> None:
        if slot in self.sessions:
            number, session = self.sessions.pop(slot)
            self.world.run(_end(session, commits=True))
            self.model.committed(number)

    @precondition(lambda self: self.sessions)
    @rule(slot=SLOTS)
    def roll_back(self, slot: int) -> None:
        if slot in self.sessions:
            number, session = self.sessions.pop(slot)
            self.world.run(_end(session, commits=False))
            self.model.rolled_back(number)

    # --- relays

    @rule(which=LANES, times=st.integers(1, 3), until=POINTS, cut=CUTS, is_later=st.booleans())
    def hand_over(self, *, which: int, times: int, until: str | None, cut: Cut, is_later: bool) -> None:
        """A lane makes some hand-overs; the last one may be stopped at a point, or its connection break."""
        if is_later:
            self.time_passes()
        for is_last in [False] * (times - 1) + [True]:
            able = [lane for lane in self.lanes if lane.stops.at != "sitting out" and not self._would_wait(lane)]
            if able:
                self._go_on_or_begin(able[which % len(able)], until if is_last else None, cut if is_last else UNCUT)

    # What happens most of the time.
    once_more = hand_over

    def _go_on_or_begin(self, lane: DrivenLane, until: str | None, cut: Cut) -> None:
        if lane.is_under_way:
            self.world.run(lane.go_on(until=until))
            return
        could_connect = lane.destination.server.is_up
        self.world.run(lane.begin(until=until, cut=cut))
        assert could_connect or lane.stops.at in {None, "sitting out"}, "G5: rows are taken in an outage"

    def _would_wait(self, lane: DrivenLane) -> bool:
        """Tell whether a lane would wait for another one of its team, which tries the destination just now."""
        others = (other for other in self.under_way if other.team is lane.team and other is not lane)
        return lane.team.breaker.state is BreakerState.HALF_OPEN and any(others)

    @rule(which=LANES, until=POINTS, how=st.sampled_from(["crash", "cut off", "connection lost"]))
    def break_off(self, *, which: int, until: str | None, how: str) -> None:
        """A process dies and another takes its place; or a stop has no more time; or a lane loses the database."""
        if not self._in_hand:
            self.hand_over(which=which, times=1, until=until, cut=UNCUT, is_later=False)
        if not self._in_hand:
            return
        lane = self._in_hand[which % len(self._in_hand)]
        [relay] = [relay for relay in self.relays if lane in relay.lanes]
        self.world.seen[f"{how} {lane.stops.at}"] += 1
        if how == "crash":
            self.world.run(relay.die())
            self.relays[relay.number] = self._create_relay(relay.number)
        elif how == "cut off":
            self.world.run(lane.cancel())
        else:
            self.world.run(relay.lose_connection(lane))

    @rule(number=st.integers(0, 1), is_on=st.sampled_from([False, False, True]))
    def pause_or_resume(self, number: int, *, is_on: bool) -> None:
        relay = self.relays[number]
        self.world.run(relay.pause() if is_on else relay.resume())

    # --- destinations, and time

    @rule(name=st.sampled_from(sorted(QUEUES)), is_up=st.sampled_from([True, True, False]))
    def go_down_or_come_back(self, name: str, *, is_up: bool) -> None:
        self.servers[name].is_up = is_up

    def time_passes(self) -> None:
        """As much as timers and retries wait."""
        self.world.run(self.world.execute(LET_TIME_PASS, seconds=DELAY))

    # --- people

    @precondition(lambda self: self.model.dead(None))
    @rule(key=st.sampled_from(["a", "b", None]), discards=st.sampled_from([False, False, True]))
    def decide_on_dead_letters(self, key: str | None, *, discards: bool) -> None:
        dead = self.model.dead(key)
        if any(row.message.asked_identity and self._is_in_use([row.queue], row.message.asked_identity) for row in dead):
            return
        if discards:
            count = self.world.run(self.broker.dead_letters.discard(key=key))
            assert count == self.model.discarded(key)
        else:
            count = self.world.run(self.broker.dead_letters.replay(key=key))
            assert count == self.model.replayed(key)

    # --- what must be true

    @invariant()
    def promises_hold(self) -> None:
        # Until all is seen to be well.
        self.is_broken = True
        self.model.check_arrivals([lane.record for lane in self.under_way])
        self.model.check_tables(self.world.run(self.world.execute(LOOK)))
        self.is_broken = False

    def teardown(self) -> None:
        try:
            if self.relays and not self.is_broken:
                self._drain()
        finally:
            self.world.run(self._clean_up())

    def _drain(self) -> None:
        """Nothing is in the way any more, so nothing is left. (G2)"""
        for slot in list(self.sessions):
            self.commit(slot)
        for server in self.servers.values():
            server.is_up = True
        for row in self.model.rows:
            row.fates = []
        for relay in self.relays:
            self.world.run(relay.resume())
        for lane in self.under_way:
            self.world.run(lane.go_on())
        self._carry_all()
        while self.model.dead(None):
            # What came of replaying before is as it should be; or this would go on for ever.
            self.promises_hold()
            self.decide_on_dead_letters(None, discards=False)
            self._carry_all()
        self.promises_hold()
        assert all(row.state in {State.DELIVERED, State.DISCARDED, State.ROLLED_BACK} for row in self.model.rows)

    def _carry_all(self) -> None:
        """One relay carries until it finds nothing more."""
        self.time_passes()
        for lane in self.relays[0].lanes[1:]:
            # The first look without a find may only end a round, in which a place was left out.
            for _ in range(2):
                looks = 0
                while self.world.run(lane.carries()):
                    looks += 1
                    assert looks < 50 + 3 * len(self.model.rows), "G2: rows that never leave"

    async def _clean_up(self) -> None:
        for relay in self.relays:
            await relay.resume()
            await relay.abandon()
        for _, session in self.sessions.values():
            await _end(session, commits=False)
        await self.world.execute("DELETE FROM outbox")
        await self.world.execute("DELETE FROM outbox_dlq")


async def _end(session: AsyncSession, *, commits: bool) -> None:
    await (session.commit() if commits else session.rollback())
    await session.close()
