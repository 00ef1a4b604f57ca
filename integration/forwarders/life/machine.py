"""Publishers, relays, destinations and people do what they like, in any order."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from .stage import Stage
from .world import COPIES, QUEUES

QUEUE = st.sampled_from(sorted(COPIES))
KEYS = st.lists(st.sampled_from(["a", "a", "a", "b", None]), min_size=1, max_size=3)
RARELY = st.sampled_from([False, False, True])
WHICH = st.integers(0, 7)
"""Which of those that can do it, counted in a circle."""
ANOTHER = 9
"""Of all lanes the first one of the second relay, though it may find nothing to do."""
POINTS = ["before sending", "before settling", "before the commit"]
CARRYING = {
    "which": WHICH,
    "until": st.sampled_from([None, None, None, None, *POINTS]),
    "script": st.sampled_from(
        [
            [],
            [],
            ["refuse"],
            ["refuse", "accept", "refuse"],
            ["poison"],
            ["accept", "poison"],
            ["down"],
            ["accept", "down"],
            ["no answer", "no answer"],
            ["accept", "no answer"],
        ]
    ),
}


class Step(NamedTuple):
    """One thing that happens."""

    what: str
    """A method of `LifeMachine`."""
    arguments: Mapping[str, Any]


STEPS: list[tuple[int, st.SearchStrategy[Step]]] = [
    (weight, st.tuples(st.just(what), st.fixed_dictionaries(arguments)).map(Step._make))
    for weight, what, arguments in [
        (
            3,
            "publish",
            {
                "slot": st.integers(0, 2),
                "queue": QUEUE,
                "keys": KEYS,
                "identity": st.sampled_from([None, None, "i", "j"]),
                "is_timer": RARELY,
                "is_over": RARELY,
            },
        ),
        (1, "end_transaction", {"which": WHICH, "commits": st.booleans()}),
        (3, "publish_and_hand_over", {"queue": QUEUE, "keys": KEYS, **CARRYING}),
        (6, "hand_over", {**CARRYING, "is_later": RARELY}),
        (
            3,
            "break_off",
            {
                **CARRYING,
                "until": st.sampled_from(POINTS),
                "how": st.sampled_from(["crash", "crash", "cut off", "connection lost"]),
            },
        ),
        (2, "write_what_is_remembered", {"which": WHICH, "until": CARRYING["until"]}),
        (1, "pause_or_resume", {"number": st.integers(0, 1), "is_on": RARELY}),
        (
            1,
            "outage",
            {
                "name": st.sampled_from(sorted(QUEUES)),
                "lanes": st.lists(WHICH, min_size=1, max_size=4),
                "lasts": RARELY,
            },
        ),
        (2, "decide_on_dead_letters", {"key": st.sampled_from(["a", "b", None]), "discards": RARELY}),
    ]
]
"""Hypothesis leaves out some rules in each life, most of them in many, and that would make most lives dull. So there is
one rule, and these weights."""


class LifeMachine(Stage):
    """Each step does what can be done then: what it chooses from depends on what has happened before."""

    @initialize(moves=st.booleans(), batch_size=st.sampled_from([1, 2, 3]))
    def begin(self, *, moves: bool, batch_size: int) -> None:
        self.set_up(moves=moves, batch_size=batch_size)

    @rule(step=st.sampled_from([step for weight, step in STEPS for _ in range(weight)]).flatmap(lambda step: step))
    def happens(self, step: Step) -> None:
        self.world.seen[step.what] += 1
        getattr(self, step.what)(**step.arguments)

    @invariant()
    def promises_hold(self) -> None:
        self.check()

    # --- publishers

    def publish(
        self, *, slot: int, queue: str, keys: list[str | None], identity: str | None, is_timer: bool, is_over: bool
    ) -> None:
        self.write(slot, queue, keys, identity, is_timer=is_timer)
        if is_over and slot in self.sessions:
            self.end(slot, commits=True)

    def end_transaction(self, *, which: int, commits: bool) -> None:
        slots = sorted(self.sessions)
        if slots:
            self.end(slots[which % len(slots)], commits=commits)

    # --- relays

    def publish_and_hand_over(self, *, queue: str, keys: list[str | None], **carrying: Any) -> None:
        slot = len(self.sessions) + 10
        self.write(slot, queue, keys, None, is_timer=False)
        self.end(slot, commits=True)
        self.hand_over(**carrying)

    def hand_over(self, *, which: int, until: str | None, script: Sequence[str], is_later: bool = False) -> None:
        """A lane makes a hand-over, or goes on with it; it may be stopped at a point."""
        if is_later:
            self.let_time_pass()
        choice = self.able if which == ANOTHER else self.provide_work() + [lane for lane in self.able if lane.has_rows]
        if choice:
            self.go_on_or_begin(choice[which % len(choice)], until, script)
        if until is None and which % 2 and which != ANOTHER and self.idle_with_work:
            self.go_on_or_begin(self.idle_with_work[0])

    def break_off(self, *, which: int, until: str, script: Sequence[str], how: str) -> None:
        """A process dies and another takes its place; or a stop has no more time; or a lane loses the database."""
        choice = self.provide_work()
        if choice:
            self.go_on_or_begin(choice[which % len(choice)], until, script)
        in_hand = [lane for lane in self.under_way if lane.has_rows]
        if not in_hand:
            return
        lane = in_hand[which % len(in_hand)]
        [relay] = [relay for relay in self.relays if lane in relay.lanes]
        self.world.seen[f"{how} {lane.stops.at}"] += 1
        if how == "crash":
            self.world.run(relay.die())
            self.relays[relay.number] = self.create_relay(relay.number)
        elif how == "cut off":
            self.world.run(lane.cancel())
        else:
            self.world.run(relay.lose_connection(lane))

    def write_what_is_remembered(self, *, which: int, until: str | None) -> None:
        """A lane writes outcomes in a hand-over that sends nothing, as it does while it has no other ones."""
        choice = [lane for lane in self.able if not lane.is_under_way and not lane.team.remembered.is_empty]
        if choice:
            self.world.seen["hand-overs that send nothing"] += 1
            self.world.run(choice[which % len(choice)].begin_to_write(until=until))

    def pause_or_resume(self, *, number: int, is_on: bool) -> None:
        relay = self.relays[number]
        self.world.run(relay.pause() if is_on else relay.resume())

    # --- destinations

    def outage(self, *, name: str, lanes: list[int], lasts: bool) -> None:
        """A destination goes down while lanes try to use it; and it comes back, sooner or later."""
        self.provide_work()
        self.servers[name].is_up = False
        for which in lanes:
            choice = [lane for lane in self.able if lane.destination.server is self.servers[name]]
            if choice:
                self.go_on_or_begin(choice[which % len(choice)])
        self.servers[name].is_up = not lasts

    # --- people

    def decide_on_dead_letters(self, *, key: str | None, discards: bool) -> None:
        dead = self.model.dead(key)
        if any(row.message.asked_identity and self.is_in_use([row.queue], row.message.asked_identity) for row in dead):
            return
        if discards:
            self.discard(key)
        else:
            self.replay(key)
