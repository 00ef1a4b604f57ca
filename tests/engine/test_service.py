"""Every loop starts, fails and stops alike: one stress test for all of them."""

import asyncio
import random
import time
from collections.abc import Callable

import pytest

from faststream_outbox._engine import service as service_module
from faststream_outbox._engine.chore import Chore
from faststream_outbox._engine.failure import FailurePolicy
from faststream_outbox._engine.handling.completer import Completer
from faststream_outbox._engine.handling.fetcher import Fetcher
from faststream_outbox._engine.handling.leases import Leases
from faststream_outbox._engine.handling.renewer import Renewer
from faststream_outbox._engine.handling.rescuer import Rescuer
from faststream_outbox._engine.handling.stock import Stock
from faststream_outbox._engine.health import Health
from faststream_outbox._engine.lookout import Lookout
from faststream_outbox._engine.pacer import Pacer
from faststream_outbox._engine.receiver import Receiver
from faststream_outbox._engine.relaying.breaker import Breaker
from faststream_outbox._engine.relaying.lane import Lane
from faststream_outbox._engine.relaying.team import Team
from faststream_outbox._engine.rounds import Rounds
from faststream_outbox._engine.service import Service, is_cancelled, stop_tasks
from faststream_outbox._engine.surveyor import Surveyor
from faststream_outbox._engine.wakeups import Wakeups
from faststream_outbox._engine.watching.consumed import Consumed
from faststream_outbox._engine.watching.reminder import Reminder, Watched
from faststream_outbox._engine.watching.unconsumed import QueueWatcher
from faststream_outbox._store.protocol import Lag
from faststream_outbox._values.outcome import Delivered, Settlement
from faststream_outbox._values.shard import Shard
from faststream_outbox.retry import NoRetry
from tests.engine.fakes import (
    TOKEN,
    Lines,
    ScriptedDestination,
    ScriptedStore,
    Trouble,
    never,
    swallow_a_cancellation,
    until,
)
from tests.rows import make_row


class Parts:
    """What services are made of."""

    def __init__(self, store: ScriptedStore, log: Lines) -> None:
        self.store, self.log = store, log
        self.health = Health("database", log)
        self.leases = Leases()
        self.leases.token.value = TOKEN
        self.wakeups = Wakeups()
        self.writes = asyncio.Lock()
        self.destination = ScriptedDestination(log)

    def completer(self) -> Completer:
        completer = Completer(self.store, self.leases, Wakeups(), self.writes, self.health, log=Lines())
        completer.put(Settlement(make_row(), Delivered()))
        return completer

    def renewer(self) -> Renewer:
        self.leases.hold([make_row()], 0.0)
        renewer = Renewer(self.store, self.leases, self.writes, self.health, self.log)
        renewer.interval = 0.001
        return renewer

    def rescuer(self) -> Rescuer:
        return Rescuer(self.store, self.leases, self.wakeups, self.health, can_judge=lambda: True)

    def listening(self) -> Receiver:
        return Receiver(self.store, self.leases.token, self.wakeups, self.health, self.log, enabled=True)

    def polling(self) -> Receiver:
        return Receiver(self.store, self.leases.token, self.wakeups, self.health, self.log, enabled=False)

    def reminding(self) -> Reminder:
        async def lag() -> Lag:
            return await self.store.lag(())

        reminding = Reminder(Health("database", self.log))
        reminding.watch(Watched(health=self.health, lag=lag))
        return reminding

    def watching(self) -> QueueWatcher:
        consumed = Consumed(lambda: ["orders"])
        consumed.begin()
        watching = QueueWatcher(self.store, consumed, Health("database", self.log), self.log)
        # Its own is quieter than those of the others.
        watching.health = self.health
        return watching

    def lookout(self) -> Lookout:
        return Lookout(self.store, self.health)

    def surveyor(self) -> Surveyor:
        surveyor = Surveyor(self.store, lambda: [Shard("orders", 0)], Health("database", self.log), self.log)
        surveyor.health = self.health
        return surveyor

    def fetcher(self) -> Fetcher:
        wakeup = self.wakeups.register(["orders"])
        rounds = Rounds(["orders"], 16)
        return Fetcher(
            "test",
            store=self.store,
            stock=Stock(1, 10),
            leases=self.leases,
            completer=Completer(self.store, self.leases, Wakeups(), self.writes, self.health, log=Lines()),
            rounds=rounds,
            wakeup=wakeup,
            pacer=Pacer(wakeup, self.lookout(), lambda: rounds.taken_queues, shortest=1.0, longest=10.0),
            lease_seconds=60.0,
            health=self.health,
        )

    def fetcher_without_token(self) -> Fetcher:
        self.leases.token.value = ""
        return self.fetcher()

    def lane(self) -> Lane:
        wakeup = self.wakeups.register(["orders"])
        rounds = Rounds(["orders"], 16)
        return Lane(
            "test",
            store=self.store,
            destination=self.destination,
            team=Team(Breaker(self.destination.health, 1)),
            rounds=rounds,
            wakeup=wakeup,
            pacer=Pacer(wakeup, self.lookout(), lambda: rounds.taken_queues, shortest=1.0, longest=10.0),
            failure=FailurePolicy(retry=NoRetry()),
            batch_size=10,
            send_timeout=10.0,
            health=self.health,
            log=self.log,
        )


