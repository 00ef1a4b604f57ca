"""What destinations have in common, on a server that follows a script."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faststream_outbox._values.outcome import Accepted, Poison, Reason, Refused, Unsent, Verdict
from faststream_outbox._values.parcel import Parcel
from faststream_outbox.forwarders.connected_destination import ConnectedDestination, Verdicts
from faststream_outbox.forwarders.suspects import ConnectionBrokenError, OneOfThemError, Suspects
from tests.rows import make_row

TOO_LARGE = Poison(Reason.TOO_LARGE, ValueError("too large"))


class AnswerError(Exception):
    """The server has said no."""


class Server:
    """Closes the connection over killers, the channel over misfits, and takes the rest."""

    def __init__(self) -> None:
        self.killers: set[int] = set()
        self.misfits: set[int] = set()
        self.refused: set[int] = set()
        self.too_large: set[int] = set()
        self.of_a_part_that_is_down: set[int] = set()
        self.is_up = True
        self.has_stayed = True
        self.answer: Exception | None = None
        self.looks = 0
        self.is_loading = False
        self.connections: list[Connection] = []
        self.taken: list[int] = []
        self.flights: list[list[int]] = []


class Connection:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.is_alive = True
        self.is_closed = False
        server.connections.append(self)

    async def close(self) -> None:
        self.is_alive, self.is_closed = False, True


class Destination(ConnectedDestination[Connection]):
    SERVER: ClassVar[str] = "the server"

    def __init__(self, server: Server, suspects: Suspects, send_timeout: float = 5.0) -> None:
        super().__init__(suspects, send_timeout)
        self.server = server
        self.before_answer: Callable[[], object] = lambda: None

    async def _open(self) -> Connection:
        if not self.server.is_up:
            raise ConnectionError("refused")
        return Connection(self.server)

    async def _look(self, client: Connection) -> None:
        self.server.looks += 1
        if self.server.answer is not None:
            raise self.server.answer

    async def _has_stayed(self, client: Connection) -> bool:
        return self.server.has_stayed

    def _check_address(self, address: str) -> None:
        if address == "bad":
            raise ValueError("nothing can go there")

    def _is_settled(self, client: Connection, error: BaseException) -> bool:
        return isinstance(error, AnswerError)

    async def _send(self, client: Connection, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        ids = [parcel.row.id for parcel in parcels]
        self.server.flights.append(ids)
        self.before_answer()
        if not self.server.is_up or self.server.killers & set(ids):
            client.is_alive = False
            verdicts.update(dict.fromkeys(ids, Unsent(ConnectionBrokenError("reset"))))
        elif self.server.is_loading:
            verdicts.update(dict.fromkeys(ids, Unsent(AnswerError("loading"))))
        elif self.server.misfits & set(ids):
            client.is_alive = False
            verdict: Verdict = TOO_LARGE if len(ids) == 1 else Unsent(OneOfThemError(TOO_LARGE))
            verdicts.update(dict.fromkeys(ids, verdict))
        else:
            self._take(parcels, verdicts)

    def _take(self, parcels: Sequence[Parcel], verdicts: Verdicts) -> None:
        held: set[str | None] = set()
        for parcel in parcels:
            row = parcel.row
            if row.key in held:
                verdicts[row.id] = Unsent()
            elif row.id in self.server.of_a_part_that_is_down:
                verdicts[row.id] = Unsent(ValueError("a part is down"), part="x")
                held |= {row.key} - {None}
            elif row.id in self.server.too_large:
                verdicts[row.id] = TOO_LARGE
            elif row.id in self.server.refused:
                verdicts[row.id] = Refused(ValueError())
                held |= {row.key} - {None}
            else:
                verdicts[row.id] = Accepted()
                self.server.taken.append(row.id)


def parcel(number: int, key: str | None = None, address: str | None = None) -> Parcel:
    row = make_row(number, key=key, idempotency_key=str(number), deliveries=0)
    return Parcel(row, address)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def destination(server: Server) -> Destination:
    return Destination(server, Suspects())


async def carry(destination: Destination, parcels: Sequence[Parcel], rounds: int = 10) -> dict[int, Verdict]:
    """Hand over until all is settled, as a lane does, which gives each row's last verdict."""
    verdicts: dict[int, Verdict] = {}
    left = list(parcels)
    for _ in range(rounds):
        try:
            await destination.connect()
        except (ConnectionError, AnswerError):
            continue
        verdicts |= zip((each.row.id for each in left), await destination.send(left), strict=True)
        left = [each for each in left if isinstance(verdicts[each.row.id], Unsent)]
        if not left:
            break
    return verdicts


async def test_nothing_is_sent_before_it_is_connected(destination: Destination, server: Server) -> None:
    [verdict] = await destination.send([parcel(1)])
    assert isinstance(verdict, Unsent)
    assert "not connected" in str(verdict.exception)
    assert not server.flights


async def test_connecting_is_free_while_all_is_well(destination: Destination, server: Server) -> None:
    for number in range(3):
        await destination.connect()
        assert await destination.send([parcel(number)]) == [Accepted()]
    assert len(server.connections) == 1


