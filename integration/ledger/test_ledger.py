"""The ledger sees each kind of harm, and nothing where there is none."""

from collections.abc import Iterable

import pytest

from integration.destinations.received import IDENTITY, Received

from .ledger import Findings, Message, audit

COMMITTED = [Message(f"m{n}", n, "orders", f"key-{n % 2}", b"body %d" % n) for n in range(1, 7)]


def copy(identity: str, key: str | None, body: bytes, place: int = 0, **headers: str) -> Received:
    return Received(place, key, body, {IDENTITY: identity, **headers})


def copy_of(message: Message, *, key: str | None = None, body: bytes | None = None, place: int = 0) -> Received:
    return copy(message.identity, key or message.key, message.body if body is None else body, place)


def arrived(numbers: Iterable[int]) -> list[Received]:
    return [copy_of(COMMITTED[number - 1]) for number in numbers]


def test_an_honest_run() -> None:
    audit(COMMITTED, arrived([1, 2, 3, 4, 5, 6])).check()


def test_keys_may_overtake_one_another() -> None:
    audit(COMMITTED, arrived([2, 1, 4, 6, 3, 5])).check()


def test_messages_without_a_key_may_overtake_one_another() -> None:
    messages = [Message(name, number, "orders", None, b"") for number, name in enumerate("abc")]
    audit(messages, [copy(name, None, b"") for name in "cab"]).check()


def test_lost() -> None:
    assert audit(COMMITTED, arrived([1, 2, 3, 5, 6])) == Findings(
        lost=["m4"], repeated=[], out_of_order=[], changed=[], unknown=[]
    )


def test_what_is_among_the_dead_letters_is_not_lost() -> None:
    audit(COMMITTED, arrived([1, 2, 3, 5, 6]), dead={"m4"}).check()


def test_a_repeat_is_counted_each_time_and_is_not_out_of_order() -> None:
    findings = audit(COMMITTED, arrived([1, 2, 3, 1, 4, 5, 6, 1]))
    assert findings.repeated == ["m1", "m1"]
    findings.check(repeats_at_most=2)
    with pytest.raises(AssertionError, match="2 repeated: m1, m1"):
        findings.check(repeats_at_most=1)


def test_out_of_order() -> None:
    assert audit(COMMITTED, arrived([1, 2, 5, 3, 4, 6])).out_of_order == ["m3"]


def test_a_key_that_is_in_two_places_has_no_order() -> None:
    copies = [copy_of(message, place=1 if message.number == 3 else 0) for message in COMMITTED]
    assert audit(COMMITTED, copies).out_of_order == ["m3"]


@pytest.mark.parametrize("change", [{"key": "another"}, {"body": b""}])
def test_changed(change: dict[str, object]) -> None:
    copies = [copy_of(message, **(change if message.number == 4 else {})) for message in COMMITTED]  # type: ignore[arg-type]
    assert audit(COMMITTED, copies).changed == ["m4"]


def test_a_header_that_is_missing() -> None:
    message = Message("m", 1, "orders", None, b"", {"tenant": "é"})
    assert audit([message], [copy("m", None, b"", outbox_id="7")]).changed == ["m"]
    audit([message], [copy("m", None, b"", outbox_id="7", tenant="é")]).check()


def test_a_repeat_that_is_changed() -> None:
    copies = [*arrived([1, 2, 3, 4, 5, 6]), copy_of(COMMITTED[0], body=b"other")]
    assert audit(COMMITTED, copies).changed == ["m1"]


def test_sent_though_rolled_back() -> None:
    assert audit(COMMITTED, [*arrived([1, 2, 3, 4, 5, 6]), copy("m7", None, b"")]).unknown == ["m7"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(AssertionError, match="1 lost: m6; 1 out_of_order: m1; 1 unknown: m9"):
        audit(COMMITTED, [*arrived([2, 3, 1, 4, 5]), copy("m9", None, b"")]).check()
