"""A Redis, a table and processes, for the model of exactly once into Redis.

One shard. A process is a generator that stops at each point at which it may die, be paused, or meet another one. The
decisions are the product's (``marker``); the step is what ``take_once.lua`` does, which `integration` compares.
"""

import copy
import random
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from faststream_outbox._values.position import Mark
from faststream_outbox._values.run import Run
from faststream_outbox.forwarders.redis.exact.marker import KEPT, Element, Finding, ShardMarker, judge

KEYS = 3
PROCESSES = 3
TRIES = 60


def mark_of(row_id: int) -> Mark:
    return Mark(row_id, f"key-{row_id}")


def key_of(row_id: int) -> int:
    return row_id % KEYS


@dataclass
class Rules:
    """What the product does; a mutant does one of it carelessly."""

    compares: bool = True
    one_step: bool = True
    settles_found_rows: bool = True
    waits_for_found_rows: bool = True
    stays_behind_kept_rows: bool = True
    keeps_what_is_unknown: bool = True
    names_only_what_was_taken: bool = True
    tells_what_waits: bool = True
    checks: bool = True
    judges: Callable[[int, Sequence[Element]], Finding] = judge


@dataclass
class Data:
    """What a Redis has."""

    entries: list[int] = field(default_factory=list)
    marker: list[Element] = field(default_factory=list)


@dataclass(eq=False)
class Step:
    """Messages on their way."""

    sender: "Process"
    connection: int
    expected: int | None
    element: Element
    keep: int
    rows: Sequence[int]
    must_compare: bool = True


@dataclass(eq=False)
class Process:
    marker: ShardMarker | None = None
    running: "Steps | None" = None
    connection: int = 0
    answer: object = None


Steps: TypeAlias = Generator[None, None, None]
CUT = "the connection was lost"


@dataclass
class Table:
    rows: list[int] = field(default_factory=list)
    token: int = 5


