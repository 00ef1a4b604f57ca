"""What a life goes on upon: open transactions, relays, servers; and how it ends well."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy.ext.asyncio import AsyncSession

from faststream_outbox import Outgoing
from faststream_outbox._engine.relaying.breaker import BreakerState

from .destination import Server
from .model import Message, Model, State
from .world import COPIES, DELAY, LET_TIME_PASS, LOOK, QUEUES, DrivenLane, Relay, World


class Stage(RuleBasedStateMachine):
    """Set ``world`` and ``hold_key`` in a subclass."""

    world: World
    hold_key: bool
    create_server: Callable[[Model], Server] = Server

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[int, tuple[int, AsyncSession]] = {}
        """Open transactions, by their slot: the number that the model knows, and the session."""
        self.transactions = 0
        self.relays: list[Relay] = []
        self.is_broken = False

    def set_up(self, *, moves: bool, batch_size: int) -> None:
        self.model = Model(hold_key=self.hold_key, moves=moves)
        self.model.seen = self.world.seen
        self.broker = self.world.brokers[moves]
        self.servers = {name: type(self).create_server(self.model) for name in QUEUES}
        self.batch_size = batch_size
        self.relays = [self.create_relay(number) for number in self.world.relays]

    def create_relay(self, number: int) -> Relay:
        return Relay(self.world, number, self.servers, self.model, self.batch_size)

    # --- transactions

    def write(self, slot: int, queue: str, keys: Sequence[str | None], identity: str | None, *, is_timer: bool) -> None:
        """Publish messages in one statement; the first of them has the idempotency key, if there is one."""
        queues = [queue, *COPIES[queue]]
        if identity is not None and self.is_in_use(queues, identity, slot):
            return
        number, session = self._session(slot)
        messages = [
            self.model.compose(key, queue, identity=None if position else identity, is_timer=is_timer)
            for position, key in enumerate(keys)
        ]
        ids = self.world.run(self._publish(messages, queue, session))
        rows = [self.model.published(number, queues, message) for message in messages]
        written = [row for row in rows if row is not None]
        assert len(ids) == len(written), "G3: duplicates"
        for row, row_id in zip(written, ids, strict=True):
            row.id = row_id

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

    def is_in_use(self, queues: Sequence[str], identity: str, slot: int | None = None) -> bool:
        """Tell whether PostgreSQL would wait for another transaction, to see whether a live row has the identity."""
        mine = self.sessions[slot][0] if slot in self.sessions else None
        changing = [
            row for lane in self.under_way if lane.stops.at == "before the commit" for row, _ in lane.record.answers
        ]
        writing = [row for row in self.model.rows if row.state is State.OPEN and row.transaction != mine]
        return any(row.queue in queues and row.message.asked_identity == identity for row in changing + writing)

    def end(self, slot: int, *, commits: bool) -> None:
        number, session = self.sessions.pop(slot)
        self.world.run(_end(session, commits=commits))
        (self.model.committed if commits else self.model.rolled_back)(number)

    # --- lanes

    @property
    def lanes(self) -> list[DrivenLane]:
        return [lane for relay in self.relays for lane in relay.lanes]

    @property
    def under_way(self) -> list[DrivenLane]:
        return [lane for relay in self.relays for lane in relay.under_way]

    @property
    def able(self) -> list[DrivenLane]:
        """Lanes that can go on, or begin, without waiting for another one."""
        return [lane for lane in self.lanes if lane.stops.at != "sitting out" and not self._would_wait(lane)]

    def _would_wait(self, lane: DrivenLane) -> bool:
        """Tell whether a lane would wait for another one of its team, which tries the destination just now."""
        others = (other for other in self.under_way if other.team is lane.team and other is not lane)
        return lane.team.breaker.state is BreakerState.HALF_OPEN and any(others)

    @property
    def idle_with_work(self) -> list[DrivenLane]:
        in_hand = {key for lane in self.under_way for key in lane.record.keys}
        return [
            lane
            for lane in self.able
            if not lane.is_under_way
            and lane.destination.server.is_up
            and self.model.has_work(lane.queues, except_of=in_hand)
        ]

    def provide_work(self) -> list[DrivenLane]:
        """See to it that there is something to carry, if there is a row at all; return the lanes that can do it."""
        for way in (self._commit_all, self.let_time_pass, self._clear_the_way):
            if self.idle_with_work:
                break
            way()
        return self.idle_with_work

    def _commit_all(self) -> None:
        for slot in list(self.sessions):
            self.end(slot, commits=True)

    def _clear_the_way(self) -> None:
        for server in self.servers.values():
            server.is_up = True
        for relay in self.relays:
            self.world.run(relay.resume())

    def go_on_or_begin(self, lane: DrivenLane, until: str | None = None, answers: Sequence[str] = ()) -> None:
        if lane.is_under_way:
            self.world.run(lane.go_on(until=until))
            return
        could_connect = lane.destination.server.is_up
        self.world.seen["tried in an outage"] += not could_connect and self.model.has_work(lane.queues)
        self.world.run(lane.begin(until=until, answers=answers))
        assert could_connect or lane.stops.at in {None, "sitting out"}, "G5: rows are taken in an outage"

    def let_time_pass(self) -> None:
        """As much as timers and retries wait."""
        self.world.run(self.world.execute(LET_TIME_PASS, seconds=DELAY))
        self.model.time_passed()

    # --- dead letters

    def replay(self, key: str | None) -> None:
        count = self.world.run(self.broker.dead_letters.replay(key=key))
        assert count == self.model.replayed(key), "G2: dead letters"

    def discard(self, key: str | None) -> None:
        count = self.world.run(self.broker.dead_letters.discard(key=key))
        assert count == self.model.discarded(key), "G2: dead letters"

    # --- checks, and the end

    def check(self) -> None:
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
        self.world.seen["left over"] += sum(row.state in {State.OPEN, State.LIVE} for row in self.model.rows)
        self._commit_all()
        self._clear_the_way()
        for lane in self.under_way:
            self.world.run(lane.go_on())
        self._carry_all()
        while self.model.dead(None):
            # What came of replaying before is as it should be; or this would go on for ever.
            self.check()
            self.replay(None)
            self._carry_all()
        self.check()
        assert all(row.state in {State.DELIVERED, State.DISCARDED, State.ROLLED_BACK} for row in self.model.rows)

    def _carry_all(self) -> None:
        """One relay carries until it finds nothing more."""
        self.let_time_pass()
        for lane in self.relays[0].lanes[1:]:
            # The first look without a find may only end a round, in which a shard was left out.
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