MAKERS = [
    "completer",
    "renewer",
    "rescuer",
    "listening",
    "polling",
    "reminding",
    "watching",
    "surveyor",
    "lookout",
    "fetcher",
    "fetcher_without_token",
    "lane",
]
WITH_STORE = ["completer", "renewer", "rescuer", "listening", "fetcher", "lane"]


@pytest.fixture
async def parts(store: ScriptedStore, log: Lines, monkeypatch: pytest.MonkeyPatch) -> Parts:
    monkeypatch.setattr("faststream_outbox._engine.handling.rescuer.INTERVAL_SECONDS", 0.001)
    monkeypatch.setattr("faststream_outbox._engine.surveyor.INTERVAL_SECONDS", 0.001)
    return Parts(store, log)


@pytest.fixture
async def service(parts: Parts, request: pytest.FixtureRequest) -> Service:
    made: Service = getattr(parts, request.param)()
    return made


every_service = pytest.mark.parametrize("service", MAKERS, indirect=True)
every_service_with_store = pytest.mark.parametrize("service", WITH_STORE, indirect=True)


def running(service: Service) -> list[asyncio.Task[None]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == service.name]


@every_service
async def test_stress_of_starts_and_stops(service: Service) -> None:
    async with asyncio.timeout(5):
        await service.stop()
        for number in range(40):
            service.start()
            service.start()
            assert len(running(service)) == 1
            for _ in range(random.randrange(6)):
                await asyncio.sleep(0)
            await asyncio.gather(*(service.stop(grace) for grace in (0.0, 0.001, 0.0)[: 1 + number % 3]))
            assert not running(service)
            await service.stop()


@every_service
async def test_a_stop_does_not_wait_for_its_grace_without_reason(service: Service) -> None:
    service.start()
    for _ in range(20):
        await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await service.stop(60.0)
        await service.stop(None)
    assert not running(service)


@every_service
async def test_a_stop_at_any_moment_is_prompt(service: Service, parts: Parts) -> None:
    for turns in range(25):
        service.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(2.5):
            await service.stop(60.0)


@every_service
async def test_a_stop_while_the_work_raises(service: Service, monkeypatch: pytest.MonkeyPatch, log: Lines) -> None:
    rounds = 0

    async def fail() -> None:
        nonlocal rounds
        rounds += 1
        raise Trouble("always")

    monkeypatch.setattr(service, "run_once", fail)
    monkeypatch.setattr(service, "has_more", lambda: False)
    for _ in range(5):
        service.start()
        await until(lambda: rounds > 0)
        async with asyncio.timeout(2.5):
            await service.stop(60.0)
    assert rounds < 50
    assert len(log.errors) == 1


@every_service_with_store
async def test_a_database_that_fails_is_told_once_and_asked_again(service: Service, parts: Parts) -> None:
    store, log = parts.store, parts.log
    store.publish()
    store.script.failing["*"] = Trouble("no database")
    service.start()
    await until(lambda: service._backoff._failures >= 3)
    assert log.errors == ["database: Trouble: no database (retrying until it works)"]
    assert store.script.calls.total() < 20
    del store.script.failing["*"]
    await until(lambda: log.recoveries)
    async with asyncio.timeout(2):
        await service.stop(1.0)
    assert not service.health.is_down


@every_service_with_store
async def test_a_database_that_hangs_does_not_keep_a_stop(service: Service, parts: Parts) -> None:
    parts.store.publish()
    calls = {"claim", "settle", "renew", "rescue", "hand_over", "listen"}
    parts.store.script.hanging |= calls
    service.start()
    await until(lambda: any(parts.store.script.calls[call] for call in calls))
    async with asyncio.timeout(2.5):
        await service.stop(0.02)
    assert not running(service)


