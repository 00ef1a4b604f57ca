"""The rows of one hand-over against an outlet that answers as the test says."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from faststream_outbox._values.outcome import Accepted, Poison, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders import chains
from faststream_outbox.forwarders.any_broker.sending import RowSender

from .rows import parcel

Answer = Callable[[int], BaseException | None]


class FakeOutlet:
    """Takes rows, and answers a turn of the loop later."""

    def __init__(self, answer: Answer = lambda _: None) -> None:
        self.answer = answer
        self.log: list[tuple[str, int]] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def publish(self, parcel: Parcel) -> None:
        number = parcel.row.id
        self.log.append(("sent", number))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            if (error := self.answer(number)) is not None:
                raise error
            self.log.append(("taken", number))
        finally:
            self.in_flight -= 1

    def classify(self, error: BaseException, parcel: Parcel) -> Verdict:
        match error:
            case ValueError():
                return Poison("invalid", error)
            case ConnectionError() | asyncio.CancelledError():
                return Unsent(error)
            case _:
                return Refused(error)

    def is_doubtful(self, error: BaseException) -> bool:
        return isinstance(error, BufferError)

    @property
    def taken(self) -> list[int]:
        return [number for what, number in self.log if what == "taken"]


async def send(outlet: FakeOutlet, *keys: str | None) -> tuple[RowSender, dict[int, Verdict]]:
    verdicts: dict[int, Verdict] = {}
    sending = RowSender(outlet, verdicts)
    await sending.send([parcel(number, key=key) for number, key in enumerate(keys)])
    return sending, verdicts


def chain(outlet: FakeOutlet, numbers: Sequence[int]) -> list[tuple[str, int]]:
    return [entry for entry in outlet.log if entry[1] in numbers]


async def test_one_row_of_a_key_in_flight_and_all_keys_at_once() -> None:
    outlet = FakeOutlet()
    _, verdicts = await send(outlet, "a", "b", "a", None, None, "b", "a")
    assert set(verdicts.values()) == {Accepted()}
    assert outlet.most_in_flight == 4
    for numbers in ([0, 2, 6], [1, 5]):
        assert chain(outlet, numbers) == [(what, number) for number in numbers for what in ("sent", "taken")]


async def test_not_too_many_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MOST_IN_FLIGHT", 5)
    outlet = FakeOutlet()
    await send(outlet, *[None] * 50)
    assert outlet.most_in_flight == 5
    assert len(outlet.taken) == 50


async def test_a_refused_row_holds_its_key_and_a_poisoned_one_does_not() -> None:
    answers = {1: KeyError("no"), 4: ValueError("never")}
    outlet = FakeOutlet(answers.get)
    sending, verdicts = await send(outlet, "a", "a", "a", "b", "b", "b")
    assert verdicts[1] == Refused(answers[1])
    assert 2 not in verdicts
    assert verdicts[4] == Poison("invalid", answers[4])
    assert sorted(outlet.taken) == [0, 3, 5]
    assert sending.trouble is None


async def test_after_an_outage_nothing_more_is_sent() -> None:
    trouble = ConnectionError("away")
    outlet = FakeOutlet(lambda number: trouble if number == 1 else None)
    sending, verdicts = await send(outlet, "a", "a", "a", "b", "b", "b", "b")
    assert sending.trouble is trouble
    assert verdicts == dict.fromkeys(outlet.taken, Accepted())
    assert ("sent", 2) not in outlet.log
    assert ("sent", 6) not in outlet.log


async def test_a_cancellation_of_the_clients_own_is_no_cancellation_of_ours() -> None:
    outlet = FakeOutlet(lambda number: asyncio.CancelledError() if number == 0 else None)
    sending, verdicts = await send(outlet, "a", None)
    assert isinstance(sending.trouble, asyncio.CancelledError)
    assert 0 not in verdicts


async def test_our_own_cancellation_ends_it() -> None:
    class Hanging(FakeOutlet):
        async def publish(self, parcel: Parcel) -> None:
            self.log.append(("sent", parcel.row.id))
            await asyncio.Event().wait()

    outlet = Hanging()
    task = asyncio.create_task(send(outlet, "a", "b"))
    while len(outlet.log) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_doubtful_row_gets_its_verdict_when_it_is_sent_alone() -> None:
    together, alone = BufferError("the batch is too large"), ValueError("too large")
    outlet = FakeOutlet(lambda number: together if number in {0, 2} else None)
    sending, verdicts = await send(outlet, "a", "a", "b", None)
    assert [each.row.id for each in sending.doubtful] == [0, 2]
    assert verdicts == {3: Accepted()}, "what stands behind a doubtful row waits"
    assert sending.trouble is None
    outlet.answer = lambda number: alone if number == 2 else None
    for each in sending.doubtful:
        await sending.send_alone(each)
    assert verdicts == {0: Accepted(), 2: Poison("invalid", alone), 3: Accepted()}


async def test_what_is_said_to_a_row_that_is_alone_is_meant_for_it() -> None:
    outlet = FakeOutlet(lambda _: BufferError("too large"))
    sending, verdicts = await send(outlet, "a")
    await sending.send_alone(*sending.doubtful)
    assert isinstance(verdicts[0], Refused)


async def test_rows_that_were_in_flight_when_it_was_cut_off_are_known_of() -> None:
    class HangingOutlet(FakeOutlet):
        async def publish(self, parcel: Parcel) -> None:
            await asyncio.Event().wait()

    sending = RowSender(HangingOutlet(), {})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await sending.send([parcel(1)])
    assert sending.was_cut_off