class World:
    """The table, the server, what is on its way, and who is at work."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.table, self.data = Table(), Data()
        self.before: deque[Table] = deque(maxlen=KEPT)
        self.history: deque[Data] = deque(maxlen=4)
        """What the replica may have."""
        self.network: list[Step] = []
        self.holder: Process | None = None
        self.processes = [Process() for _ in range(PROCESSES)]
        self.runs = self.published = self.losses = self.repeats = 0
        self.refused_key: int | None = None
        self.kept_key: int | None = None
        """Of rows that the table refuses to delete."""

    @property
    def run(self) -> Run:
        return Run(datetime.fromtimestamp(self.runs, UTC), None)

    # The server

    def deliver(self, step: Step) -> None:
        self.network.remove(step)
        current = self.data.marker[-1].token if self.data.marker else None
        answer: object = [*self.data.marker]
        if current == step.expected or not step.must_compare:
            self.history.append(copy.deepcopy(self.data))
            refused = (at for at, row in enumerate(step.rows) if key_of(row) == self.refused_key)
            count = next(refused, len(step.rows))
            self.data.entries += step.rows[:count]
            waiting = len(step.element.marks) - len(step.rows)
            named = count if self.rules.names_only_what_was_taken else len(step.rows)
            if count and self.rules.one_step:
                element = step.element._replace(marks=step.element.marks[: waiting + named])
                self.data.marker = [*self.data.marker, element][-step.keep :]
            answer = count
        if step.sender.connection == step.connection:
            step.sender.answer = answer

    # A hand-over

    def hand_over(self, process: Process, limit: int, waiting_key: int) -> Steps:
        self.holder, connection = process, process.connection
        rows = [row for row in self.table.rows if key_of(row) != waiting_key][:limit]
        token, run = self.table.token, self.run
        marker, process.marker = process.marker, None
        if marker is None or marker.known != token or marker.run != run:
            marker = ShardMarker("m", token, run)
            yield
            current = self.data.marker[-1].token if self.data.marker else None
            if current != marker.current or marker.is_open:
                finding = self.rules.judges(marker.known, [*self.data.marker])
                if not finding.is_whole:
                    # It is asked behind the look whether the shard is still this process's.
                    yield
                    if self.rules.checks and self.table.token != token:
                        return
                self._learn(marker, finding, rows)
        accepted: list[int] = []
        held: set[int] = set()
        rest = rows
        while rest:
            found = [row for row in rest if mark_of(row) in marker.found and self.rules.settles_found_rows]
            accepted += found
            rest = [row for row in rest if row not in found and key_of(row) not in held]
            step, behind = rest[:2], rest[2:]
            if not step:
                break
            yield
            if process.connection != connection:
                break
            answer = yield from self._send(process, marker, step)
            if isinstance(answer, int):
                accepted += step[:answer]
                if answer < len(step):
                    held.add(key_of(step[answer]))
                rest = [*step[answer:], *behind]
            else:
                break
        yield
        self._commit(process, marker, token, accepted)

    def _learn(self, marker: ShardMarker, finding: Finding, rows: Sequence[int]) -> None:
        self.losses += finding.is_older or finding.is_gone
        self.repeats += finding.is_cut or finding.is_gone
        in_hand = [mark_of(row) for row in rows]
        alive = [mark for mark in finding.marks if mark.row_id in self.table.rows and mark not in in_hand]
        marker.learned(finding, in_hand, alive)
        if not self.rules.waits_for_found_rows:
            marker.alive.clear()
        if not self.rules.tells_what_waits:
            marker.alive, marker.waiting = marker.alive.intersection(in_hand), ()

    def _send(self, process: Process, marker: ShardMarker, rows: Sequence[int]) -> Generator[None, None, object]:
        token = marker.next_token()
        keep = KEPT + marker.behind + 1 if self.rules.keeps_what_is_unknown else 1
        element = Element(token, marker.before, [*marker.waiting, *map(mark_of, rows)])
        # A contradiction, too, leaves it so.
        marker.is_in_doubt, process.answer = True, None
        self.network.append(Step(process, process.connection, marker.current, element, keep, rows, self.rules.compares))
        while process.answer is None:
            yield
        if process.answer is CUT:
            return CUT
        marker.is_in_doubt = isinstance(process.answer, list)
        if isinstance(process.answer, int) and process.answer:
            if not self.rules.one_step:
                answer = process.answer
                yield
                self.data.marker = [*self.data.marker, element][-keep:]
                process.answer = answer
            marker.taken(token)
        return process.answer

    def _commit(self, process: Process, marker: ShardMarker, token: int, accepted: Sequence[int]) -> None:
        if self.holder is not process or self.table.token != token:
            return
        self.before.append(copy.deepcopy(self.table))
        self.holder = None
        kept = [row for row in accepted if key_of(row) == self.kept_key]
        self.table.rows = [row for row in self.table.rows if row not in accepted or row in kept]
        new = marker.moves_to([mark_of(row) for row in accepted])
        if kept and self.rules.stays_behind_kept_rows:
            behind = marker.stays_behind(marker.known if new is None else new)
            new = new if behind is None else behind
        if new is not None and accepted:
            self.table.token = new
            marker.moved(new)
        if marker.is_clear:
            process.marker = marker


@dataclass
class Chance:
    """What an action may choose."""

    number: int
    limit: int
    key: int
    steps: int
    index: int


class Play:
    """Processes that hand rows over, and all that happens to them."""

    def __init__(self, rules: Rules) -> None:
        self.world = World(rules)

    def publish(self, chance: Chance) -> None:
        for _ in range(1 + chance.index % 3):
            self.world.published += 1
            self.world.table.rows.append(self.world.published)

    def begin(self, chance: Chance) -> None:
        process = self.world.processes[chance.number]
        if process.running is None and self.world.holder is None and self.world.table.rows:
            process.running = self.world.hand_over(process, chance.limit, chance.key)

    def go_on(self, chance: Chance) -> None:
        for _ in range(chance.steps):
            self._step(self.world.processes[chance.number])

    def hand_all_over(self, chance: Chance) -> None:
        self.begin(chance)
        process = self.world.processes[chance.number]
        for _ in range(TRIES):
            for step in [*self.world.network]:
                if step.sender is process and step.connection == process.connection:
                    self.world.deliver(step)
            self._step(process)

    def _step(self, process: Process) -> None:
        if process.running is not None:
            try:
                next(process.running)
            except StopIteration:
                process.running = None
                if self.world.holder is process:
                    self.world.holder = None

    def send_and_lose(self, chance: Chance) -> None:
        """Send, and lose the transaction: the process is stopped, or dead."""
        self.begin(chance)
        self.go_on(chance)
        self.lose_the_transaction(chance)

    def die(self, chance: Chance) -> None:
        self.lose_the_transaction(chance)
        self.world.processes[chance.number].connection += 1
        self.world.processes[chance.number] = Process()

    def lose_the_transaction(self, chance: Chance) -> None:
        if self.world.holder is self.world.processes[chance.number]:
            self.world.holder = None

    def lose_the_connection(self, chance: Chance) -> None:
        process = self.world.processes[chance.number]
        process.connection += 1
        process.answer = CUT

    def deliver(self, chance: Chance) -> None:
        if self.world.network:
            self.world.deliver(self.world.network[chance.index % len(self.world.network)])

    def refuse_a_key(self, chance: Chance) -> None:
        self.world.refused_key = chance.key if chance.key < KEYS else None

    def keep_a_key(self, chance: Chance) -> None:
        """Let the table refuse to delete the rows of a key, or of none."""
        self.world.kept_key = chance.key

    def fail_over_the_database(self, chance: Chance) -> None:
        world = self.world
        world.runs += 1
        world.holder = None
        rows = world.table.rows
        for _ in range(min(1 + chance.index % KEPT, len(world.before))):
            world.table = world.before.pop()
        world.table.rows = sorted({*rows, *world.table.rows})

    def fail_over_redis(self, chance: Chance) -> None:
        """Let a replica lead, which lacks some steps. What is on its way went to the old one."""
        for _ in range(1 + chance.index % 4):
            if self.world.history:
                self.world.data = self.world.history.pop()
        self._leave_the_old_server()

    def flush(self, chance: Chance) -> None:
        self.world.data = Data()
        self.world.history.clear()

    def _leave_the_old_server(self) -> None:
        self.world.network.clear()
        for number in range(PROCESSES):
            self.lose_the_connection(Chance(number, 0, 0, 0, 0))

    def check(self) -> None:
        world = self.world
        times = Counter(world.data.entries)
        assert max(times.values(), default=1) == 1, f"repeated: {world.data.entries}"
        for key in range(KEYS):
            of_key = [row for row in world.data.entries if key_of(row) == key]
            # What two servers have lost has no order.
            assert world.repeats or of_key == sorted(of_key), f"out of order: {of_key}"

    def end(self) -> None:
        world = self.world
        world.refused_key = world.kept_key = None
        for number, process in enumerate(world.processes):
            for _ in range(TRIES):
                process.answer = process.answer or CUT
                self.go_on(Chance(number, 0, 0, 1, 0))
        world.holder = None
        self._finish()
        while world.network:
            world.deliver(world.network[0])
        # A loss is seen with the next row.
        self.publish(Chance(0, 0, 0, 0, 0))
        self._finish()
        self.check()
        assert not world.table.rows
        missing = {*range(1, world.published + 1)} - {*world.data.entries}
        assert not missing or world.losses, f"lost and not counted: {missing}"
        assert len(world.data.marker) <= 2 * KEPT

    def _finish(self) -> None:
        self.world.processes[0] = Process()
        for _ in range(TRIES):
            if not self.world.table.rows:
                return
            self.hand_all_over(Chance(0, 4, KEYS, 0, 0))


Action = Callable[[Play, Chance], None]
ACTIONS: list[Action] = [
    *[Play.publish] * 3,
    *[Play.begin] * 2,
    *[Play.go_on] * 5,
    *[Play.deliver] * 4,
    *[Play.hand_all_over] * 4,
    *[Play.send_and_lose] * 3,
    Play.die,
    Play.lose_the_transaction,
    Play.lose_the_connection,
    Play.refuse_a_key,
]
KEEPING: list[Action] = [*ACTIONS, Play.fail_over_the_database, Play.keep_a_key]
"""Redis loses nothing."""
LOSING: list[Action] = [*ACTIONS, Play.fail_over_redis, Play.flush]
"""The database loses nothing: of what both lose, nobody knows. And it keeps no rows: until a shard's next step, what
Redis loses of the one before is not seen then."""


def walk(rules: Rules, seed: int, *, losses: bool = False) -> Play:
    """Let things happen at random, and check what must hold after each."""
    chance = random.Random(seed)
    play = Play(rules)
    draw = chance.randrange
    for _ in range(chance.randint(5, 40)):
        action = chance.choice(LOSING if losses else KEEPING)
        action(play, Chance(draw(PROCESSES), 1 + draw(5), draw(KEYS + 1), draw(8), draw(9)))
        play.check()
    play.end()
    return play