@every_service_with_store
async def test_a_database_that_hangs_is_given_up_and_asked_again(
    service: Service, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    handling = (f"handling.{module}" for module in ("completer", "renewer", "fetcher"))
    for module in (*handling, "relaying.lane", "receiver"):
        monkeypatch.setattr(f"faststream_outbox._engine.{module}.DATABASE_SECONDS", 0.01)
    if isinstance(service, Lane):
        service._send_timeout = 0.01
    if isinstance(service, Chore):
        service.limit = 0.01
    parts.store.publish()
    parts.store.script.hanging |= {"claim", "settle", "renew", "rescue", "hand_over", "listen"}
    service.start()
    await until(lambda: service.health.is_down)
    assert isinstance(service.health.last_error, TimeoutError)
    await parts.store.script.let_go(*parts.store.script.hanging)
    await until(lambda: not service.health.is_down)
    await service.stop(1.0)


class Example(Service):
    def __init__(self, log: Lines) -> None:
        super().__init__("example", Health("database", log))
        self.rounds = 0
        self.work: Callable[[], object] = never

    async def run_once(self) -> None:
        self.rounds += 1
        result = self.work()
        if asyncio.iscoroutine(result):
            await result


@pytest.fixture
async def example(log: Lines) -> Example:
    return Example(log)


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "CANCEL_SECONDS", 0.02)


async def test_a_start_during_a_stop_does_not_make_a_second_loop(example: Example) -> None:
    example.start()
    await until(lambda: example.rounds)
    stopping = asyncio.create_task(example.stop(60.0))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="example is still stopping"):
        example.start()
    await example.stop()
    await stopping
    example.start()
    await until(lambda: example.rounds == 2)
    await example.stop()


async def test_everyone_who_stops_waits_until_the_loop_has_ended(example: Example) -> None:
    ended = []

    async def work() -> None:
        try:
            await never()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    example.work = work
    example.start()
    await until(lambda: example.rounds)
    first = asyncio.create_task(example.stop())
    await asyncio.sleep(0)
    await example.stop()
    assert ended
    await first


async def test_the_present_round_is_finished_within_the_grace(example: Example) -> None:
    gate, finished = asyncio.Event(), []

    async def work() -> None:
        await gate.wait()
        finished.append(True)

    example.work = work
    example.start()
    await until(lambda: example.rounds)
    stopping = asyncio.create_task(example.stop(60.0))
    await asyncio.sleep(0.005)
    gate.set()
    await stopping
    assert finished == [True]


async def test_work_that_does_not_end_when_cancelled_does_not_keep_the_stop(example: Example, briefly: None) -> None:
    gate = asyncio.Event()

    async def work() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    example.work = work
    example.start()
    await until(lambda: example.rounds)
    async with asyncio.timeout(2.5):
        await example.stop()
    (task,) = running(example)
    gate.set()
    await asyncio.wait([task])
    assert example.rounds == 1


async def test_a_cancelled_stop_still_ends_the_loop(example: Example) -> None:
    example.start()
    await until(lambda: example.rounds)
    stopping = asyncio.create_task(example.stop(None))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await until(lambda: not running(example))


async def test_a_stop_with_a_time_out_around_it(example: Example) -> None:
    example.start()
    await until(lambda: example.rounds)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await example.stop(60.0)
    await until(lambda: not running(example))


async def test_a_cancellation_of_the_works_own_making_does_not_end_the_loop(example: Example, log: Lines) -> None:
    async def work() -> None:
        if example.rounds == 1:
            raise asyncio.CancelledError
        await never()

    example.work = work
    example.start()
    await until(lambda: example.rounds == 2)
    assert len(log.errors) == 1
    await example.stop()


async def test_an_error_in_answer_to_the_cancellation_ends_the_loop(example: Example) -> None:
    async def work() -> None:
        try:
            await never()
        except asyncio.CancelledError:
            raise Trouble("the driver turns it into an error of its own") from None

    example.work = work
    example.has_more = lambda: True  # type: ignore[method-assign]
    example.start()
    await until(lambda: example.rounds)
    await example.stop()
    assert not running(example)
    assert example.rounds == 1


async def test_a_library_that_leaves_its_own_cancellation_behind_does_not_end_the_loop(example: Example) -> None:
    async def work() -> None:
        match example.rounds:
            case 1:
                await swallow_a_cancellation()
                raise Trouble
            case 2:
                await swallow_a_cancellation()
            case 3:
                raise asyncio.CancelledError
            case _:
                await never()

    example.work = work
    example.start()
    await until(lambda: example.rounds == 4)
    await example.stop()
    assert not running(example)


