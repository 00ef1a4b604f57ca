import aiokafka.errors
import pytest

from faststream_outbox._values.outcome import Poison, Refused, Unsent, Verdict
from faststream_outbox.forwarders.kafka.answers import ANSWERS
from faststream_outbox.forwarders.kafka.verdicts import KafkaAnswerError, classify

# Error codes that Kafka's protocol guide marks as retriable and that a produce or metadata request can meet.
RETRIABLE = {3, 5, 6, 7, 9, 13, 19, 20, 56, 72, 74, 75, 89, 100, 103}

TABLE: dict[int, type[Verdict] | str] = {
    10: "too_large",
    18: "too_large",
    87: "invalid",
    **dict.fromkeys(RETRIABLE, Unsent),
    **dict.fromkeys([8, 17, 21, 29, 31, 32, 33, 34, 35, 41, 43, 54, 58, 76], Unsent),
}


@pytest.mark.parametrize("code", sorted(ANSWERS))
def test_every_line_of_the_table(code: int) -> None:
    error = KafkaAnswerError(code, "partition 0 of 'topic'")
    verdict = classify(error)
    expected = TABLE[code]
    if isinstance(expected, str):
        assert verdict == Poison(expected, error)
    else:
        assert verdict == expected(error)


def test_the_table_here_has_no_other_lines() -> None:
    assert set(TABLE) == set(ANSWERS)


@pytest.mark.parametrize("code", sorted(ANSWERS))
def test_what_is_wrong_with_one_topic_refuses_rows_that_have_named_it(code: int) -> None:
    error = KafkaAnswerError(code, "it")
    expected = Refused(error) if code in {3, 17, 29} else classify(error)
    assert classify(error, elsewhere=True) == expected


@pytest.mark.parametrize("code", [-1, 2, 42, 44, 12345])
def test_an_answer_that_is_not_in_the_table_refuses_the_row(code: int) -> None:
    assert isinstance(classify(KafkaAnswerError(code, "it")), Refused)


def test_nothing_that_aiokafka_would_retry_is_held_against_a_row() -> None:
    for error in _subclasses(aiokafka.errors.BrokerResponseError):
        if error.retriable:
            # These are answers to other requests than ours.
            if error.errno in {14, 15, 16}:
                continue
            assert isinstance(classify(KafkaAnswerError(error.errno, "it")), Unsent), error


def _subclasses(kind: type) -> list[type]:
    return [each for direct in kind.__subclasses__() for each in (direct, *_subclasses(direct))]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("gone"),
        TimeoutError("silent"),
        OSError("unreachable"),
        aiokafka.errors.KafkaConnectionError("gone"),
        aiokafka.errors.CorrelationIdError("confused"),
        RuntimeError("a bug of the client"),
    ],
    ids=repr,
)
def test_what_is_not_an_answer_counts_nothing(error: Exception) -> None:
    assert classify(error) == Unsent(error)


def test_an_error_says_what_it_is_about_and_its_code() -> None:
    assert str(KafkaAnswerError(10, "partition 3 of 'orders'")) == (
        "partition 3 of 'orders': Kafka answered MESSAGE_SIZE_TOO_LARGE (10)"
    )
    assert "(87)" in str(KafkaAnswerError(87, "it"))