async def test_an_answer_keeps_the_connection_and_anything_else_does_not(
    destination: Destination, server: Server
) -> None:
    server.answer = AnswerError("loading")
    for _ in range(3):
        with pytest.raises(AnswerError):
            await destination.connect()
    assert len(server.connections) == 1
    server.answer = TimeoutError("late")
    with pytest.raises(TimeoutError):
        await destination.connect()
    assert server.connections[0].is_closed
    server.answer = None
    await destination.connect()
    assert len(server.connections) == 2


async def test_a_connection_that_is_kept_is_looked_at_again(destination: Destination, server: Server) -> None:
    await destination.connect()
    await destination.connect()
    assert server.looks == 1

    server.is_loading = True
    await destination.send([parcel(1)])
    assert not server.connections[0].is_closed
    await destination.connect()
    assert server.looks == 2


async def test_a_part_that_is_down_says_nothing_of_the_connection(destination: Destination, server: Server) -> None:
    server.of_a_part_that_is_down = {1}
    await destination.connect()
    verdicts = await destination.send([parcel(1, "a"), parcel(2, "a"), parcel(3)])
    assert verdicts[1:] == [Unsent(), Accepted()]
    server.answer = AnswerError("it is not asked again whether it would take anything")
    await destination.connect()
    assert len(server.connections) == 1
    assert not server.connections[0].is_closed


async def test_suspects_are_sent_while_a_part_is_down(destination: Destination, server: Server) -> None:
    server.killers = {1}
    await carry(destination, [parcel(1), parcel(2)], rounds=2)
    server.of_a_part_that_is_down = {3}
    server.flights.clear()
    await destination.connect()
    verdicts = await destination.send([parcel(1), parcel(2), parcel(3)])
    assert [1] in server.flights, "alone"
    assert isinstance(verdicts[2], Unsent)


async def test_a_connection_that_died_at_rest_is_replaced(destination: Destination, server: Server) -> None:
    await destination.connect()
    server.connections[0].is_alive = False
    await destination.connect()
    assert await destination.send([parcel(1)]) == [Accepted()]


async def test_what_has_no_answer_in_time_is_unsent_and_the_connection_is_given_up(server: Server) -> None:
    destination = Destination(server, Suspects())
    await destination.connect()
    destination.before_answer = lambda: destination.finish(0.0) or _raise(TimeoutError())
    [verdict] = await destination.send([parcel(1)])
    assert isinstance(verdict, Unsent)
    assert "the server has the row" in str(verdict.exception)
    assert server.connections[0].is_closed


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("address", "reason"), [("", "it is empty"), ("bad", "nothing can go there"), ("\ud800", "surrogates")]
)
async def test_an_address_to_which_nothing_can_ever_go_is_poison_and_stops_no_other(
    destination: Destination, server: Server, address: str, reason: str
) -> None:
    await destination.connect()
    poison, *others = await destination.send([parcel(1, "a", address), parcel(2, "a"), parcel(3, "a", "good")])
    assert isinstance(poison, Poison)
    assert poison.reason == Reason.INVALID
    assert reason in str(poison.exception)
    assert others == [Accepted()] * 2
    assert server.flights == [[2, 3]]


async def test_closing_lets_go_of_the_connection(destination: Destination, server: Server) -> None:
    await destination.connect()
    await destination.close()
    await destination.close()
    assert server.connections[0].is_closed


async def test_a_killer_is_found_though_the_lane_lets_go_of_its_connection_meanwhile(
    destination: Destination, server: Server
) -> None:
    """As when the forwarder is paused and resumed."""
    server.killers = {1}
    for _ in range(2):
        await destination.connect()
        await destination.send([parcel(1)])
        await destination.close()
    verdicts = await carry(destination, [parcel(1, "a"), parcel(2, "a")])
    assert isinstance(verdicts[1], Poison)
    assert verdicts[2] == Accepted()


async def test_a_killer_is_found_and_no_other_dies(destination: Destination, server: Server) -> None:
    server.killers = {3}
    verdicts = await carry(destination, [parcel(number, "ab"[number % 2]) for number in range(6)])
    assert isinstance(verdicts.pop(3), Poison)
    assert set(verdicts.values()) == {Accepted()}
    assert [flight for flight in server.flights if 3 in flight] == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [3]]


async def test_two_killers_are_found(destination: Destination, server: Server) -> None:
    server.killers = {1, 4}
    verdicts = await carry(destination, [parcel(number) for number in range(6)])
    assert {number for number, verdict in verdicts.items() if isinstance(verdict, Poison)} == {1, 4}


async def test_a_misfit_is_found_at_once_and_it_is_no_outage(destination: Destination, server: Server) -> None:
    server.misfits = {3}
    await destination.connect()
    parcels = [parcel(number) for number in range(6)]
    assert await destination.send(parcels) == [Unsent()] * 6, "without a reason that a lane would wait for"
    verdicts = await carry(destination, parcels)
    assert verdicts.pop(3) == TOO_LARGE
    assert set(verdicts.values()) == {Accepted()}


