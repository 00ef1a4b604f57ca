"""Wakes the loops of a queue that has new rows."""

import asyncio
from collections.abc import Sequence
from weakref import WeakSet

from faststream_outbox._engine.news import News

ALONE_SECONDS = 0.02
"""How long the one that was woken is left alone with the work, before the others of its team are woken too."""


class Wakeup:
    """One sleeper's bell. It stays rung until it is cleared, just before a look, so that no wake-up is lost."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._waiting = 0

    @property
    def is_rung(self) -> bool:
        return self._rung.is_set()

    @property
    def is_asleep(self) -> bool:
        """Whether a sleeper waits for it, and it has not rung yet."""
        return self._waiting > 0 and not self.is_rung

    def ring(self) -> None:
        self._rung.set()

    def clear(self) -> None:
        self._rung.clear()

    def pass_on(self) -> None:
        """Pass the bell on after a look in vain: another sleeper at work may have just the shard that it rang for."""

    async def wait(self, seconds: float | None) -> None:
        """Wait until it rings, but no longer than ``seconds``."""
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1


class TeamBell:
    """Wakes the sleepers of a team. They do the same work, so that for a few new rows it is enough to wake one of them.

    All of them looking for the same row is work in vain, and slows down the one who gets it. So what rings while that
    one is at work is left to it, too. The others are woken when it has not gone back to sleep after a moment: it has
    more than a few rows, or is held up.
    """

    def __init__(self) -> None:
        self._members: WeakSet[_Member] = WeakSet()
        self._left_alone: Wakeup | None = None
        self._help_is_due: asyncio.TimerHandle | None = None

    def join(self) -> Wakeup:
        """Return a bell for one more sleeper."""
        wakeup = _Member(self)
        self._members.add(wakeup)
        return wakeup

    def ring(self) -> None:
        """Wake one sleeper; if none sleeps, each looks once more before it sleeps."""
        if self._left_alone is not None:
            if self._left_alone.is_asleep:
                # It has been back, and begins anew.
                self._leave_alone(self._left_alone)
            self._left_alone.ring()
            return
        sleeper = next((member for member in self._members if member.is_asleep), None)
        if sleeper is None:
            self.ring_all()
            return
        sleeper.ring()
        if len(self._members) > 1:
            self._leave_alone(sleeper)

    def ring_all(self) -> None:
        for member in self._members:
            member.ring()

    def ring_others_at_work(self, caller: Wakeup) -> None:
        """Ring the bells of the other sleepers that are awake: each looks once more before it sleeps."""
        for member in self._members:
            if member is not caller and not member.is_asleep:
                member.look_once_more()

    def _leave_alone(self, member: Wakeup) -> None:
        if self._help_is_due is not None:
            self._help_is_due.cancel()
        self._left_alone = member
        self._help_is_due = asyncio.get_running_loop().call_later(ALONE_SECONDS, self._help)

    def _help(self) -> None:
        self._left_alone = self._help_is_due = None
        if not all(member.is_asleep for member in self._members):
            self.ring_all()


class _Member(Wakeup):
    """Keeps the bell of its team for as long as it is kept itself."""

    def __init__(self, team_bell: TeamBell) -> None:
        super().__init__()
        self.team_bell = team_bell
        self._is_called = False
        """Whether there may be new rows for which nobody has looked since."""
        self._is_to_pass_on = False

    def ring(self) -> None:
        self._is_called = True
        super().ring()

    def look_once_more(self) -> None:
        """Ring for rows that another member has looked for in vain.

        Such a ring goes no further: two members whose looks take long would pass it to and fro for ever.
        """
        super().ring()

    def clear(self) -> None:
        self._is_to_pass_on, self._is_called = self._is_to_pass_on or self._is_called, False
        super().clear()

    def pass_on(self) -> None:
        if self._is_to_pass_on:
            self._is_to_pass_on = False
            self.team_bell.ring_others_at_work(self)


class Wakeups:
    """All sleepers of a process, by queue. A bell to which no reference is left is forgotten."""

    def __init__(self) -> None:
        self.news = News()
        self._team_bells: dict[str, WeakSet[TeamBell]] = {}

    @property
    def queues(self) -> list[str]:
        """The queues with a sleeper or a loop at work: the queues that this process consumes."""
        return [queue for queue, bells in self._team_bells.items() if bells]

    def register(self, queues: Sequence[str], team_bell: TeamBell | None = None) -> Wakeup:
        """Return a bell that rings for each of these queues.

        Args:
            queues: Queue names; the same for all of a team.
            team_bell: Of the team whose work the sleeper shares; None: it shares with no other.
        """
        team_bell = team_bell or TeamBell()
        for queue in queues:
            self._team_bells.setdefault(queue, WeakSet()).add(team_bell)
        return team_bell.join()

    def wake(self, queue: str) -> None:
        self.news.note()
        for team_bell in self._team_bells.get(queue, ()):
            team_bell.ring()

    def wake_all(self) -> None:
        for bells in self._team_bells.values():
            for team_bell in bells:
                team_bell.ring_all()