async def test_the_end_of_the_program_ends_the_loop(example: Example) -> None:
    example.start()
    await until(lambda: example.rounds)
    (task,) = running(example)
    task.cancel()
    await asyncio.wait([task])
    example.start()
    await until(lambda: example.rounds == 2)
    await example.stop()


async def test_a_sleep_ends_with_a_stop_and_lets_a_cancellation_through(example: Example) -> None:
    example.work = lambda: example.sleep(60.0)
    example.start()
    await until(lambda: example.rounds)
    async with asyncio.timeout(2.5):
        await example.stop(60.0)
    example._stopping.clear()
    sleeping = asyncio.create_task(example.sleep(60.0))
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping


async def test_failures_in_a_row_are_spaced_and_a_long_round_starts_over(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays = []

    async def rest(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(example, "sleep", rest)
    now = 0.0
    monkeypatch.setattr(service_module, "time", type("Time", (), {"monotonic": lambda: now}))

    async def work() -> None:
        nonlocal now
        if example.rounds == 9:
            await never()
        if example.rounds == 8:
            now += 60
        raise Trouble

    example.work = work
    example.start()
    await until(lambda: example.rounds == 9)
    await example.stop()
    assert delays[6] > 2.5
    assert delays[7] <= 0.1


async def test_a_success_makes_the_next_delay_short_again(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    delays = []

    async def rest(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(example, "sleep", rest)

    async def work() -> None:
        if example.rounds == 10:
            await never()
        if example.rounds != 8:
            raise Trouble

    example.work = work
    example.start()
    await until(lambda: example.rounds == 10)
    await example.stop()
    assert delays[6] > 2.5
    assert delays[7] <= 0.1


async def test_has_more_keeps_a_stopping_loop_at_work_and_is_not_a_busy_loop(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    failed_at: list[float] = []
    begun_at: list[float] = []
    delays: list[float] = []
    next_delay = example._backoff.next

    def note_delay() -> float:
        delays.append(next_delay())
        return delays[-1]

    async def work() -> None:
        begun_at.append(time.monotonic())
        await gate.wait()
        if example.rounds < 4:
            failed_at.append(time.monotonic())
            raise Trouble

    monkeypatch.setattr(example._backoff, "next", note_delay)
    example.work = work
    example.has_more = lambda: example.rounds < 4  # type: ignore[method-assign]
    example.start()
    await until(lambda: example.rounds)
    stopping = asyncio.create_task(example.stop(60.0))
    gate.set()
    async with asyncio.timeout(30):
        await stopping
    assert example.rounds == 4
    rests = [begun - failed for failed, begun in zip(failed_at, begun_at[1:], strict=True)]
    assert min(delays) >= 0.05
    # A timer may fire a clock's tick too early.
    assert all(rest > 0.9 * delay for rest, delay in zip(rests, delays, strict=True))


async def test_is_cancelled_tells_the_task_from_what_it_awaits() -> None:
    seen = []

    async def work() -> None:
        try:
            async with asyncio.timeout(0):
                await never()
        except TimeoutError:
            seen.append(is_cancelled())
        try:
            await never()
        except asyncio.CancelledError:
            seen.append(is_cancelled())

    task = asyncio.create_task(work())
    await asyncio.sleep(0.005)
    task.cancel()
    await task
    assert seen == [False, True]


async def test_nothing_to_stop() -> None:
    assert await stop_tasks([], None) == set()


class Hanging(Service):
    """Works until it is let go, then rests."""

    def __init__(self) -> None:
        super().__init__("hanging", Health("database", Lines()))
        self.gate = asyncio.Event()

    async def run_once(self) -> None:
        await self.gate.wait()
        await self.sleep(3600)


async def test_a_loop_that_works_for_too_long_hangs_and_one_that_rests_does_not() -> None:
    service = Hanging()
    assert service.stalled == (), "it has not begun"
    service.start()
    await asyncio.sleep(0.01)
    assert service.stalled == ()
    service.longest_work = 0.0
    assert service.stalled == ("hanging hangs for 0 s",)
    service.gate.set()
    await asyncio.sleep(0.01)
    assert service.stalled == (), "it rests"
    await service.stop()
    assert service.stalled == ()


async def test_a_loop_that_others_have_ended_has_ended() -> None:
    service = Hanging()
    service.start()
    assert service._task is not None
    service._task.cancel()
    await asyncio.wait([service._task])
    assert service.stalled == ("hanging has ended",)
    await service.stop()
    assert service.stalled == ()