async def test_a_server_that_goes_away_accuses_nobody(destination: Destination, server: Server) -> None:
    parcels = [parcel(number) for number in range(3)]
    for _ in range(10):
        await destination.connect()
        destination.before_answer = lambda: setattr(server, "is_up", False)
        assert all(isinstance(verdict, Unsent) for verdict in await destination.send(parcels))
        with pytest.raises(ConnectionError):
            await destination.connect()
        server.is_up = True
    destination.before_answer = lambda: None
    await destination.connect()
    assert await destination.send(parcels) == [Accepted()] * 3
    assert server.flights[-1] == [0, 1, 2]


async def test_a_server_that_was_replaced_meanwhile_accuses_nobody(destination: Destination, server: Server) -> None:
    parcels = [parcel(number) for number in range(3)]
    server.has_stayed = False
    for _ in range(10):
        await destination.connect()
        destination.before_answer = lambda: setattr(server, "is_up", False)
        assert all(isinstance(verdict, Unsent) for verdict in await destination.send(parcels))
        server.is_up = True
    assert server.flights[-1] == [0, 1, 2]


async def test_another_lane_does_not_sentence_before_the_server_is_known_to_be_there(server: Server) -> None:
    suspects = Suspects()
    for _ in range(2):
        suspects.suspect({1: ConnectionError()})
        suspects.confirm([1])
    one, other = Destination(server, suspects), Destination(server, suspects)
    await one.connect()
    await other.connect()
    one.before_answer = lambda: setattr(server, "is_up", False)
    await one.send([parcel(1)])
    assert await other.send([parcel(1)]) == [Unsent()], "it has not noticed yet that the server is gone"
    with pytest.raises(ConnectionError):
        await one.connect()
    server.is_up = True
    await other.connect()
    assert await other.send([parcel(1)]) == [Accepted()]


async def test_what_one_lane_finds_of_the_server_counts_for_all(server: Server) -> None:
    """Lanes take turns in trying a server that is down; the one that comes last finds it there at its first look."""
    suspects = Suspects()
    one, other = Destination(server, suspects), Destination(server, suspects)
    one.before_answer = lambda: setattr(server, "is_up", False)
    for _ in range(5):
        await one.connect()
        await other.connect()
        await one.send([parcel(1), parcel(2)])
        await other._drop()
        with pytest.raises(ConnectionError):
            await other.connect()
        server.is_up = True
    one.before_answer = lambda: None
    await one.connect()
    assert await one.send([parcel(1), parcel(2)]) == [Accepted()] * 2
    assert server.flights[-1] == [1, 2]


async def test_a_lane_that_connects_meanwhile_takes_no_accusation_back(server: Server) -> None:
    suspects = Suspects()
    server.killers = {1}
    one, other = Destination(server, suspects), Destination(server, suspects)
    for _ in range(3):
        await one.connect()
        await one.send([parcel(1)])
        await other.connect()
        await other._drop()
    await one.connect()
    [verdict] = await one.send([parcel(1)])
    assert isinstance(verdict, Poison)


async def test_a_suspect_behind_a_refused_row_of_its_key_is_not_sent(destination: Destination, server: Server) -> None:
    destination._suspects.suspect_at_once({2: ValueError(), 3: ValueError()})
    server.refused = {1}
    await destination.connect()
    verdicts = await destination.send([parcel(1, "a"), parcel(2, "a"), parcel(3, "b"), parcel(4, "b"), parcel(5, "c")])
    assert isinstance(verdicts[0], Refused)
    assert verdicts[1:] == [Unsent(), Accepted(), Unsent(), Accepted()]
    assert server.flights == [[1, 5], [3]]


async def test_a_suspect_behind_poison_of_its_key_is_sent(destination: Destination, server: Server) -> None:
    server.killers = {2}
    await carry(destination, [parcel(2, "a")], rounds=2)
    server.killers = set()
    server.too_large = {1}
    await destination.connect()
    assert await destination.send([parcel(1, "a"), parcel(2, "a")]) == [TOO_LARGE, Accepted()]


@given(
    keys=st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=12),
    killers=st.sets(st.integers(0, 11), max_size=3),
    misfits=st.sets(st.integers(0, 11), max_size=3),
)
async def test_only_the_guilty_die_and_the_order_of_keys_holds(
    keys: list[str | None], killers: set[int], misfits: set[int]
) -> None:
    server = Server()
    server.killers, server.misfits = killers, misfits - killers
    verdicts = await carry(
        Destination(server, Suspects()), [parcel(number, key) for number, key in enumerate(keys)], rounds=60
    )
    guilty = {number for number in killers | misfits if number < len(keys)}
    assert {number for number, verdict in verdicts.items() if isinstance(verdict, Poison)} == guilty
    assert sorted(server.taken) == [number for number in range(len(keys)) if number not in guilty]
    for key in ("a", "b"):
        taken = [number for number in server.taken if keys[number] == key]
        assert taken == sorted(taken)
