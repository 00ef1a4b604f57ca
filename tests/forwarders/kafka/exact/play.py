"""What may happen in the world of the model, a word for each."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from .world import KEYS, MOST_LOST, PARTS, TIMED_OUT, Partition, Process, Rules, World, key_of

PROCESSES = 3
TRIES = 150
"""More than a look waits for a batch that may be deleted, in each partition."""


class Chance(NamedTuple):
    """What an action may choose; each takes what it needs."""

    number: int
    """A process."""
    limit: int
    """Rows of a hand-over."""
    waiting_key: int
    """A key whose rows wait for a retry; the last one stands for none."""
    steps: int
    index: int
    """Of a batch on its way, and of a partition."""
    flag: bool


class Play:
    """Three processes that hand rows over, and all that happens to them.

    Args:
        rules: What the product does.
    """

    def __init__(self, rules: Rules) -> None:
        self.world = World(rules)
        self.processes = [Process() for _ in range(PROCESSES)]

    # What processes do

    def publish(self, chance: Chance) -> None:
        self.world.publish(1 + chance.index % 3)

    def hand_over(self, chance: Chance) -> None:
        self._begin(chance)
        self.go_on(chance)

    def go_on(self, chance: Chance) -> None:
        for _ in range(chance.steps):
            self._step(chance.number)

    def hand_all_over(self, chance: Chance) -> None:
        """Make a whole hand-over, which meets no trouble but that bytes of others arrive at one of its steps."""
        process = self.processes[chance.number]
        self._begin(chance)
        for step in count():
            if process.running is None:
                return
            for request in [*self.world.network]:
                if request.sender is not process:
                    is_due = step == chance.steps
                else:
                    is_due = process.answer is None and request.connection == process.connection
                if is_due:
                    self.world.deliver(request, is_replicated=True)
            self._step(chance.number)

    def send_and_die(self, chance: Chance) -> None:
        process = self.processes[chance.number]
        self._begin(chance)
        while process.running is not None and not any(one.sender is process for one in self.world.network):
            self._step(chance.number)
        self.die(chance)

    def pause(self, chance: Chance) -> None:
        """Stop a process until it goes on, and give its rows to others."""
        self.hand_over(chance)
        self.lose_the_transaction(chance)

    def _begin(self, chance: Chance) -> None:
        process = self.processes[chance.number]
        if process.running is None and self.world.holder is None and self.world.table.rows:
            process.running = self.world.hand_over(process, chance.limit, chance.waiting_key)

    def _step(self, number: int) -> None:
        process = self.processes[number]
        if process.running is not None and next(process.running, None) is None:
            process.running = None

    # What happens to them

    def die(self, chance: Chance) -> None:
        process = self.processes[chance.number]
        self.lose_the_transaction(chance)
        process.connection += 1
        self.processes[chance.number] = Process()

    def lose_the_transaction(self, chance: Chance) -> None:
        if self.world.holder is self.processes[chance.number]:
            self.world.holder = None

    def lose_the_connection(self, chance: Chance) -> None:
        self.world.cut(self.processes[chance.number])

    def deliver(self, chance: Chance) -> None:
        if network := self.world.network:
            self.world.deliver(network[chance.index % len(network)], is_replicated=chance.flag)

    def drop(self, chance: Chance) -> None:
        if network := self.world.network:
            self.world.cut(network.pop(chance.index % len(network)).sender)

    def others_produce(self, chance: Chance) -> None:
        self._partition(chance).append_foreign(2)
        self.world.read_as_others_do()

    def change_the_leader(self, chance: Chance) -> None:
        """Let another replica lead, which has all that was acknowledged, and perhaps more."""
        partition = self._partition(chance)
        if not chance.flag:
            partition.lose(partition.replicated)
        partition.replicate()
        self.world.read_as_others_do()

    def lead_without_knowing_the_watermark(self, chance: Chance) -> None:
        self._partition(chance).lag()

    def restart_the_server(self, chance: Chance) -> None:
        self._partition(chance).restart()

    def check_for_expired_producers(self, chance: Chance) -> None:
        for partition in self.world.partitions.values():
            partition.expire(self.world.now)

    def pass_a_day(self, chance: Chance) -> None:
        # Rarely: it ends all that is on its way.
        if chance.steps == 0:
            # Also of those that have looked, and have sent nothing yet.
            for process in self.processes:
                self.world.cut(process)
            self.world.pass_a_day()

    def keep_a_key(self, chance: Chance) -> None:
        """Let the table refuse to delete the rows of a key, or of none."""
        self.world.kept_key = chance.waiting_key

    def route_anew(self, chance: Chance) -> None:
        """Add a partition while Kafka is well: nothing is on its way, and no process is about to send."""
        for process in self.processes:
            self.world.cut(process)
        for request in [*self.world.network]:
            self.world.deliver(request, is_replicated=chance.flag)
        self.world.routing += 1

    def fail_over_the_database(self, chance: Chance) -> None:
        self.world.fail_over(lost=1 + chance.index % MOST_LOST)

    def fail_over_behind_another(self, chance: Chance) -> None:
        """Let another process take over what this one has, and lose its take-over and its commit."""
        self.hand_all_over(chance)
        self.publish(chance)
        self.hand_all_over(chance._replace(number=(chance.number + 1) % PROCESSES, waiting_key=chance.index % KEYS))
        self.world.fail_over(lost=2)
        self.hand_all_over(chance)

    # What damages a log

    def make_the_topic_anew(self, chance: Chance) -> None:
        self._damage()
        part = PARTS[chance.index % len(PARTS)]
        self.world.partitions[part] = type(self.world.partitions[part])()

    def elect_an_unclean_leader(self, chance: Chance) -> None:
        partition = self._partition(chance)
        if partition.log:
            self._damage()
            partition.lose(partition.log[-1].offset)

    def delete_records(self, chance: Chance) -> None:
        """Delete what can be read. In a topic made anew, that may leave nothing to know by: then a look waits."""
        if self.world.generation == 0:
            self.world.is_damaged = True
            self._partition(chance).delete()

    def _damage(self) -> None:
        self.world.generation += 1
        self.world.is_damaged = True

    def _partition(self, chance: Chance) -> Partition:
        return self.world.partitions[PARTS[chance.index % len(PARTS)]]

    # What must hold

    def check(self) -> None:
        if self.world.is_damaged:
            return
        seen = Counter(self.world.seen.values())
        assert max(seen.values(), default=1) == 1, f"repeated: {seen}"
        for part in PARTS:
            ids = [mark.row_id for _, mark in self.world.partitions[part].visible()]
            for key in range(KEYS):
                of_key = [row_id for row_id in ids if key_of(row_id) == key]
                assert of_key == sorted(of_key), f"out of order: {ids}"

    def end(self) -> None:
        """Let paused processes go on and a last one finish; then let all come that is still on its way."""
        for number, process in enumerate(self.processes):
            for _ in range(TRIES):
                self._step(number)
                process.answer = process.answer or TIMED_OUT
        self._finish()
        while self.world.network:
            self.world.deliver(self.world.network[0], is_replicated=True)
        self._finish()
        self.check()
        assert not self.world.table.rows
        if not self.world.is_damaged:
            there = {mark.row_id for mark in self.world.seen.values()}
            assert there == {*range(1, self.world.published + 1)}, "lost"

    def _finish(self) -> None:
        self.world.holder = self.world.kept_key = None
        self.processes[0] = Process()
        for _ in range(TRIES):
            for partition in self.world.partitions.values():
                partition.replicate()
            self.world.read_as_others_do()
            self.hand_all_over(Chance(0, 4, KEYS, -1, 0, flag=True))
            if not self.world.table.rows:
                return


Action = Callable[[Play, Chance], None]

OFTEN: list[Action] = [
    *[Play.publish] * 2,
    *[Play.go_on] * 5,
    *[Play.deliver] * 3,
    *[Play.hand_over] * 3,
    *[Play.hand_all_over] * 4,
    *[Play.send_and_die] * 3,
    *[Play.pause] * 3,
]
ACTIONS: list[Action] = [
    *OFTEN,
    Play.die,
    Play.lose_the_transaction,
    Play.lose_the_connection,
    Play.drop,
    Play.others_produce,
    Play.change_the_leader,
    Play.lead_without_knowing_the_watermark,
    Play.restart_the_server,
    Play.check_for_expired_producers,
    Play.pass_a_day,
    Play.keep_a_key,
    Play.route_anew,
    Play.fail_over_the_database,
    Play.fail_over_behind_another,
]
DAMAGES: list[Action] = [Play.make_the_topic_anew, Play.elect_an_unclean_leader, Play.delete_records]


def walk(rules: Rules, seed: int, *, damages: bool = False) -> None:
    """Let things happen at random, and check what must hold after each."""
    chance = random.Random(seed)
    play = Play(rules)
    for _ in range(chance.randint(5, 40)):
        action = chance.choice([*ACTIONS, *DAMAGES] if damages else ACTIONS)
        draw = chance.randrange
        action(play, Chance(draw(3), 1 + draw(4), draw(KEYS + 1), draw(12), draw(9), flag=draw(5) < 3))
        play.check()
    play.end()
