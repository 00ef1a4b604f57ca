"""What sending has raised, as a verdict."""

from aiokafka.errors import UnknownError, for_code

from faststream_outbox._values.outcome import Refused, Unsent, Verdict
from faststream_outbox.forwarders.kafka.answers import OF_A_PARTITION, OF_A_TOPIC, verdict_on


class KafkaAnswerError(Exception):
    """Kafka has answered, and the answer was no. A record batch that it was asked to take is not in the topic.

    Attributes:
        code: Kafka's error code.
    """

    def __init__(self, code: int, about: str) -> None:
        known = for_code(code)
        name = "an error" if known is UnknownError else known.message
        super().__init__(f"{about}: Kafka answered {name} ({code})")
        self.code = code


class NotSentError(KafkaAnswerError):
    """Kafka was not even asked: there is nobody to be asked, as this side knows."""


def classify(error: BaseException, *, elsewhere: bool = False) -> Verdict:
    """Read what sending has raised: the row is poison, or refused, or nothing can be sent now.

    Args:
        error: What was raised.
        elsewhere: Whether the row has named the topic, which then is not the forwarder's own.
    """
    if isinstance(error, KafkaAnswerError):
        if elsewhere and is_of_a_topic(error):
            return Refused(error)
        return verdict_on(error.code, error)
    # The connection, a time-out, or an error of aiokafka's own: whatever it is, it is not the row's.
    return Unsent(error)


def is_of_a_topic(error: BaseException) -> bool:
    """Return whether an answer says that a topic, or its users, are missing."""
    return isinstance(error, KafkaAnswerError) and error.code in OF_A_TOPIC


def is_of_a_partition(error: BaseException) -> bool:
    """Return whether an answer speaks of one partition alone."""
    return isinstance(error, KafkaAnswerError) and error.code in OF_A_PARTITION
